"""Where the documents of a corpus come from: one function per source, all of one shape.

A source reads everything it has, in a fixed order, and says which split each document may go to.
What it cannot read goes to the ledger. Lengths, duplicates and the choice of test documents are
the business of `tasks.corpora` and `tasks.selection`.
"""

import json
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from longscale.errors import LongscaleError
from longscale.files import TEXT_SUFFIXES, matching_files
from longscale.genome.hub import hub_file
from longscale.genome.sequence import ANY_BASE, Genome

WANJUAN_REPOSITORY = "HT-NEKO/WanJuan-Dataset_for_Information-Entropy-Invariance"
WANJUAN_TRAINING = "WanJuan_deal.json"
WANJUAN_VALIDATION = "WanJuan_deal_validation.json"
WANJUAN_TEST_LINES = (492, 2627, 1331, 1292, 1421, 419, 1122, 2184, 3024, 470)
"""The ten test documents of the paper; see `collect_wanjuan`."""

NOT_LIBRARY = {
    "__pycache__",
    "dist-packages",
    "idle_test",
    "pydoc_data",  # a corpus of its own
    "site-packages",
    "test",
    "tests",
}
"""Folders of the standard library that are no library code."""

WRITTEN_BY_A_BUILD = ("_sysconfigdata_", "sitecustomize.py", "usercustomize.py")
"""Beginnings of the names of modules that differ from machine to machine."""

MAX_GENOME_BP = 1_000_000_000  # of training documents; they are held in memory, and so is the rest
TILES_AT_ONCE = 512

ANY_SPLIT = frozenset({"train", "dev", "test"})
HELD_OUT = frozenset({"dev", "test"})
TRAIN = frozenset({"train"})


@dataclass(frozen=True)
class Candidate:
    """A document that a source offers.

    `line`: where it stands in its file, from 1 on; None where it is a file, or no file has it.
    `splits`: those that it may go to.
    """

    name: str
    text: str
    splits: frozenset[str] = ANY_SPLIT
    line: int | None = None


class Rejected(NamedTuple):
    """A line of the ledger: what cannot be used, and why. `line` counts from 1."""

    document: str
    line: int | None
    characters: int | None
    reason: str


@dataclass(frozen=True)
class Collected:
    """What a source has.

    `origin`: where it comes from, as corpus.json tells it. `select`: how test documents are chosen
    where the configuration does not say. `listed`: the names that `select: lines` stands for.
    """

    candidates: list[Candidate]
    rejected: list[Rejected] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)
    select: str = "random"
    listed: tuple[str, ...] = ()


def collect_cpython_docs(entry: Mapping[str, Any], fasta: str | None) -> Collected:  # noqa: ARG001
    """The topics of Python's `help()`, as the running interpreter carries them (English prose)."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise LongscaleError(
            "source: 'cpython-docs' needs the module pydoc_data.topics, which this Python "
            f"({platform.python_version()}) was installed without"
        ) from error
    documents = [Candidate(name, topics[name]) for name in sorted(topics)]
    return Collected(documents, origin={"python": platform.python_version()})


def collect_cpython_stdlib(
    entry: Mapping[str, Any],  # noqa: ARG001
    fasta: str | None,  # noqa: ARG001
) -> Collected:
    """The standard library's modules written in Python, as the running interpreter carries them.

    Packages installed beside it, test suites and modules written by the build are left out.
    """
    root = Path(sysconfig.get_path("stdlib"))
    documents, rejected = [], []
    for path in library_files(root):
        document = _read_text(path, path.relative_to(root).as_posix())
        (documents if isinstance(document, Candidate) else rejected).append(document)
    return Collected(documents, rejected, {"python": platform.python_version()})


def library_files(root: Path) -> list[Path]:
    """The library code (`*.py`) below `root`, sorted by relative path."""
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name
            for name in subfolders
            if name not in NOT_LIBRARY and not name.startswith("config-")
        ]
        modules = (n for n in names if n.endswith(".py") and not n.startswith(WRITTEN_BY_A_BUILD))
        found.extend(Path(folder, name) for name in modules)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def collect_wanjuan(entry: Mapping[str, Any], fasta: str | None) -> Collected:  # noqa: ARG001
    """The Chinese patents of the paper (from WanJuan), in the split that was released.

    Test and dev documents come from WanJuan_deal_validation.json, training documents from
    WanJuan_deal.json. A document's name is its file and its line counted from 0:
    `WanJuan_deal_validation:492`. That is how the released model/evaluation.py (repository
    HT-NEKO/Information-Entropy-Invariance) counts: it enumerates the validation file from 0 and
    keeps the ten lines of `WANJUAN_TEST_LINES`. The ledger's `line` is one more, as in an editor.
    """
    from huggingface_hub import hf_hub_url

    documents, rejected, urls = [], [], []
    # The held-out file first: of a text in both files the training copy is the duplicate.
    for filename, splits in ((WANJUAN_VALIDATION, HELD_OUT), (WANJUAN_TRAINING, TRAIN)):
        path = hub_file(
            WANJUAN_REPOSITORY, filename, revision=entry["revision"], repo_type="dataset"
        )
        commit = path.parent.name  # the cache keeps each commit's files in a folder of that name
        urls.append(
            hf_hub_url(
                WANJUAN_REPOSITORY,
                filename,
                repo_type="dataset",
                revision=commit,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        )
        for document in _read_json_lines(path, Path(filename).stem, splits, paper=True):
            (documents if isinstance(document, Candidate) else rejected).append(document)
    lines = entry["test_lines"] or WANJUAN_TEST_LINES
    return Collected(
        documents,
        rejected,
        {"revision": entry["revision"], "commit": commit, "urls": urls},
        select="lines",
        listed=tuple(f"{Path(WANJUAN_VALIDATION).stem}:{line}" for line in lines),
    )


def collect_file(entry: Mapping[str, Any], fasta: str | None) -> Collected:  # noqa: ARG001
    """The user's own documents: `.txt` (a document per file) and `.jsonl` (a document per line).

    `path` is a file, a folder (with the folders below it) or a pattern. A line of a `.jsonl` file
    is a JSON object with `text` and perhaps `id`; without `id` a document's name is `name:line`,
    the line counted from 1. Names of files are relative to the folder that holds them all.
    """
    if not entry["path"]:
        raise LongscaleError(
            "path is not given: source 'file' needs a .txt or .jsonl file, a folder or a pattern"
        )
    files = _user_files(str(entry["path"]))
    root = Path(os.path.commonpath([path.parent for path in files]))
    documents, rejected = [], []
    taken: set[str] = set()
    for path in files:
        name = _printable(path.relative_to(root).as_posix())
        for document in _read_user_file(path, name):
            if isinstance(document, Rejected):
                rejected.append(document)
            elif document.name in taken:
                rejected.append(_reject(document, "repeated_id"))
            else:
                taken.add(document.name)
                documents.append(document)
    return Collected(documents, rejected, {"path": str(entry["path"]), "files": len(files)})


def _user_files(path: str) -> list[Path]:
    """The files that `path` stands for, sorted; LongscaleError where there are none."""
    files = matching_files(path, TEXT_SUFFIXES)
    if not files:
        raise LongscaleError(
            f"{path}: no .txt or .jsonl file is there; path must be such a file, a folder that "
            "holds some, or a pattern"
        )
    for file in files:
        if file.suffix not in TEXT_SUFFIXES:
            raise LongscaleError(
                f"{file}: a corpus is read from .txt files (a document each) and .jsonl files "
                "(a JSON object with `text` per line), not from this one"
            )
    return files


def _read_user_file(path: Path, name: str) -> Iterator[Candidate | Rejected]:
    if path.suffix == ".txt":
        yield _read_text(path, name)
    else:
        yield from _read_json_lines(path, name, ANY_SPLIT)


def _read_text(path: Path, name: str) -> Candidate | Rejected:
    """A file as one document, line ends as `\\n`."""
    try:
        return Candidate(name, path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(name, None, None, "not_utf8")
    except OSError as error:
        raise LongscaleError(f"{path}: cannot be read ({error.strerror})") from error


def _read_json_lines(
    path: Path, name: str, splits: frozenset[str], *, paper: bool = False
) -> Iterator[Candidate | Rejected]:
    """The documents of a file of JSON objects, one per line.

    A document's name is its `id`, or `{name}:{line}`, counted from 1. `paper`: always the latter,
    counted from 0.
    """
    try:
        # As bytes: a line ends at \n alone, and one that is not UTF-8 spoils no other.
        with path.open("rb") as handle:
            for number, line in enumerate(handle):
                shown = number if paper else number + 1
                yield _parse_line(line, f"{name}:{shown}", number + 1, splits, own_id=not paper)
    except OSError as error:
        raise LongscaleError(f"{path}: cannot be read ({error.strerror})") from error


def _parse_line(
    line: bytes, name: str, number: int, splits: frozenset[str], *, own_id: bool
) -> Candidate | Rejected:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Rejected(name, number, None, "not_utf8")
    if not text.strip():
        return Rejected(name, number, 0, "empty")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return Rejected(name, number, None, "not_json")
    if not isinstance(found.get("text"), str):
        return Rejected(name, number, None, "no_text")
    if own_id and found.get("id") is not None:
        name = _printable(str(found["id"]))
    return Candidate(name, found["text"], splits, number)


def _printable(name: str) -> str:
    """A name without lone surrogates, which no file could hold."""
    return name.encode("utf-8", "backslashreplace").decode()


def _reject(document: Candidate, reason: str) -> Rejected:
    return Rejected(document.name, document.line, len(document.text), reason)


def collect_genome(entry: Mapping[str, Any], fasta: str | None) -> Collected:
    """Stretches of the genome, `document_bp` long, side by side, at most half of each N.

    Test and dev documents come from `test_contigs` and `dev_contigs`, training documents from the
    others. Names are `chr1:1-8192`, 1-based and closed, as a browser writes them. With
    `limit_characters` only as many training documents are read as are kept.
    """
    if fasta is None:
        raise LongscaleError("source: 'genome' needs the run's genome, and no FASTA file was given")
    if not entry["document_bp"]:
        raise LongscaleError("document_bp is not given: source 'genome' needs a length in bp")
    genome = Genome(fasta)
    cutter = _Cutter(genome, entry["document_bp"], [])
    contigs = _contigs_of_splits(genome, entry)
    documents = [
        *cutter.cut(cutter.tiles(contigs["test"]), frozenset({"test"})),
        *cutter.cut(cutter.tiles(contigs["dev"]), frozenset({"dev"})),
    ]
    tiles = cutter.tiles(contigs["train"])
    limit = entry["limit_characters"]
    if limit is None and len(tiles) * cutter.size > MAX_GENOME_BP:
        raise LongscaleError(
            f"limit_characters is not given: the training contigs hold "
            f"{len(tiles) * cutter.size:,} bp, and more than {MAX_GENOME_BP:,} must be limited"
        )
    if limit is not None:
        rng = np.random.default_rng(entry["seed"])
        tiles = [tiles[index] for index in rng.permutation(len(tiles))]
    drawn = cutter.cut(tiles, TRAIN, limit)
    order = {name: rank for rank, name in enumerate(contigs["train"])}
    drawn.sort(key=lambda document: _place(document.name, order))
    return Collected([*documents, *drawn], cutter.rejected, {"fasta": Path(fasta).name}, "even")


def _contigs_of_splits(genome: Genome, entry: Mapping[str, Any]) -> dict[str, list[str]]:
    """Split -> contigs, in the file's order."""
    named = {"test": entry["test_contigs"] or [], "dev": entry["dev_contigs"] or []}
    for split, contigs in named.items():
        for contig in contigs:
            if contig not in genome.lengths:
                raise LongscaleError(
                    f"{split}_contigs names {contig!r}, which the genome does not have; UCSC "
                    f"names are expected, such as {next(iter(genome.lengths))}"
                )
        if entry[f"{split}_documents"] and not contigs:
            raise LongscaleError(
                f"{split}_contigs is empty: it must name the contigs that the {split} documents "
                f"come from, or {split}_documents be 0"
            )
    for contig in set(named["test"]) & set(named["dev"]):
        raise LongscaleError(f"dev_contigs names {contig!r}, which is one of test_contigs already")
    held_out = {*named["test"], *named["dev"]}
    return named | {"train": [name for name in genome.lengths if name not in held_out]}


def _place(name: str, order: Mapping[str, int]) -> tuple[int, int]:
    """Where a document named `contig:start-end` stands: rank of its contig, start."""
    contig, _, span = name.rpartition(":")
    return order[contig], int(span.partition("-")[0])


@dataclass(frozen=True)
class _Cutter:
    """Cuts documents of `size` bp out of a genome; those of more than half N go to `rejected`."""

    genome: Genome
    size: int
    rejected: list[Rejected]

    def tiles(self, contigs: list[str]) -> list[tuple[str, int]]:
        """Contig and start (0-based) of every document that would fit."""
        return [
            (contig, start)
            for contig in contigs
            for start in range(0, self.genome.lengths[contig] - self.size + 1, self.size)
        ]

    def cut(
        self, tiles: list[tuple[str, int]], splits: frozenset[str], limit: int | None = None
    ) -> list[Candidate]:
        """The documents of `tiles`, in their order, until they would hold more than `limit` bp."""
        enough = len(tiles) if limit is None else limit // self.size
        documents: list[Candidate] = []
        for first in range(0, len(tiles), TILES_AT_ONCE):
            chunk = tiles[first : first + TILES_AT_ONCE]
            contigs = [contig for contig, _ in chunk]
            rows = self.genome.gather(contigs, np.array([start for _, start in chunk]), self.size)
            for (contig, start), row in zip(chunk, rows, strict=True):
                if len(documents) == enough:
                    return documents
                name = f"{contig}:{start + 1}-{start + self.size}"
                if 2 * np.count_nonzero(row == ANY_BASE) > self.size:
                    self.rejected.append(Rejected(name, None, self.size, "mostly_n"))
                else:
                    documents.append(Candidate(name, row.tobytes().decode("ascii"), splits))
        return documents


CORPUS_SOURCES: dict[str, Callable[[Mapping[str, Any], str | None], Collected]] = {
    "cpython-docs": collect_cpython_docs,
    "cpython-stdlib": collect_cpython_stdlib,
    "wanjuan": collect_wanjuan,
    "file": collect_file,
    "genome": collect_genome,
}
"""Source -> function (entry of the configuration, path of the run's FASTA file) -> documents."""
