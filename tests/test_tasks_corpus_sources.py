"""Where documents come from: the interpreter, the hub, the user's files, a genome."""

import json
import platform
import sysconfig
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import huggingface_hub.constants
import numpy as np
import pysam
import pytest
from hub_server import COMMIT, serve_hub

from longscale.errors import LongscaleError
from longscale.tasks import corpus_sources
from longscale.tasks.corpora import DEFAULTS
from longscale.tasks.corpus_sources import (
    ANY_SPLIT,
    CORPUS_SOURCES,
    HELD_OUT,
    TRAIN,
    WANJUAN_REPOSITORY,
    WANJUAN_TEST_LINES,
    WANJUAN_TRAINING,
    WANJUAN_VALIDATION,
    Candidate,
    Rejected,
    library_files,
)


def collect(source, fasta=None, **entry):
    return CORPUS_SOURCES[source]({**DEFAULTS, "source": source, **entry}, fasta)


def lines_of(*rows):
    return "".join(
        (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n"
        for row in rows
    ).encode()


# --- the interpreter --------------------------------------------------------------------------


def test_cpython_docs_are_the_topics_of_help():
    found = collect("cpython-docs")
    assert {document.name: document.text for document in found.candidates} == topics
    assert [document.name for document in found.candidates] == sorted(topics)
    assert found.origin == {"python": platform.python_version()}


def test_cpython_stdlib_is_the_librarys_own_code():
    found = collect("cpython-stdlib")
    texts = {document.name: document.text for document in found.candidates}
    assert {"json/decoder.py", "argparse.py"} <= texts.keys()
    assert texts["json/decoder.py"] == Path(json.decoder.__file__).read_text("utf-8")
    assert list(texts) == sorted(texts)
    parts = {part for name in texts for part in name.split("/")[:-1]}
    assert parts.isdisjoint({"site-packages", "test", "tests", "pydoc_data", "__pycache__"})
    assert len(texts) + len(found.rejected) == len(
        library_files(Path(sysconfig.get_path("stdlib")))
    )


def test_what_is_no_library_code_is_left_out(tmp_path):
    kept = ["a.py", "b/__init__.py", "b/testing.py", "b.py", "email/z.py"]
    left_out = [
        "test/a.py",
        "b/tests/a.py",
        "idlelib/idle_test/a.py",
        "site-packages/x/a.py",
        "config-3.11/python-config.py",
        "pydoc_data/topics.py",
        "_sysconfigdata__linux.py",
        "sitecustomize.py",
        "b/data.txt",
    ]
    for name in kept + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    found = [path.relative_to(tmp_path).as_posix() for path in library_files(tmp_path)]
    assert found == sorted(kept)


# --- the hub ----------------------------------------------------------------------------------

VALIDATION = lines_of(
    {"text": "专利零"}, {"text": "专利一", "id": "own"}, "not json", "", {"text": 3}, {"text": "五"}
)
TRAINING = lines_of({"text": "训练"}, '["a list"]') + b"\xff\xfe\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server with both files; HF_ENDPOINT names it and the cache is empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = {WANJUAN_VALIDATION: VALIDATION, WANJUAN_TRAINING: TRAINING}
    with serve_hub({f"datasets/{WANJUAN_REPOSITORY}": files}) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield endpoint


def test_wanjuan_comes_from_the_hub_in_its_own_split(hub):
    found = collect("wanjuan")
    assert found.candidates == [
        Candidate("WanJuan_deal_validation:0", "专利零", HELD_OUT, 1),
        Candidate("WanJuan_deal_validation:1", "专利一", HELD_OUT, 2),
        Candidate("WanJuan_deal_validation:5", "五", HELD_OUT, 6),
        Candidate("WanJuan_deal:0", "训练", TRAIN, 1),
    ]
    assert found.rejected == [
        Rejected("WanJuan_deal_validation:2", 3, None, "not_json"),
        Rejected("WanJuan_deal_validation:3", 4, 0, "empty"),
        Rejected("WanJuan_deal_validation:4", 5, None, "no_text"),
        Rejected("WanJuan_deal:1", 2, None, "not_json"),
        Rejected("WanJuan_deal:2", 3, None, "not_utf8"),
    ]
    assert found.origin == {
        "revision": "main",
        "commit": COMMIT,
        "urls": [
            f"{hub}/datasets/{WANJUAN_REPOSITORY}/resolve/{COMMIT}/{name}"
            for name in (WANJUAN_VALIDATION, WANJUAN_TRAINING)
        ],
    }


def test_wanjuans_test_documents_are_the_papers_or_those_named(hub):
    papers = collect("wanjuan")
    assert papers.select == "lines"
    assert papers.listed == tuple(f"WanJuan_deal_validation:{n}" for n in WANJUAN_TEST_LINES)
    assert collect("wanjuan", test_lines=[5, 0]).listed == (
        "WanJuan_deal_validation:5",
        "WanJuan_deal_validation:0",
    )


def test_a_revision_that_is_not_there_is_one_sentence(hub, monkeypatch):
    with serve_hub({}) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(LongscaleError, match=r"WanJuan_deal_validation.json at revision 'v9'"):
            collect("wanjuan", revision="v9")


# --- the user's files -------------------------------------------------------------------------


@pytest.fixture
def texts(tmp_path):
    """Two .txt, two .jsonl and a file that is neither."""
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    (folder / "more" / "a.txt").write_text("third")
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "c.jsonl").write_bytes(
        lines_of({"text": "x\u2028y"}, {"id": 7, "text": "seven"}, {"id": "7", "text": "again"})
        + b'\n{"text": 1}\n{\n"text"\n\xff\n{"id": "\\ud800", "text": "last"}'
    )
    (folder / "notes.md").write_text("not read")
    return folder


def test_a_folder_gives_a_document_per_text_file_and_per_line(texts):
    found = collect("file", path=str(texts))
    assert [(document.name, document.text, document.line) for document in found.candidates] == [
        ("b.txt", "one\ntwo\n", None),
        ("c.jsonl:1", "x\u2028y", 1),
        ("7", "seven", 2),
        ("\\ud800", "last", 9),
        ("more/a.txt", "third", None),
    ]
    assert {document.splits for document in found.candidates} == {ANY_SPLIT}
    assert found.rejected == [
        Rejected("7", 3, 5, "repeated_id"),
        Rejected("c.jsonl:4", 4, 0, "empty"),
        Rejected("c.jsonl:5", 5, None, "no_text"),
        Rejected("c.jsonl:6", 6, None, "not_json"),
        Rejected("c.jsonl:7", 7, None, "not_json"),
        Rejected("c.jsonl:8", 8, None, "not_utf8"),
        Rejected("latin.txt", None, None, "not_utf8"),
    ]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("b.txt", ["b.txt"]),
        ("*.txt", ["b.txt"]),
        ("**/*.txt", ["b.txt", "more/a.txt"]),
        ("more", ["a.txt"]),
    ],
)
def test_a_path_may_be_a_file_a_folder_or_a_pattern(texts, monkeypatch, pattern, names):
    for path in (str(texts / pattern), pattern):
        monkeypatch.chdir(texts)
        assert [document.name for document in collect("file", path=path).candidates] == names


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        (None, "path is not given"),
        ("nothing.txt", r"nothing.txt: no .txt or .jsonl file is there"),
        ("*.csv", r"no .txt or .jsonl file is there"),
        ("*.md", r"notes.md: a corpus is read from .txt files"),
    ],
)
def test_a_path_that_gives_nothing_is_one_sentence(texts, monkeypatch, path, sentence):
    monkeypatch.chdir(texts)
    with pytest.raises(LongscaleError, match=sentence):
        collect("file", path=path)


# --- a genome ---------------------------------------------------------------------------------

LENGTHS = {"chr1": 1050, "chr2": 800, "chr3": 430, "chr4": 99}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory):
    """Four contigs, lower case in places; chr1 has N in [120, 260), chr4 is shorter than a tile."""
    path = tmp_path_factory.mktemp("genome") / "small.fa"
    rng = np.random.default_rng(3)
    text = ""
    for name, length in LENGTHS.items():
        bases = "".join(rng.choice(list("ACGTacgt"), length))
        if name == "chr1":
            bases = bases[:120] + "N" * 140 + bases[260:]
        text += f">{name}\n{bases}\n"
    path.write_text(text)
    pysam.faidx(str(path))
    return str(path)


def genome_documents(fasta, **changed):
    entry = {"document_bp": 100, "test_contigs": ["chr2"], "dev_contigs": ["chr3"]}
    return collect("genome", fasta, **(entry | changed))


def test_genome_documents_lie_side_by_side_on_the_contigs_of_their_split(fasta):
    found = genome_documents(fasta)
    with pysam.FastaFile(fasta) as reader:
        for document in found.candidates:
            contig, _, span = document.name.partition(":")
            assert document.text == reader.fetch(region=f"{contig}:{span}").upper()
    spans = [document.name for document in found.candidates if document.splits == {"dev"}]
    assert spans == ["chr3:1-100", "chr3:101-200", "chr3:201-300", "chr3:301-400"]
    counts = Counter(next(iter(document.splits)) for document in found.candidates)
    assert counts == {"test": 8, "dev": 4, "train": 8}
    assert found.select == "even"


def test_more_than_half_n_goes_to_the_ledger(fasta):
    found = genome_documents(fasta)
    assert found.rejected == [
        Rejected("chr1:101-200", None, 100, "mostly_n"),
        Rejected("chr1:201-300", None, 100, "mostly_n"),
    ]


def test_exactly_half_n_is_kept(fasta):
    found = genome_documents(fasta, document_bp=240)
    by_name = {document.name: document.text.count("N") for document in found.candidates}
    assert by_name["chr1:1-240"] == 120


def test_the_limit_draws_training_documents_all_over(fasta, monkeypatch):
    monkeypatch.setattr(corpus_sources, "TILES_AT_ONCE", 2)
    draws = []
    for seed in range(8):
        found = genome_documents(fasta, limit_characters=390, seed=seed).candidates
        drawn = [document.name for document in found if document.splits == TRAIN]
        assert len(drawn) == 3
        starts = [int(name.partition(":")[2].partition("-")[0]) for name in drawn]
        assert starts == sorted(starts)
        draws.append(tuple(drawn))
        assert sum(document.splits != TRAIN for document in found) == 12
    assert len(set(draws)) > 1
    assert len({name for drawn in draws for name in drawn}) > 6


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"document_bp": None}, "document_bp is not given"),
        ({"test_contigs": None}, "test_contigs is empty: it must name the contigs"),
        ({"dev_contigs": []}, "dev_contigs is empty: it must name the contigs"),
        ({"test_contigs": ["2"]}, "test_contigs names '2', which the genome does not have"),
        ({"dev_contigs": ["chr2"]}, "dev_contigs names 'chr2', which is one of test_contigs"),
    ],
)
def test_a_bad_entry_is_one_sentence(fasta, changed, sentence):
    with pytest.raises(LongscaleError, match=sentence):
        genome_documents(fasta, **changed)


def test_without_a_dev_set_no_dev_contigs_are_needed(fasta):
    found = genome_documents(fasta, dev_contigs=None, dev_documents=0)
    assert not any("dev" in document.splits for document in found.candidates)


def test_a_whole_genome_must_be_limited(fasta, monkeypatch):
    monkeypatch.setattr(corpus_sources, "MAX_GENOME_BP", 900)
    with pytest.raises(LongscaleError, match=r"limit_characters is not given: .* hold 1,000 bp"):
        genome_documents(fasta)
    assert genome_documents(fasta, limit_characters=500).candidates


def test_without_a_genome_there_are_no_genome_documents():
    with pytest.raises(LongscaleError, match="no FASTA file was given"):
        genome_documents(None)
