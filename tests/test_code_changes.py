"""Edits of the code: what counts as one, which scripts it concerns, what follows."""

import ast
import json
from pathlib import Path

import pytest

from longscale.code_changes import (
    Entry,
    Sources,
    code_digest,
    decide,
    describe,
    imported_names,
    read_record,
    setting,
    write_record,
)
from longscale.errors import LongscaleError

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"

SOURCE = '''"""A module."""
import os


class Thing:
    """A class."""

    size: int = 1

    async def wait(self, *rest, key=None):
        """A function."""
        return f"{self.size:>{key}}" or {**rest[0], "a": b"x"}


def only_a_docstring():
    """Nothing else."""
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Other words."""'),
        ('"""A module."""\n', ""),
        ('    """A class."""\n', '    # a comment\n    """Other\n    words."""\n'),
        ('        """A function."""\n', ""),
        ('"a": b"x"', "\n 'a' : (b'x')\n"),
        ("size: int = 1", "size: int = 1  # metres"),
        ("import os\n", 'import os\n\n__version__ = "0.2.0"\n"""A string that nothing reads."""\n'),
    ],
)
def test_words_and_formatting_are_not_code(old, new):
    assert old in SOURCE
    assert code_digest(SOURCE.replace(old, new)) == code_digest(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size: int = 1", "size: int = 2"),
        ("size: int = 1", "size: int = True"),
        ("size: int = 1", "size = 1"),
        ("size: int = 1", "size: int"),
        ("async def", "def"),
        ("key=None", "key"),
        ("key=None", "key=0"),
        (":>{key}", ":<{key}"),
        ('b"x"', '"x"'),
        ("**rest[0], ", ""),
        ("import os", "import os as o"),
        ("import os", '__versions__ = "0.2.0"'),
        ("return f", "yield f"),
    ],
)
def test_everything_else_is(old, new):
    assert old in SOURCE
    assert code_digest(SOURCE.replace(old, new)) != code_digest(SOURCE)


def test_statements_in_another_order_or_block_are_another_code():
    sources = ["if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n", "c()\nif a:\n    b()\n"]
    assert len(set(map(code_digest, sources))) == 3


def test_imports_are_found_wherever_they_stand():
    source = "import a.b as c\ndef f():\n    from d import e\nfrom . import g\nfrom ..h import i\n"
    found = imported_names(ast.parse(source), "p.q")
    assert found == {"a.b", "d", "d.e", "p.q", "p.q.g", "p.h", "p.h.i"}


@pytest.fixture
def folder(tmp_path):
    """one.py -> lib.a -> lib.b (inside a function) -> lib.a; two.py -> lib.c; nobody -> lib.d."""
    files = {
        "one.py": "from lib.a import x\nimport json\n",
        "two.py": "from lib import c\n",
        "lib/__init__.py": '"""A package."""\n',
        "lib/a.py": "def f():\n    import lib.b\n",
        "lib/b.py": "from .a import f\n",
        "lib/c.py": "",
        "lib/d.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def present(folder):
    sources = Sources(folder)
    return {script: sources.modules(script) for script in ("one.py", "two.py")}


def test_a_script_runs_itself_and_what_it_imports(folder):
    found = present(folder)
    assert set(found["one.py"]) == {"one", "lib", "lib.a", "lib.b"}
    assert set(found["two.py"]) == {"two", "lib", "lib.c"}


def test_of_the_workflow_every_module_is_used_and_a_rule_of_lengths_is_no_business_of_readers():
    sources = Sources(SCRIPTS)
    scripts = [path.name for path in SCRIPTS.glob("*.py")]
    modules = {script: set(sources.modules(script)) for script in scripts}
    library = {
        ".".join(path.relative_to(SCRIPTS).with_suffix("").parts)
        for path in (SCRIPTS / "longscale").rglob("*.py")
        if path.name != "__init__.py"
    }
    of_rules_alone = {"longscale.code_changes", "longscale.slurm_block"}
    assert library - set().union(*modules.values()) == of_rules_alone
    assert "longscale.attention.kernel" in modules["finetune.py"]
    assert "longscale.attention.kernel" not in modules["prepare_variants.py"]
    assert "longscale.variants.accept" not in modules["finetune.py"]


def test_a_module_that_is_not_python_is_named_with_its_line(folder):
    (folder / "lib" / "b.py").write_text("x = 1\nx = = 2\n")
    with pytest.raises(LongscaleError, match=r"lib/b\.py, line 2: not Python"):
        Sources(folder).modules("one.py")


def edit(folder, name, text="x = 1\n"):
    (folder / name).write_text((folder / name).read_text() + text)


def test_the_first_start_changes_nothing_and_remembers(folder):
    for mode in ("keep", "rerun", "accept"):
        decision = decide({}, present(folder), mode)
        assert (decision.scripts, decision.modules) == ((), ())
        assert decision.versions == {"one.py": 0, "two.py": 0}
        assert decision.record["one.py"].modules == present(folder)["one.py"]
    assert setting("one.py", 0) == {}


def test_an_edit_concerns_the_scripts_that_import_the_module(folder):
    record = decide({}, present(folder), "keep").record
    edit(folder, "lib/d.py")
    assert decide(record, present(folder), "rerun").scripts == ()
    edit(folder, "lib/b.py")
    decision = decide(record, present(folder), "rerun")
    assert (decision.scripts, decision.modules) == (("one.py",), ("lib.b",))
    edit(folder, "lib/__init__.py")
    assert decide(record, present(folder), "rerun").scripts == ("one.py", "two.py")


@pytest.mark.parametrize(
    ("mode", "versions", "next_start"),
    [("keep", 0, ("one.py",)), ("accept", 0, ()), ("rerun", 1, ())],
)
def test_what_follows_from_an_edit(folder, mode, versions, next_start):
    record = decide({}, present(folder), "keep").record
    edit(folder, "one.py")
    decision = decide(record, present(folder), mode)
    assert decision.versions == {"one.py": versions, "two.py": 0}
    assert decide(decision.record, present(folder), "keep").scripts == next_start
    assert decide(decision.record, present(folder), "keep").versions == decision.versions


def test_going_back_is_an_edit_too(folder):
    first = decide({}, present(folder), "keep").record
    before = (folder / "one.py").read_text()
    edit(folder, "one.py")
    second = decide(first, present(folder), "rerun").record
    (folder / "one.py").write_text(before)
    third = decide(second, present(folder), "rerun")
    assert third.versions["one.py"] == 2
    assert setting("one.py", 2) != setting("one.py", 1) != setting("two.py", 1)


def test_the_record_survives_and_keeps_the_entries_of_others(folder):
    path = folder / "results" / "code.json"
    assert read_record(path) == {}
    record = decide({}, present(folder), "keep").record
    write_record(record, path)
    assert read_record(path) == record
    stamp = path.stat().st_ino
    write_record({"one.py": record["one.py"]}, path)
    assert path.stat().st_ino == stamp  # nothing new: not written again
    write_record({"three.py": Entry({"three": "0"}, 4)}, path)
    assert read_record(path) == record | {"three.py": Entry({"three": "0"}, 4)}


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"scripts": {"one.py": {"x": 1}}})])
def test_a_broken_record_is_one_sentence(tmp_path, text):
    (tmp_path / "code.json").write_text(text)
    with pytest.raises(LongscaleError, match=r"code\.json: not readable as the record"):
        read_record(tmp_path / "code.json")


def test_the_sentence_names_modules_rules_and_what_to_do(folder):
    record = decide({}, present(folder), "keep").record
    assert describe(decide(record, present(folder), "keep"), [], "results", "keep") == ""
    edit(folder, "lib/c.py")
    decision = decide(record, present(folder), "keep")
    sentence = describe(decision, ["score", "plot"], "results", "keep")
    assert "lib.c" in sentence
    assert "rules plot, score" in sentence
    assert "on_code_change=rerun" in sentence
    assert "\n" not in sentence
    assert "made again" in describe(decision, ["score"], "results", "rerun")
    assert "count as" in describe(decision, ["score"], "results", "accept")
