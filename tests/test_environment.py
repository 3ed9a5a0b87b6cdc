"""What is installed: the same exact versions in every list, and a pin for every import."""

import ast
import importlib
import re
import sys
from importlib.metadata import packages_distributions

import pytest
import yaml
from conftest import ROOT

SCRIPTS = ROOT / "workflow" / "scripts"
SOURCES = sorted(SCRIPTS.rglob("*.py"))
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.+!]*)")


def normal(name):
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines):
    """name -> version; every line must be an exact pin."""
    found = {}
    for line in lines:
        match = PIN.fullmatch(line.split("#")[0].strip())
        assert match, f"{line!r} is not an exact pin"
        assert normal(match[1]) not in found, f"{match[1]} stands there twice"
        found[normal(match[1])] = match[2]
    return found


def read_pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return pins(line for line in lines if line.strip() and not line.startswith(("#", "-r ")))


def imports_of(path):
    """(module, names imported from it) of every import, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module, [alias.name for alias in node.names]


def test_the_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "envs" / "longscale.yaml").read_text())
    python, _, pip = environment["dependencies"]
    assert python == "python =3.11"
    assert pins(pip["pip"]) == read_pins("requirements.txt")


def test_the_constraints_hold_the_same_versions():
    constraints = read_pins("constraints.txt")
    for name, version in read_pins("requirements.txt").items():
        assert constraints.get(name) == version, name


def test_requirements_for_development_add_pins_of_their_own():
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()
    assert not set(read_pins("requirements-dev.txt")) & set(read_pins("requirements.txt"))


def test_every_third_party_import_is_pinned():
    pinned, owners = set(read_pins("requirements.txt")), packages_distributions()
    extra = set(read_pins("requirements-enformer.txt"))
    assert not extra & pinned
    local = {"longscale", *(path.stem for path in SCRIPTS.glob("*.py"))}
    seen = set()
    for path in SOURCES:
        for module, _ in imports_of(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names or top in local:
                continue
            if path.stem == "enformer" and normal(top) in extra:
                continue  # not installed by default
            seen.add(top)
            owned = {normal(name) for name in owners.get(top, [])}
            assert owned & pinned, f"{path.relative_to(ROOT)} imports {top}, which is not pinned"
    assert {"torch", "numpy", "yaml", "sklearn"} <= seen


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SCRIPTS)))
def test_every_name_imported_from_the_library_exists(path):
    """Scripts import inside Snakemake's job, which no unit test runs."""
    for module, names in imports_of(path):
        if module.split(".")[0] == "longscale":
            loaded = importlib.import_module(module)
            missing = [name for name in names if not hasattr(loaded, name)]
            submodules = [
                n for n in missing if (SCRIPTS / module.replace(".", "/") / f"{n}.py").is_file()
            ]
            assert missing == submodules, f"{path.name}: {module} has no {missing}"


def test_imports_point_backwards_along_the_line_of_rooms():
    rooms = [
        "genome",
        "variants",
        "tasks",
        "attention",
        "models",
        "training",
        "evaluation",
        "report",
    ]
    library = SCRIPTS / "longscale"
    for path in sorted(library.rglob("*.py")):
        room = path.relative_to(library).parts[0]
        if room not in rooms:
            continue
        for module, _ in imports_of(path):
            parts = module.split(".")
            if parts[0] == "longscale" and len(parts) > 1 and parts[1] in rooms:
                assert rooms.index(parts[1]) <= rooms.index(room), f"{path}: {module}"
            assert parts[0] != "snakemake", path
