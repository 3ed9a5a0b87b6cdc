"""Files that appear whole or not at all, their checksums, and what a pattern stands for."""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from longscale.errors import LongscaleError

TEXT_SUFFIXES = (".txt", ".jsonl")
"""Of the documents of a user's own corpus."""


def matching_files(path: str | Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that `path` stands for, absolute and sorted: itself, those that a pattern matches,
    or those with one of `suffixes` in a folder and below it.
    """
    if Path(path).is_dir():
        found = [p for p in Path(path).rglob("*") if p.suffix in suffixes]
    else:
        # Path.glob takes no absolute pattern.
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207
        found = [Path(path)] if Path(path).exists() else [Path(match) for match in matches]
    return sorted(file.absolute() for file in found if file.is_file())


def _part_path(path: Path) -> Path:
    """A name beside `path` for this process alone (renaming across file systems is not atomic)."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _left_over(path: Path) -> list[Path]:
    """What processes that were killed have left beside `path` (see `_part_path`)."""
    own = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+\.part")
    return [item for item in path.parent.iterdir() if own.fullmatch(item.name)]


def check_writable(folder: str | Path) -> None:
    """Make `folder` if there is none, and a file in it, which goes again; raises OSError."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def not_as_written(path: str | Path, why: object) -> LongscaleError:
    """What to say of a JSON file of the results that no job can have written like that."""
    return LongscaleError(
        f"{path}: not the JSON that a job wrote ({why}); delete it, to be made again"
    )


def read_json(path: str | Path, *keys: str) -> dict[str, Any]:
    """A JSON object that a job has written, with at least `keys`; raises LongscaleError where it
    has been damaged since.
    """
    try:
        found = json.loads(Path(path).read_text())
    except ValueError as error:
        raise not_as_written(path, error) from error
    if not isinstance(found, dict):
        raise not_as_written(path, "no names and values")
    for key in keys:
        if key not in found:
            raise not_as_written(path, f"no {key}")
    return found


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; rename it to `path` only if the block succeeds.

    What processes that were killed have left of it then goes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_path(path)
    try:
        yield part
        part.replace(path)
        for left in _left_over(path):
            left.unlink(missing_ok=True)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; it takes the place of `path` only if the block succeeds."""
    path = Path(path)
    part = _part_path(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if path.exists():
            shutil.rmtree(path)
        part.replace(path)
        for left in _left_over(path):
            shutil.rmtree(left, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def checksum(path: str | Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file, read as a stream (`algorithm`: any name that hashlib knows)."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
