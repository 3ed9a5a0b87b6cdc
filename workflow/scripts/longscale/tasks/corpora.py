"""A corpus for masked language modelling: documents, split into train, dev and test.

Dev documents are held out too: entropies are measured and arms are chosen on them, so that nothing
is chosen on the documents that are reported.

Test and dev documents stay as they are; what training documents share with them is cut out of the
training documents (`remove_shared`), so that what is measured on them is not what was learnt by
heart.

A corpus is a folder:

    documents.parquet    document, split (train, dev, test), text, characters; by split, then in
                         the source's order
    rejected.tsv         document, line, characters, reason: what is not used, and why; of a
                         training document that shares text with a held-out one, `characters` are
                         those that are lost, and the rest is in documents.parquet
    test_documents.tsv   document, cluster, x, y, chosen (test, dev or empty): all the documents
                         that are long enough; cluster, x and y where they were clustered
    corpus.json          source, checksum, counts, leak (see `_separate`)
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from longscale.errors import LongscaleError
from longscale.files import atomic_folder
from longscale.tasks.corpus_sources import CORPUS_SOURCES, TRAIN, Candidate, Collected, Rejected
from longscale.tasks.leaks import STEP, WINDOW, Document, Removal, measure_leak, remove_shared
from longscale.tasks.selection import SELECTIONS, Pool, Selection, select_documents

SPLITS = ("train", "dev", "test")
SHARES_TEXT = "shares_text_with_a_held_out_document"
REASONS = (
    "not_utf8",
    "not_json",
    "no_text",
    "not_unicode",
    "empty",
    "repeated_id",
    "mostly_n",
    "too_short",
    "duplicate",
    SHARES_TEXT,
)
"""Why a document is not used. `no_text`: the JSON object has no text under `text`; `not_unicode`:
half of a surrogate pair, which no file can hold; `repeated_id`: the name is another document's;
`shares_text_with_a_held_out_document`: true of a part of it, which is cut out, and what is left in
between may be too short to train on."""

SHOWN_UNREADABLE = 5  # in the log; rejected.tsv has all

DEFAULTS: dict[str, Any] = {
    "path": None,
    "revision": "main",
    "test_documents": 12,
    "dev_documents": 4,
    "select": None,
    "clusters": 4,
    "seed": 1,
    "limit_characters": None,
    "document_bp": None,
    "test_contigs": None,
    "dev_contigs": None,
    "test_lines": None,
    "remove_shared": None,
}
"""What an entry of the configuration may leave out. `remove_shared` is then true, but false for a
genome: repeats are part of a genome, 64 bases of a transposon (such as Alu) stand in a thousand
places by biology and not by copying, and contigs without them would be no genome. What leaks is
reported either way."""


def prepare_corpus(
    entry: Mapping[str, Any],
    folder: str | Path,
    *,
    train_length: int,
    longest: int,
    fasta: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Make the corpus that a configuration entry describes, as a folder (see above), whole or not.

    Documents shorter than `train_length` characters are not used; test and dev documents have at
    least `longest`. With `select: lines` the test documents are WanJuan's `test_lines`, whatever
    `test_documents` says. `limit_characters` is a limit on whole training documents, before what
    they share with held-out ones is cut out (`remove_shared`). `fasta` is the run's genome, for
    source `genome`. Raises LongscaleError where documents are too few or the entry is at fault.
    """
    entry = {**DEFAULTS, **entry}
    if entry["source"] not in CORPUS_SOURCES:
        raise LongscaleError(
            f"source is {entry['source']!r}: it must be one of {', '.join(CORPUS_SOURCES)}"
        )
    collected = CORPUS_SOURCES[entry["source"]](entry, None if fasta is None else str(fasta))
    report(
        f"{entry['source']}: {len(collected.candidates):,} documents,"
        f" {len(collected.rejected):,} unreadable"
    )
    for row in collected.rejected[:SHOWN_UNREADABLE]:
        report(f"  unreadable: {row.document}: {row.reason}")
    kept, rejected = sift_documents(collected, train_length)
    eligible = [row for row, c in enumerate(kept) if c.splits != TRAIN and len(c.text) >= longest]
    selection = _select(entry, collected, kept, eligible, rejected, longest)
    splits = _assign_splits(kept, eligible, selection, entry["limit_characters"], entry["seed"])
    _check_training(splits, entry, train_length)
    documents, cut, leak = _separate(kept, splits, entry, train_length)
    rejected += cut
    facts = {
        "source": entry["source"],
        **collected.origin,
        "sha256": documents_digest(documents),
        "seed": entry["seed"],
        "select": entry["select"] or collected.select,
        "train_length": train_length,
        "longest": longest,
        "splits": {
            split: _count(documents["text"][documents["split"] == split]) for split in SPLITS
        },
        "unused": _count(kept[row].text for row in np.flatnonzero(splits == "")),
        "rejected": _count_reasons(rejected),
        "remove_shared": _removes_shared(entry),
        "leak": leak,
    }
    report(_summary(facts))
    with atomic_folder(folder) as part:
        documents.to_parquet(part / "documents.parquet", index=False)
        _table_of_rejected(rejected).to_csv(part / "rejected.tsv", sep="\t", index=False)
        _table_of_selection([kept[row].name for row in eligible], selection).to_csv(
            part / "test_documents.tsv", sep="\t", index=False
        )
        text = json.dumps(facts, indent=1, ensure_ascii=False)
        (part / "corpus.json").write_text(text + "\n", "utf-8")


def read_documents(folder: str | Path, split: str) -> list[Document]:
    """The documents of one split (train, dev or test) of a corpus, in its order."""
    path = Path(folder) / "documents.parquet"
    if split not in SPLITS:
        raise LongscaleError(f"split is {split!r}: it must be one of {', '.join(SPLITS)}")
    try:
        table = pd.read_parquet(
            path, columns=["document", "text"], filters=[("split", "==", split)]
        )
    except (OSError, ValueError, KeyError) as error:
        raise LongscaleError(
            f"{path}: cannot be read as the documents of a corpus; prepare_corpus writes them"
        ) from error
    return [Document(*row) for row in zip(table["document"], table["text"], strict=True)]


def read_test_documents(folder: str | Path) -> pd.DataFrame:
    """test_documents.tsv of a corpus: document, cluster (Int64), x, y, chosen (empty: neither)."""
    path = Path(folder) / "test_documents.tsv"
    types = {"document": "str", "cluster": "Int64", "x": float, "y": float, "chosen": "str"}
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=types,
            na_values={"cluster": "", "x": "", "y": ""},
            keep_default_na=False,
        )
    except (OSError, ValueError) as error:
        raise LongscaleError(
            f"{path}: cannot be read as the eligible documents of a corpus; prepare_corpus writes "
            "them"
        ) from error
    return table


def documents_digest(documents: pd.DataFrame) -> str:
    """SHA-256 of splits, names and texts, in order; each with its length before it."""
    total = hashlib.sha256()
    for row in documents[["split", "document", "text"]].itertuples(index=False):
        for value in row:
            encoded = value.encode()
            total.update(len(encoded).to_bytes(8, "big") + encoded)
    return total.hexdigest()


def sift_documents(
    collected: Collected, train_length: int
) -> tuple[list[Candidate], list[Rejected]]:
    """The documents that can be used, in the source's order, and the ledger.

    Of the same text twice the first is kept, but a document that may be held out goes before one
    that may only be trained on: a test text is never in the training set as a whole.
    """
    candidates = collected.candidates
    seen: set[str] = set()
    refused: dict[int, str] = {}
    for row in sorted(range(len(candidates)), key=lambda row: candidates[row].splits == TRAIN):
        reason = _fault(candidates[row].text, train_length, seen)
        if reason is None:
            seen.add(candidates[row].text)
        else:
            refused[row] = reason
    kept = [candidate for row, candidate in enumerate(candidates) if row not in refused]
    faulty = [
        Rejected(candidates[row].name, candidates[row].line, len(candidates[row].text), reason)
        for row, reason in sorted(refused.items())
    ]
    return kept, [*collected.rejected, *faulty]


def _fault(text: str, train_length: int, seen: set[str]) -> str | None:
    """The reason not to use a text, or None."""
    if not text.strip():
        return "empty"
    if len(text) < train_length:
        return "too_short"
    if text in seen:
        return "duplicate"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not_unicode"
    return None


def _select(
    entry: Mapping[str, Any],
    collected: Collected,
    kept: Sequence[Candidate],
    eligible: Sequence[int],
    rejected: Sequence[Rejected],
    longest: int,
) -> Selection:
    """Test and dev documents among the `eligible` (indices of `kept`)."""
    select = entry["select"] or collected.select
    if select not in (*SELECTIONS, "lines"):
        raise LongscaleError(
            f"select is {select!r}: it must be one of {', '.join(SELECTIONS)}, lines"
        )
    if select == "lines" and not collected.listed:
        raise LongscaleError("select: 'lines' is for source 'wanjuan', which has such a list")
    if select != "lines":
        _check_enough(entry, kept, eligible, rejected, longest)
    listed = []
    if select == "lines":
        places = {kept[row].name: place for place, row in enumerate(eligible)}
        for name in collected.listed:
            if name not in places:
                why = _why_not(name, kept, rejected, longest)
                raise LongscaleError(f"test_lines: {name} cannot be a test document: {why}")
            listed.append(places[name])
    pool = Pool(
        [kept[row].text for row in eligible],
        np.array(["test" in kept[row].splits for row in eligible], bool),
        np.array(["dev" in kept[row].splits for row in eligible], bool),
    )
    return select_documents(
        pool,
        select=select,
        test_documents=entry["test_documents"],
        dev_documents=entry["dev_documents"],
        clusters=entry["clusters"],
        seed=entry["seed"],
        listed=listed,
    )


def _check_enough(
    entry: Mapping[str, Any],
    kept: Sequence[Candidate],
    eligible: Sequence[int],
    rejected: Sequence[Rejected],
    longest: int,
) -> None:
    """LongscaleError where the documents that are long enough are fewer than those asked for."""
    test, dev = entry["test_documents"], entry["dev_documents"]
    if test < 1:
        raise LongscaleError(f"test_documents is {test}: at least one document must be tested on")
    if len(eligible) < test + dev:
        could = sum(candidate.splits != TRAIN for candidate in kept)
        counts = _count_reasons(rejected)
        unused = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        unused = f"; not used: {unused}" if unused else ""
        raise LongscaleError(
            f"source {entry['source']!r}: {len(eligible)} of {could} documents have at least "
            f"{longest:,} characters, but {test + dev} must be held out (test_documents {test}, "
            f"dev_documents {dev}){unused}; give more or longer documents (a .txt file is one), or "
            "ask for fewer or for shorter lengths"
        )


def _why_not(
    name: str, kept: Sequence[Candidate], rejected: Sequence[Rejected], longest: int
) -> str:
    for candidate in kept:
        if candidate.name == name:
            return f"it has {len(candidate.text):,} characters, and {longest:,} are needed"
    for row in rejected:
        if row.document == name:
            return f"it is not used ({row.reason})"
    return "the file has no such line"


def _assign_splits(
    kept: Sequence[Candidate],
    eligible: Sequence[int],
    selection: Selection,
    limit_characters: int | None,
    seed: int,
) -> np.ndarray:
    """(documents,) train, dev, test, or empty for what is neither held out nor trained on."""
    splits = np.array(["train" if "train" in c.splits else "" for c in kept], dtype=object)
    chosen = selection.split != ""
    splits[np.array(eligible, int)[chosen]] = selection.split[chosen]
    if limit_characters is not None:
        rows = np.flatnonzero(splits == "train")
        sizes = np.array([len(kept[row].text) for row in rows], np.int64)
        splits[rows[~draw_up_to(sizes, limit_characters, seed)]] = ""
    return splits


def draw_up_to(sizes: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Which documents to keep: in random order, each that still fits into `limit` characters."""
    drawn = np.zeros(len(sizes), bool)
    left = limit
    for index in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[index] <= left:
            drawn[index] = True
            left -= sizes[index]
    return drawn


def _check_training(splits: np.ndarray, entry: Mapping[str, Any], train_length: int) -> None:
    if not (splits == "train").any():
        limit = entry["limit_characters"]
        within = "" if limit is None else f" within limit_characters {limit:,}"
        raise LongscaleError(
            f"source {entry['source']!r}: no document of at least {train_length:,} characters is "
            f"left to train on{within}; give more documents or hold out fewer (test_documents "
            f"{entry['test_documents']}, dev_documents {entry['dev_documents']})"
        )


def _separate(
    kept: Sequence[Candidate], splits: np.ndarray, entry: Mapping[str, Any], train_length: int
) -> tuple[pd.DataFrame, list[Rejected], dict[str, Any]]:
    """Table of the documents, lines of the ledger, and `leak` of corpus.json.

    `leak`: of the test documents' windows (`windows`; `window` characters, `step` apart) `found`
    (`share`) stand in a whole training document, `share_after` in what is kept of them; `dev_share`
    stand in a dev document, which is reported and changes nothing. `removed_characters` stand in a
    held-out document too; `too_short_characters` were left between them, in stretches shorter than
    `train_length`. Raises LongscaleError where nothing is left to train on.
    """
    chosen = {
        split: [Document(kept[row].name, kept[row].text) for row in np.flatnonzero(splits == split)]
        for split in SPLITS
    }
    test = _texts(chosen["test"])
    before = measure_leak(test, _texts(chosen["train"]))
    facts = {
        "window": WINDOW,
        "step": STEP,
        "windows": before.windows,
        "found": before.found,
        "share": before.share,
        "share_after": before.share,
        "dev_share": measure_leak(test, _texts(chosen["dev"])).share,
        "removed_characters": 0,
        "too_short_characters": 0,
    }
    if not _removes_shared(entry):
        return _table_of_documents(chosen), [], facts
    removal = _cut_training(chosen, entry, train_length)
    chosen["train"] = removal.documents
    facts |= {
        "share_after": measure_leak(test, _texts(removal.documents)).share,
        "removed_characters": removal.removed_characters,
        "too_short_characters": int(removal.too_short.sum()),
    }
    train = [kept[row] for row in np.flatnonzero(splits == "train")]
    cut = [
        Rejected(candidate.name, candidate.line, int(lost), SHARES_TEXT)
        for candidate, lost in zip(train, removal.shared + removal.too_short, strict=True)
        if lost
    ]
    return _table_of_documents(chosen), cut, facts


def _cut_training(
    chosen: Mapping[str, Sequence[Document]], entry: Mapping[str, Any], train_length: int
) -> Removal:
    """The training documents without what they share; LongscaleError where none is left."""
    held_out = [*chosen["test"], *chosen["dev"]]
    removal = remove_shared(chosen["train"], held_out, train_length=train_length)
    if not removal.documents:
        raise LongscaleError(
            f"source {entry['source']!r}: no stretch of at least {train_length:,} characters is "
            "left to train on once the text shared with held-out documents is cut out; give more "
            "documents, or set remove_shared to false"
        )
    return removal


def _removes_shared(entry: Mapping[str, Any]) -> bool:
    """Whether text shared with held-out documents is cut out of the training documents."""
    chosen = entry["remove_shared"]
    return entry["source"] != "genome" if chosen is None else chosen


def _texts(documents: Iterable[Document]) -> list[str]:
    return [document.text for document in documents]


def _table_of_documents(chosen: Mapping[str, Sequence[Document]]) -> pd.DataFrame:
    rows = [(split, document) for split in SPLITS for document in chosen[split]]
    return pd.DataFrame(
        {
            "document": pd.array([document.name for _, document in rows], dtype="str"),
            "split": pd.array([split for split, _ in rows], dtype="str"),
            "text": pd.array([document.text for _, document in rows], dtype="str"),
            "characters": np.array([len(document.text) for _, document in rows], np.int64),
        }
    )


def _table_of_rejected(rejected: Sequence[Rejected]) -> pd.DataFrame:
    table = pd.DataFrame(rejected, columns=list(Rejected._fields))
    return table.astype({"line": "Int64", "characters": "Int64"})


def _table_of_selection(names: Sequence[str], selection: Selection) -> pd.DataFrame:
    cluster = pd.array(selection.cluster, dtype="Int64")
    cluster[selection.cluster < 0] = pd.NA
    return pd.DataFrame(
        {
            "document": names,
            "cluster": cluster,
            "x": selection.place[:, 0],
            "y": selection.place[:, 1],
            "chosen": selection.split,
        }
    )


def _count(texts: Iterable[str]) -> dict[str, int]:
    sizes = [len(text) for text in texts]
    return {"documents": len(sizes), "characters": sum(sizes)}


def _count_reasons(rejected: Iterable[Rejected]) -> dict[str, int]:
    counts = Counter(row.reason for row in rejected)
    return {reason: counts[reason] for reason in REASONS if reason in counts}


def _summary(facts: Mapping[str, Any]) -> str:
    parts = [
        f"{split} {counts['documents']:,} documents ({counts['characters']:,} characters)"
        for split, counts in facts["splits"].items()
    ]
    reasons = [f"{count:,} {reason}" for reason, count in facts["rejected"].items()]
    removed = facts["leak"]["removed_characters"]
    what_is_left = " (each piece that is left counts as a document)" if removed else ""
    return (
        f"{', '.join(parts)}; {facts['unused']['documents']:,} not needed; rejected.tsv: "
        f"{', '.join(reasons) or 'none'}; {facts['leak']['share']:.1%} of the test text stands in "
        f"the training text, {facts['leak']['share_after']:.1%} after {removed:,} shared "
        f"characters are cut out there{what_is_left}"
    )
