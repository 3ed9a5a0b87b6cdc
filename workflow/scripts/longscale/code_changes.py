"""Edits of the code: which scripts they concern, and what becomes of results made before them.

What a script runs is itself and every module beside it that it imports, directly or not, wherever
the import stands. Of each module the syntax tree counts, without docstrings: comments, docstrings
and formatting change nothing. `code.json` in the folder of results remembers, per script, the code
that its results count as made with. Runs in every start of the workflow: nothing heavy is imported.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from longscale.errors import LongscaleError
from longscale.files import atomic_path

Mode = Literal["keep", "rerun", "accept"]

# Not what a module computes: a release must not make every result old.
NOT_CODE = {"__version__"}


@dataclass(frozen=True)
class Entry:
    """What the results of one script count as made with.

    `modules`: digest of each module it runs. `version`: how often an edit was answered by making
    the results again; 0 for the code they were first made with.
    """

    modules: Mapping[str, str]
    version: int = 0


Record = dict[str, Entry]  # by the script's file name

WHAT_FOLLOWS: Mapping[Mode, str] = {
    "keep": "finished results are kept (--config on_code_change=rerun makes them again, with -n it"
    " shows which; on_code_change=accept keeps them and ends this message)",
    "rerun": "on_code_change is rerun: their finished results are made again, those that this"
    " run is not asked for when they are next asked for",
    "accept": "on_code_change is accept: finished results count as made with the present code",
}


@dataclass(frozen=True)
class Decision:
    """What a start of the workflow does about the edits since its results were made.

    `versions`: of every script. `scripts`, `modules`: those that have changed, sorted. `record`:
    what `code.json` says once a run has begun.
    """

    versions: Mapping[str, int]
    scripts: tuple[str, ...]
    modules: tuple[str, ...]
    record: Record


def _is_text(statement: ast.AST) -> bool:
    """Whether a statement is a bare string: a docstring, or one that nothing reads."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_code(statement: object) -> bool:
    names = getattr(statement, "targets", [])
    return not _is_text(statement) and not (
        names and all(isinstance(name, ast.Name) and name.id in NOT_CODE for name in names)
    )


def _tokens(node: ast.AST) -> Iterator[str]:
    """The tree below `node` as text, the same under every Python (ast.dump's is not)."""
    yield f"({type(node).__name__}"
    for field, value in ast.iter_fields(node):
        if value is None or value == []:  # new versions of Python add fields that are mostly empty
            continue
        yield field
        for item in filter(_is_code, value) if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield from _tokens(item)
            else:
                yield repr(item)
    yield ")"


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise LongscaleError(f"{path}, line {error.lineno}: not Python: {error.msg}") from error


def code_digest(source: str) -> str:
    """Digest of what a module's source computes: not of its comments, docstrings or formatting."""
    return _digest(ast.parse(source))


def _digest(tree: ast.Module) -> str:
    return hashlib.sha256(" ".join(_tokens(tree)).encode()).hexdigest()[:16]


def imported_names(tree: ast.Module, package: str) -> set[str]:
    """Dotted names that a module of `package` imports, wherever the import stands.

    `from a import b` names both `a` and `a.b`: which of them is a module, the files tell.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*parts, *filter(None, [node.module])])
            names.update([base, *(f"{base}.{alias.name}" for alias in node.names)])
    return names


class Sources:
    """The modules below one folder; each is read once."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._read: dict[str, tuple[str, frozenset[str]]] = {}

    def _path(self, name: str) -> Path | None:
        """The file of a module, if it is one of ours."""
        path = self.folder.joinpath(*name.split("."))
        files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
        return next((file for file in files if file.is_file()), None)

    def _module(self, name: str, path: Path) -> tuple[str, frozenset[str]]:
        """Digest of a module and the names that it imports, with the packages around them."""
        if name not in self._read:
            tree = _parse(path)
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            names = {
                ".".join(parts[: end + 1])
                for parts in (found.split(".") for found in imported_names(tree, package))
                for end in range(len(parts))
            }
            self._read[name] = (_digest(tree), frozenset(names))
        return self._read[name]

    def modules(self, script: str) -> dict[str, str]:
        """Digest by name of all that the script `script` (a file name) runs, itself included.

        Raises LongscaleError naming file and line where one of them is not Python.
        """
        found: dict[str, str] = {}
        open_names = {script.removesuffix(".py")}
        while open_names:
            name = open_names.pop()
            path = self._path(name)
            if name in found or path is None:
                continue
            found[name], imported = self._module(name, path)
            open_names |= imported
        return dict(sorted(found.items()))


def read_record(path: str | Path) -> Record:
    """The content of a `code.json`; empty where there is none.

    Raises LongscaleError for one that cannot be read.
    """
    path = Path(path)
    try:
        scripts = json.loads(path.read_text())["scripts"]
        return {script: Entry(**entry) for script, entry in scripts.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LongscaleError(
            f"{path}: not readable as the record of the code ({error}); without the file, all"
            " results count as made with the present code"
        ) from error


def write_record(record: Record, path: str | Path) -> None:
    """Write `record` over the entries of a `code.json`; those of other scripts stay."""
    found = read_record(path)
    if found == found | record:
        return
    scripts = {name: asdict(entry) for name, entry in sorted((found | record).items())}
    with atomic_path(path) as part:
        part.write_text(json.dumps({"scripts": scripts}, indent=1) + "\n")


def decide(record: Record, present: Mapping[str, Mapping[str, str]], mode: Mode) -> Decision:
    """Compare what results were made with to the code that is `present` (modules of each script).

    A script without an entry gets one: its results, if there are any, count as made with the
    present code. Of one that has changed, `keep` leaves entry and results alone, `rerun` gives it a
    new version, and `accept` takes the present code as what its results were made with.
    """
    new: Record = {}
    changed: list[str] = []
    modules: set[str] = set()
    for script, digests in present.items():
        entry = record.get(script, Entry(digests))
        edited = {
            name
            for name in digests.keys() | entry.modules.keys()
            if digests.get(name) != entry.modules.get(name)
        }
        if edited:
            changed.append(script)
            modules |= edited
        if edited and mode != "keep":
            entry = replace(entry, modules=digests, version=entry.version + (mode == "rerun"))
        new[script] = entry
    versions = {script: entry.version for script, entry in new.items()}
    return Decision(versions, tuple(sorted(changed)), tuple(sorted(modules)), new)


def setting(script: str, version: int) -> dict[str, str]:
    """The setting that makes a rule's jobs run again when its script gets a new version.

    Empty for the first one, so that results made before there was such a setting stay valid.
    """
    return {"code": f"{script}, version {version}"} if version else {}


def _listed(names: Iterable[str], most: int) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def describe(decision: Decision, rules: Iterable[str], results: str, mode: Mode) -> str:
    """For a person, one sentence on what has changed and what follows; empty if nothing has.

    `rules`: those whose script has changed.
    """
    if not decision.scripts:
        return ""
    what = (
        f"longscale: the code has changed since results in {results} were made"
        f" ({_listed(decision.modules, 4)}), which concerns the rules {', '.join(sorted(rules))}"
    )
    return f"{what}; {WHAT_FOLLOWS[mode]}"
