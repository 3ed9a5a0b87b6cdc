"""A corpus from end to end: what is in the folder, what is not, and that nothing is lost."""

import hashlib
import json
import platform
from pydoc_data.topics import topics

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pysam
import pytest
from hub_server import serve_hub
from hypothesis import given
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.tasks.corpora import (
    REASONS,
    SHARES_TEXT,
    Document,
    documents_digest,
    draw_up_to,
    prepare_corpus,
    read_documents,
    read_test_documents,
    sift_documents,
)
from longscale.tasks.corpus_sources import (
    ANY_SPLIT,
    HELD_OUT,
    TRAIN,
    WANJUAN_REPOSITORY,
    WANJUAN_TRAINING,
    WANJUAN_VALIDATION,
    Candidate,
    Collected,
)
from longscale.tasks.leaks import measure_leak

FILES = ["corpus.json", "documents.parquet", "rejected.tsv", "test_documents.tsv"]


def prepare(folder, train_length=64, longest=2048, fasta=None, **entry):
    prepare_corpus(
        {"source": "cpython-docs", **entry},
        folder,
        train_length=train_length,
        longest=longest,
        fasta=fasta,
        report=lambda text: None,
    )
    return json.loads((folder / "corpus.json").read_text("utf-8"))


def read_rejected(folder):
    return pd.read_csv(folder / "rejected.tsv", sep="\t", keep_default_na=False, dtype=str)


def write_lines(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


# --- the interpreter's documentation ------------------------------------------------------------


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    """The folder and corpus.json of the default corpus; long topics only are trained on."""
    folder = tmp_path_factory.mktemp("corpora") / "docs"
    return folder, prepare(folder, train_length=600, test_documents=6)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """The same corpus with its training documents whole."""
    folder = tmp_path_factory.mktemp("corpora") / "uncut"
    return folder, prepare(folder, train_length=600, test_documents=6, remove_shared=False)


def test_every_topic_is_a_document_or_in_the_ledger(uncut):
    folder, facts = uncut
    found = {d.name: d.text for split in facts["splits"] for d in read_documents(folder, split)}
    assert found.items() <= topics.items()
    rejected = read_rejected(folder)
    assert set(rejected["document"]).isdisjoint(found)
    assert set(rejected["document"]) | set(found) == set(topics)
    for row in rejected.itertuples():
        text = topics[row.document]
        assert int(row.characters) == len(text)
        assert row.line == ""
        assert (row.reason == "too_short") == (len(text) < 600)
        assert row.reason == "too_short" or text in found.values()
    assert facts["rejected"] == rejected["reason"].value_counts().to_dict()


def test_splits_are_as_large_and_as_long_as_asked_for(docs):
    folder, facts = docs
    for split, count in (("test", 6), ("dev", 4)):
        documents = read_documents(folder, split)
        assert len(documents) == count
        assert min(len(document.text) for document in documents) >= 2048
    assert min(len(document.text) for document in read_documents(folder, "train")) >= 600
    for split, counts in facts["splits"].items():
        documents = read_documents(folder, split)
        assert counts["documents"] == len(documents)
        assert counts["characters"] == sum(len(document.text) for document in documents)
    assert facts["unused"] == {"documents": 0, "characters": 0}


def test_held_out_text_is_cut_out_of_the_training_documents_only(docs, uncut):
    folder, facts = docs
    held_out = []
    for split in ("test", "dev"):
        assert read_documents(folder, split) == read_documents(uncut[0], split)
        held_out += [document.text for document in read_documents(folder, split)]
    train = {document.name: document.text for document in read_documents(folder, "train")}
    assert all(text in topics[name.partition("#")[0]] for name, text in train.items())
    assert measure_leak(held_out, list(train.values()), step=1).found == 0
    assert facts["sha256"] != uncut[1]["sha256"]
    assert (facts["remove_shared"], uncut[1]["remove_shared"]) == (True, False)


def test_every_character_is_trained_on_or_in_the_ledger(docs, uncut):
    folder, facts = docs
    rejected = read_rejected(folder)
    lost = rejected[rejected["reason"] == SHARES_TEXT].set_index("document")["characters"]
    kept = {}
    for document in read_documents(folder, "train"):
        name = document.name.partition("#")[0]
        assert (name != document.name) == (name in lost.index)
        kept[name] = kept.get(name, 0) + len(document.text)
    for document in read_documents(uncut[0], "train"):
        assert kept.get(document.name, 0) + int(lost.get(document.name, 0)) == len(document.text)
    leak = facts["leak"]
    assert lost.astype(int).sum() == leak["removed_characters"] + leak["too_short_characters"]
    assert min(leak["removed_characters"], leak["too_short_characters"]) > 0
    assert facts["rejected"] == rejected["reason"].value_counts().to_dict()


def test_the_table_is_sorted_and_whole(docs):
    folder, _ = docs
    assert sorted(path.name for path in folder.iterdir()) == FILES
    table = pd.read_parquet(folder / "documents.parquet")
    assert list(table.columns) == ["document", "split", "text", "characters"]
    assert table["characters"].dtype == np.int64
    assert table["characters"].tolist() == table["text"].str.len().tolist()
    assert table["split"].drop_duplicates().tolist() == ["train", "dev", "test"]
    for _, rows in table.groupby("split"):
        assert rows["document"].is_monotonic_increasing
    assert read_documents(folder, "dev")[0] == Document(
        *table.loc[table["split"] == "dev", ["document", "text"]].iloc[0]
    )


def test_corpus_json_tells_where_it_comes_from_and_what_leaks(docs, uncut):
    folder, facts = docs
    assert facts["python"] == platform.python_version()
    assert (facts["source"], facts["seed"], facts["select"]) == ("cpython-docs", 1, "random")
    whole = {s: [d.text for d in read_documents(uncut[0], s)] for s in facts["splits"]}
    left = [document.text for document in read_documents(folder, "train")]
    leak = measure_leak(whole["test"], whole["train"])
    expected = {
        "window": 64,
        "step": 16,
        "windows": leak.windows,
        "found": leak.found,
        "share": leak.share,
        "share_after": leak.share,
        "dev_share": measure_leak(whole["test"], whole["dev"]).share,
        "removed_characters": 0,
        "too_short_characters": 0,
    }
    assert uncut[1]["leak"] == expected
    assert 0 < leak.share < 1
    assert 0 < expected["dev_share"] < 1
    after = {"share_after": measure_leak(whole["test"], left).share}
    lost = {key: facts["leak"][key] for key in expected if key.endswith("_characters")}
    assert facts["leak"] == expected | after | lost
    assert after["share_after"] == 0


def test_the_checksum_is_of_splits_names_and_texts(docs):
    folder, facts = docs
    table = pd.read_parquet(folder / "documents.parquet")
    total = hashlib.sha256()
    for row in table.itertuples():
        for value in (row.split, row.document, row.text):
            total.update(len(value.encode()).to_bytes(8, "big"))
            total.update(value.encode())
    assert facts["sha256"] == total.hexdigest() == documents_digest(table)
    moved = table.assign(document=table["document"].str[1:], text="x" + table["text"])
    assert documents_digest(moved) != facts["sha256"]


def test_eligible_documents_are_listed_with_what_became_of_them(uncut):
    folder, _ = uncut
    table = read_test_documents(folder)
    assert list(table.columns) == ["document", "cluster", "x", "y", "chosen"]
    kept = pd.read_parquet(folder / "documents.parquet")
    assert set(table["document"]) == set(kept.loc[kept["characters"] >= 2048, "document"])
    assert table[["cluster", "x", "y"]].isna().all(axis=None)
    for split in ("test", "dev"):
        names = [document.name for document in read_documents(folder, split)]
        assert table.loc[table["chosen"] == split, "document"].tolist() == names


def test_the_same_entry_gives_the_same_files_and_another_seed_others(docs, tmp_path):
    folder, facts = docs
    again = prepare(tmp_path / "again", train_length=600, test_documents=6)
    assert again == facts
    for name in FILES[1:]:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    other = prepare(tmp_path / "other", train_length=600, test_documents=6, seed=2)
    assert other["sha256"] != facts["sha256"]


def test_spectral_selection_writes_its_clusters(tmp_path):
    prepare(tmp_path / "c", select="spectral", clusters=3, test_documents=6)
    table = read_test_documents(tmp_path / "c")
    assert table["cluster"].unique().size == 3
    assert table[["cluster", "x", "y"]].notna().all(axis=None)
    sizes = table["cluster"].value_counts()
    taken = table.loc[table["chosen"] == "test", "cluster"].value_counts()
    for cluster, size in sizes.items():
        assert abs(taken.get(cluster, 0) - 6 * size / len(table)) < 1


def test_the_limit_leaves_out_training_documents_only(uncut, tmp_path):
    folder, facts = uncut
    entry = {"test_documents": 6, "limit_characters": 50_000, "remove_shared": False}
    limited = prepare(tmp_path / "c", train_length=600, **entry)
    for split in ("test", "dev"):
        assert read_documents(tmp_path / "c", split) == read_documents(folder, split)
    kept = limited["splits"]["train"]["characters"]
    assert 40_000 < kept <= 50_000
    for count in ("documents", "characters"):
        assert (
            limited["unused"][count] + limited["splits"]["train"][count]
            == facts["splits"]["train"][count]
        )
    names = [document.name for document in read_documents(tmp_path / "c", "train")]
    whole = [document.name for document in read_documents(folder, "train")]
    assert [name for name in whole if name in names] == names


def test_the_limit_is_on_whole_documents(tmp_path):
    entry = {"train_length": 600, "test_documents": 6, "limit_characters": 50_000}
    whole = prepare(tmp_path / "whole", **entry, remove_shared=False)
    cut = prepare(tmp_path / "cut", **entry)
    lost = cut["leak"]["removed_characters"] + cut["leak"]["too_short_characters"]
    assert (
        0
        < lost
        == sum(
            facts["splits"]["train"]["characters"] * sign for facts, sign in ((whole, 1), (cut, -1))
        )
    )
    assert cut["unused"] == whole["unused"]


@given(st.lists(st.integers(1, 100), max_size=30), st.integers(1, 1000), st.integers(0, 9))
def test_no_left_out_document_would_have_fitted(sizes, limit, seed):
    drawn = draw_up_to(np.array(sizes, np.int64), limit, seed)
    kept = sum(size for size, keep in zip(sizes, drawn, strict=True) if keep)
    assert kept <= limit
    assert all(keep or kept + size > limit for size, keep in zip(sizes, drawn, strict=True))


# --- sifting ------------------------------------------------------------------------------------


def test_each_reason_and_the_order_of_duplicates():
    candidates = [
        Candidate("copy", "held out text", TRAIN, 1),
        Candidate("first", "twice there", ANY_SPLIT, 2),
        Candidate("second", "twice there", ANY_SPLIT, 3),
        Candidate("blank", " \n\t ", ANY_SPLIT, 4),
        Candidate("short", "abc", ANY_SPLIT, 5),
        Candidate("half", "half a pair \ud83d", ANY_SPLIT, 6),
        Candidate("original", "held out text", HELD_OUT, 7),
    ]
    kept, rejected = sift_documents(Collected(candidates), train_length=4)
    assert [candidate.name for candidate in kept] == ["first", "original"]
    assert [(row.document, row.line, row.characters, row.reason) for row in rejected] == [
        ("copy", 1, 13, "duplicate"),
        ("second", 3, 11, "duplicate"),
        ("blank", 4, 4, "empty"),
        ("short", 5, 3, "too_short"),
        ("half", 6, 13, "not_unicode"),
    ]
    assert {row.reason for row in rejected} <= set(REASONS)


# --- the user's files ---------------------------------------------------------------------------


@pytest.fixture
def letters(tmp_path):
    """A .jsonl file of thirty documents of 40 to 330 characters."""
    rng = np.random.default_rng(5)
    path = tmp_path / "letters.jsonl"
    write_lines(path, ["".join(rng.choice(list("abc d"), 40 + 10 * n)) for n in range(30)])
    return path


def test_a_file_of_documents(letters, tmp_path):
    facts = prepare(
        tmp_path / "c",
        train_length=100,
        longest=200,
        source="file",
        path=str(letters),
        test_documents=5,
        dev_documents=0,
    )
    assert facts["rejected"] == {"too_short": 6}
    assert facts["splits"]["train"]["documents"] == 19
    assert read_documents(tmp_path / "c", "dev") == []
    assert read_rejected(tmp_path / "c")["document"].tolist() == [
        f"letters.jsonl:{line}" for line in range(1, 7)
    ]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"test_documents": 20},
            r"'file': 14 of 24 documents have at least 200 characters, but 24",
        ),
        ({"longest": 9999}, r"0 of 24 documents have at least 9,999 characters"),
        ({"test_documents": 0}, r"test_documents is 0: at least one"),
        (
            {"limit_characters": 9, "test_documents": 5},
            r"left to train on within limit_characters 9",
        ),
        ({"select": "best"}, r"select is 'best': it must be one of random, even, spectral, lines"),
        ({"select": "lines"}, r"select: 'lines' is for source 'wanjuan'"),
        ({"source": "web"}, r"source is 'web': it must be one of cpython-docs, cpython-stdlib"),
    ],
)
def test_a_bad_entry_is_one_sentence_and_leaves_the_folder_alone(
    letters, tmp_path, changed, sentence
):
    arguments = {"train_length": 100, "longest": 200, "source": "file", "path": str(letters)}
    with pytest.raises(LongscaleError, match=sentence) as told:
        prepare(tmp_path / "c", **(arguments | changed))
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["letters.jsonl"]


def test_one_document_is_too_few(tmp_path):
    (tmp_path / "book.txt").write_text("Call me Ishmael. " * 500)
    entry = {"source": "file", "path": str(tmp_path / "book.txt"), "dev_documents": 0}
    with pytest.raises(LongscaleError, match="1 of 1 documents have at least 2,048 characters"):
        prepare(tmp_path / "c", **entry)
    with pytest.raises(LongscaleError, match="no document of at least 64 characters is left to"):
        prepare(tmp_path / "c", test_documents=1, **entry)
    assert not (tmp_path / "c").exists()


def test_training_text_that_is_all_held_out_is_one_sentence(tmp_path):
    """The one training document is the middle of the test document."""
    text = "".join(np.random.default_rng(8).choice(list("abcdef"), 400))
    entry = {"source": "file", "path": str(tmp_path / "a.jsonl"), "longest": 300}
    write_lines(tmp_path / "a.jsonl", [text, text[20:220]])
    with pytest.raises(
        LongscaleError, match="no stretch of at least 64 characters is left"
    ) as told:
        prepare(tmp_path / "c", **entry, test_documents=1, dev_documents=0)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "c").exists()
    facts = prepare(tmp_path / "c", **entry, test_documents=1, dev_documents=0, remove_shared=False)
    assert facts["splits"]["train"] == {"documents": 1, "characters": 200}


def test_the_ledger_names_the_line_of_a_document_that_is_cut(tmp_path):
    held_out = "".join(np.random.default_rng(9).choice(list("abcdef"), 400))
    write_lines(tmp_path / "a.jsonl", [held_out, "x" * 200, "y" * 90 + held_out[50:150] + "z" * 40])
    entry = {"source": "file", "path": str(tmp_path / "a.jsonl"), "longest": 300}
    prepare(tmp_path / "c", **entry, test_documents=1, dev_documents=0)
    assert read_documents(tmp_path / "c", "train") == [
        Document("a.jsonl:2", "x" * 200),
        Document("a.jsonl:3#1", "y" * 90),
    ]
    assert read_rejected(tmp_path / "c").to_dict("records") == [
        {"document": "a.jsonl:3", "line": "3", "characters": "140", "reason": SHARES_TEXT}
    ]


def test_a_failure_keeps_what_was_there(letters, tmp_path):
    arguments = {"longest": 200, "source": "file", "path": str(letters), "test_documents": 5}
    facts = prepare(tmp_path / "c", **arguments)
    with pytest.raises(LongscaleError):
        prepare(tmp_path / "c", **(arguments | {"test_documents": 99}))
    assert json.loads((tmp_path / "c" / "corpus.json").read_text()) == facts


def test_reading_what_is_no_corpus_is_one_sentence(docs, tmp_path):
    folder, _ = docs
    with pytest.raises(LongscaleError, match="split is 'valid': it must be one of train, dev"):
        read_documents(folder, "valid")
    with pytest.raises(LongscaleError, match=r"documents.parquet: cannot be read as the documents"):
        read_documents(tmp_path, "train")
    (tmp_path / "documents.parquet").write_text("no parquet")
    with pytest.raises(LongscaleError, match=r"documents.parquet: cannot be read as the documents"):
        read_documents(tmp_path, "train")
    with pytest.raises(LongscaleError, match=r"test_documents.tsv: cannot be read"):
        read_test_documents(tmp_path)


def test_names_are_kept_as_they_are(tmp_path):
    names = ["NA", "tab\there", 'quo"te', "line\nend", "", "007"]
    rows = [json.dumps({"id": name, "text": f"{n} " * 60}) for n, name in enumerate(names)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    prepare(
        tmp_path / "c",
        longest=100,
        source="file",
        path=str(tmp_path / "a.jsonl"),
        test_documents=3,
        dev_documents=1,
    )
    assert read_test_documents(tmp_path / "c")["document"].tolist() == names


# --- WanJuan ------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Twenty documents in the validation file, ten in the training file, two of them copies."""
    rng = np.random.default_rng(6)
    held_out = ["".join(rng.choice(list("专利信息熵不变性"), 100 + n)) for n in range(20)]
    training = ["".join(rng.choice(list("专利信息熵不变性"), 90)) for _ in range(8)] + held_out[3:5]
    for name, texts in ((WANJUAN_VALIDATION, held_out), (WANJUAN_TRAINING, training)):
        write_lines(tmp_path / "served" / name, texts)
    files = {path.name: path.read_bytes() for path in (tmp_path / "served").iterdir()}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve_hub({f"datasets/{WANJUAN_REPOSITORY}": files}) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield held_out


def test_wanjuans_lines_count_from_zero(hub, tmp_path):
    facts = prepare(
        tmp_path / "c", longest=102, source="wanjuan", test_lines=[3, 17, 5], dev_documents=2
    )
    test = read_documents(tmp_path / "c", "test")
    assert [document.text for document in test] == [hub[3], hub[5], hub[17]]
    assert test[0].name == "WanJuan_deal_validation:3"
    held_out = {
        document.text
        for split in ("test", "dev")
        for document in read_documents(tmp_path / "c", split)
    }
    train = {document.text for document in read_documents(tmp_path / "c", "train")}
    assert len(held_out) == 5
    assert held_out <= set(hub)
    assert train.isdisjoint(hub)
    assert facts["select"] == "lines"
    assert facts["splits"]["train"]["documents"] == 8
    assert facts["unused"]["documents"] == 15
    assert facts["rejected"] == {"duplicate": 2}
    assert facts["revision"] == "main"
    assert read_rejected(tmp_path / "c")["line"].tolist() == ["9", "10"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"test_lines": [2], "longest": 103}, "validation:2 .*: it has 102 characters, and 103"),
        ({"test_lines": [20]}, "WanJuan_deal_validation:20 .*: the file has no such line"),
        ({"test_lines": [0], "train_length": 101}, r"it is not used \(too_short\)"),
        ({}, "test_lines: WanJuan_deal_validation:492 cannot be a test document"),
    ],
)
def test_a_line_that_cannot_be_tested_on_is_one_sentence(hub, tmp_path, changed, sentence):
    with pytest.raises(LongscaleError, match=sentence):
        prepare(tmp_path / "c", **({"longest": 100, "source": "wanjuan"} | changed))


def test_wanjuan_with_another_selection_holds_out_validation_documents_only(hub, tmp_path):
    prepare(tmp_path / "c", longest=100, source="wanjuan", select="random", test_documents=5)
    names = [document.name for document in read_documents(tmp_path / "c", "test")]
    assert len(names) == 5
    assert all(name.startswith("WanJuan_deal_validation:") for name in names)


# --- a genome -----------------------------------------------------------------------------------


def test_a_genome_is_split_by_contig_with_tests_spread_evenly(tmp_path):
    rng = np.random.default_rng(7)
    path = tmp_path / "g.fa"
    path.write_text(
        "".join(f">chr{n}\n{''.join(rng.choice(list('ACGT'), 2000))}\n" for n in range(1, 5))
    )
    pysam.faidx(str(path))
    facts = prepare(
        tmp_path / "c",
        longest=100,
        fasta=path,
        source="genome",
        document_bp=100,
        test_contigs=["chr2", "chr3"],
        dev_contigs=["chr4"],
        test_documents=4,
        dev_documents=2,
    )
    test = [document.name for document in read_documents(tmp_path / "c", "test")]
    assert test == ["chr2:501-600", "chr2:1501-1600", "chr3:501-600", "chr3:1501-1600"]
    assert [document.name for document in read_documents(tmp_path / "c", "dev")] == [
        "chr4:501-600",
        "chr4:1501-1600",
    ]
    train = read_documents(tmp_path / "c", "train")
    assert {document.name.partition(":")[0] for document in train} == {"chr1"}
    assert len(train) == 20
    assert (facts["select"], facts["fasta"]) == ("even", "g.fa")
    assert facts["unused"]["documents"] == 54


def test_repeats_of_a_genome_stay_unless_asked_for(tmp_path):
    rng = np.random.default_rng(10)
    repeat, *parts = ["".join(rng.choice(list("ACGT"), size)) for size in (300, 700, 700)]
    path = tmp_path / "g.fa"
    path.write_text(f">chr1\n{parts[0]}{repeat}\n>chr2\n{repeat}{parts[1]}\n")
    pysam.faidx(str(path))
    entry = {
        "source": "genome",
        "document_bp": 1000,
        "test_contigs": ["chr2"],
        "test_documents": 1,
        "dev_documents": 0,
    }
    facts = prepare(tmp_path / "kept", longest=1000, fasta=path, **entry)
    assert facts["splits"]["train"]["characters"] == 1000
    assert facts["leak"]["share_after"] == facts["leak"]["share"] == 15 / 59
    assert facts["remove_shared"] is False
    facts = prepare(tmp_path / "cut", longest=1000, fasta=path, remove_shared=True, **entry)
    assert 690 <= facts["splits"]["train"]["characters"] <= 700
    assert (facts["leak"]["share"], facts["leak"]["share_after"]) == (15 / 59, 0)
