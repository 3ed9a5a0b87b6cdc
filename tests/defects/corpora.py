"""A user's own documents."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from defects.harness import Defect, Told, told_by

TEXT = "".join(np.random.default_rng(1).choice(list("abcdefgh ,\n"), 40_000))
GOOD = {f"{n}.txt": TEXT[n * 2000 : (n + 1) * 2000] for n in range(8)}
ENTRY = {
    "source": "file", "test_documents": 2, "dev_documents": 1, "select": "random", "seed": 1,
    "remove_shared": None, "limit_characters": None, "clusters": 2,
}  # fmt: skip


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """What `prepare_corpus` does with a folder of good documents and one that is not."""
    given = folder / "given"
    given.mkdir()
    files = {**GOOD, **defect.content} if defect.of != "alone" else defect.content
    for name, content in files.items():
        (given / name).write_bytes(content.encode() if isinstance(content, str) else content)
    out = folder / "out"
    names = ("documents.parquet", "corpus.json", "rejected.tsv", "test_documents.tsv")
    outputs = {name.split(".")[0]: out / name for name in names}
    told = told_by(
        "prepare_corpus",
        capture,
        outputs,
        inputs={"fasta": []},
        params={"corpus": {**ENTRY, "path": str(given)}, "train_length": 64, "longest": 1000},
    )
    if told.code == 0:
        ledger = pd.read_csv(out / "rejected.tsv", sep="\t", keep_default_na=False)
        told.ledger = [
            {"line": row["line"] or 0, "reason": row["reason"], "sentence": row["document"]}
            for row in ledger.to_dict("records")
        ]
    return told


def lines(*broken: bytes) -> dict[str, bytes]:
    good = json.dumps({"text": TEXT[-3000:-1500]}).encode()
    return {"x.jsonl": b"\n".join([good, *broken])}


DEFECTS = [
    Defect("no documents", {}, ("given", "no .txt or .jsonl file", "folder"), of="alone"),
    Defect(
        "another kind of file",
        {"a.docx": "PK"},
        ("given", "no .txt or .jsonl file", "folder"),
        of="alone",
    ),
    Defect("too few documents", {"a.txt": TEXT[:1500]}, ("", "document", ""), of="alone"),
    Defect(
        "documents that are too short",
        {f"{i}.txt": f"short {i}" for i in range(9)},
        ("", "document", ""),
        of="alone",
    ),
    Defect(
        "a document in Latin-1", {"z.txt": "\xe9\xe8".encode("latin-1")}, ("z.txt",), 0, "not_utf8"
    ),
    Defect("a document without text", {"z.txt": ""}, ("z.txt",), 0, "empty"),
    Defect("a line that is not JSON", lines(b"{text: 1}"), ("x.jsonl:2",), 2, "not_json"),
    Defect("a line without text", lines(b'{"txt": "a"}'), ("x.jsonl:2",), 2, "no_text"),
    Defect("a number as text", lines(b'{"text": 7}'), ("x.jsonl:2",), 2, "no_text"),
    Defect("a line nested 100,000 deep", lines(b"[" * 100_000), ("x.jsonl:2",), 2, "not_json"),
    Defect(
        "a line in Latin-1",
        lines('{"text": "\xe9"}'.encode("latin-1")),
        ("x.jsonl:2",),
        2,
        "not_utf8",
    ),
    Defect("a blank line between others", lines(b"", b'{"text": "b"}'), ("x.jsonl:2",), 2, "empty"),
    Defect(
        "the same name twice",
        lines(b'{"text": "b", "id": "x.jsonl:1"}'),
        ("x.jsonl:1",),
        2,
        "repeated_id",
    ),
]
