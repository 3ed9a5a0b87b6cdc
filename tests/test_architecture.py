"""The rooms of the library: imports point backwards along their line, never forwards."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "workflow" / "scripts" / "longscale"
ROOMS = ["genome", "variants", "tasks", "attention", "models", "training", "evaluation", "report"]


def imported_rooms(path):
    """Rooms that a module imports from, wherever the import stands."""
    tree = ast.parse(path.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    parts = [name.split(".") for name in names if name and name.startswith("longscale.")]
    return {part[1] for part in parts} & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room):
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    modules = list((LIBRARY / room).glob("*.py"))
    assert len(modules) > 1
    for module in modules:
        assert imported_rooms(module) <= allowed, module.name


def test_the_library_knows_nothing_of_snakemake():
    for module in LIBRARY.rglob("*.py"):
        tree = ast.parse(module.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert "snakemake" not in names, module.name
        assert "import snakemake" not in module.read_text(), module.name


def test_what_every_job_imports_is_light():
    """The rules run in every job: they must not bring in torch, pandas or transformers."""
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    modules = sorted(set(re.findall(r"^from (longscale[.\w]*) import", rules, re.MULTILINE)))
    assert {"longscale.config", "longscale.probe_cells"} <= set(modules)
    code = f"import {', '.join(modules)}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pandas", "numpy", "transformers", "huggingface_hub"} & set(loaded)
