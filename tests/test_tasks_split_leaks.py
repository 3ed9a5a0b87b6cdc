"""What splits share, against double loops over rows and sets of strings."""

import math

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.tasks import split_leaks
from longscale.tasks.split_leaks import (
    LEAK_COLUMNS,
    LEAK_FLAGS,
    LEAKS,
    PAIRS,
    digest_windows,
    leak_sentences,
    measure_leaks,
    split_sides,
)
from longscale.tasks.splits import assign_splits
from longscale.variants.windows import gather_windows

RNG = np.random.default_rng(3)
LENGTHS = (16, 25, 40)


def other_strand(text):
    return text[::-1].translate(str.maketrans("ACGT", "TGCA"))


def core(text):
    """As many bases on the left of the one at len // 2 as on its right."""
    side = min(len(text) // 2, len(text) - 1 - len(text) // 2)
    return text[len(text) // 2 - side : len(text) // 2 + side + 1]


UNIQUE = "".join(RNG.choice(list("ACGT"), 300))
CONTIGS = {
    "a": UNIQUE,
    "copy": "ACGTT" + UNIQUE[50:150] + "GGATC",
    "turned": "CAT" + other_strand(UNIQUE[100:200]) + "GA",
    "repeat": "ACG" * 60,
    "unknown": "N" * 90,
}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in CONTIGS.items()))
    pysam.faidx(str(path))
    return Genome(path)


def slow_windows(row, window_bp):
    """Both windows, in a field of N, and the stretch of the genome that they are made of."""
    contig, pos, ref, alt = row
    field = "N" * 100 + CONTIGS[contig] + "N" * 100
    start, place = 100 + pos - 1 - window_bp // 2, 100 + pos - 1
    edited = field[:place] + alt + field[place + len(ref) :]
    read = max(window_bp, len(ref) + window_bp - len(alt))
    stretch = (contig, start, start + read if len(ref) > len(alt) else start + window_bp)
    return field[start : start + window_bp], edited[start : start + window_bp], stretch


def overlap(one, other):
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def slow_counts(other, held_out, window_bp):
    """The counts of one row of the table, row by row."""
    theirs = [slow_windows(row, window_bp) for row in other]
    texts = {text for ref, alt, _ in theirs for text in (ref, alt)}
    cores = {core(text) for text in texts}
    counts = dict.fromkeys(LEAK_COLUMNS[3:13], 0) | {
        "rows": len(other),
        "held_out_rows": len(held_out),
    }
    for row in held_out:
        ref, alt, stretch = slow_windows(row, window_bp)
        same = [text in texts for text in (ref, alt)]
        turned = [other_strand(core(text)) in cores for text in (ref, alt)]
        counts["shared_variants"] += row in other
        counts["overlapping_windows"] += any(overlap(stretch, their[2]) for their in theirs)
        counts["identical_ref"] += same[0]
        counts["identical_alt"] += same[1]
        counts["reverse_ref"] += turned[0]
        counts["reverse_alt"] += turned[1]
        counts["identical_sequences"] += any(same)
        counts["reverse_complements"] += any(turned)
    return counts


@st.composite
def rows_of_a_genome(draw):
    contig = draw(st.sampled_from(list(CONTIGS)))
    pos = draw(st.integers(1, len(CONTIGS[contig]) - 4))
    ref = CONTIGS[contig][pos - 1 : pos - 1 + draw(st.sampled_from([1, 1, 4]))]
    return contig, pos, ref, draw(st.sampled_from(["A", "C", "G", "ACGTT"]))


sides_of_rows = st.fixed_dictionaries(
    {side: st.lists(rows_of_a_genome(), max_size=8) for side in ("train", "dev", "test")}
)


def frames(sides):
    return {
        side: pd.DataFrame(rows, columns=["contig", "pos", "ref", "alt"]).astype({"pos": int})
        for side, rows in sides.items()
    }


def check(genome, protocols, lengths=LENGTHS):
    table = measure_leaks(
        genome, {name: frames(sides) for name, sides in protocols.items()}, lengths
    )
    assert list(table.columns) == LEAK_COLUMNS
    found = table.to_dict("records")
    assert [(row["protocol"], row["pair"], row["window_bp"]) for row in found] == [
        (protocol, f"{a}-{b}", bp) for protocol in sorted(protocols) for a, b in PAIRS
        for bp in lengths
    ]  # fmt: skip
    for row in found:
        other, held_out = (protocols[row["protocol"]][side] for side in row["pair"].split("-"))
        expected = slow_counts(other, held_out, row["window_bp"])
        assert {name: row[name] for name in expected} == expected
        assert row["flags"].split(";") == ([leak for leak in LEAKS if expected[leak]] or [""])
        for leak in LEAKS:
            share = row[f"{leak}_share"]
            if held_out:
                assert share == pytest.approx(expected[leak] / len(held_out))
            else:
                assert math.isnan(share)
    return table


@settings(max_examples=60)
@given(paired=sides_of_rows, released=sides_of_rows)
def test_counts_against_double_loops_and_sets_of_strings(genome, paired, released):
    # Indels at one end of a contig and rows of both protocols: one table, each number by itself.
    check(genome, {"released": released, "paired": paired})


def test_copies_and_turned_copies_are_found_though_they_lie_elsewhere(genome):
    """UNIQUE[50:150] stands again in `copy` from 5 on, UNIQUE[100:200] turned in `turned`."""
    snv = ("a", 121, UNIQUE[120], "A" if UNIQUE[120] != "A" else "C")
    copied = ("copy", 121 - 50 + 5, snv[2], snv[3])
    turned = ("turned", 3 + 200 - 121 + 1, other_strand(snv[2]), other_strand(snv[3]))
    table = check(
        genome, {"paired": {"train": [snv], "dev": [copied, copied], "test": [turned]}}, (24,)
    ).set_index("pair")
    dev, test = table.loc["train-dev"], table.loc["train-test"]
    assert (dev["overlapping_windows"], dev["shared_variants"]) == (0, 0)
    assert (dev["identical_ref"], dev["identical_alt"], dev["identical_sequences_share"]) == (
        2, 2, 1,
    )  # fmt: skip
    assert dev["flags"] == "identical_sequences"
    assert (test["identical_ref"], test["reverse_ref"], test["reverse_alt"]) == (0, 1, 1)
    assert test["flags"] == "reverse_complements"


def test_an_alternative_window_can_read_like_a_reference_one(genome):
    """In a tandem repeat, a deletion of a whole unit leaves the text as it was."""
    deletion = ("repeat", 60, "GACG", "G")
    elsewhere = ("repeat", 120, "G", "T")
    table = check(genome, {"paired": {"train": [elsewhere], "dev": [deletion], "test": []}}, (24,))
    row = table.set_index("pair").loc["train-dev"]
    assert (row["identical_ref"], row["identical_alt"]) == (1, 1)


def test_batches_change_nothing(genome, monkeypatch):
    rng = np.random.default_rng(1)
    rows = [("a", int(pos), "A", "C") for pos in rng.integers(20, 280, 30)]
    table = frames({"train": rows})["train"]
    whole = digest_windows(genome, table, 24)
    monkeypatch.setattr(split_leaks, "_BATCH_BP", 7 * 24)
    batched = digest_windows(genome, table, 24)
    for name in ("whole", "core", "turned"):
        assert getattr(whole, name).tolist() == getattr(batched, name).tolist()


@pytest.mark.parametrize("window_bp", [18, 19])
def test_digests_tell_texts_apart_as_strings_do(genome, window_bp):
    rows = [(contig, pos, "A", "C") for contig in CONTIGS for pos in range(1, 85, 3)]
    table = frames({"train": rows})["train"]
    digests = digest_windows(genome, table, window_bp)
    texts = [
        [row.tobytes().decode() for row in gather_windows(genome, table, window_bp, allele)]
        for allele in ("ref", "alt")
    ]
    reads = {"whole": str, "core": core, "turned": lambda text: other_strand(core(text))}
    for name, read in reads.items():
        found, seen = getattr(digests, name), {}
        assert found.shape == (len(rows), 2)
        for column, of_allele in enumerate(texts):
            for digest, text in zip(found[:, column], of_allele, strict=True):
                assert seen.setdefault(read(text), digest) == digest
        assert len(set(found.ravel())) == len(seen)


def test_paired_splits_leave_nothing_to_report_and_random_ones_do(genome):
    """As the pipeline splits: one chromosome of unique sequence, both protocols."""
    rng = np.random.default_rng(5)
    pos = np.sort(rng.choice(np.arange(30, 270), 120, replace=False))
    ref = [UNIQUE[p - 1] for p in pos]
    table = pd.DataFrame({"contig": "a", "pos": pos, "ref": ref, "alt": "ACG", "label": pos % 2})
    table = table.assign(split="", line=np.arange(120))
    protocols = {}
    for protocol in ("paired", "released"):
        splits, _ = assign_splits(table, protocol=protocol, max_window_bp=24)
        protocols[protocol] = split_sides(splits, splits)
    found = measure_leaks(genome, protocols, [16, 24]).set_index(["protocol", "pair"])
    assert set(found.loc["paired", "flags"]) == {""}
    # Windows of neighbours: also train and test, where no gap is left between the blocks.
    assert (found.loc["released", "overlapping_windows"] > 0).all()
    assert (found["held_out_rows"] > 0).all()


def test_the_sides_of_a_task_that_anothers_checkpoints_score():
    own = pd.DataFrame({"split": ["test", "gap", "test"], "line": [1, 2, 3]})
    trained = pd.DataFrame({"split": ["train", "dev", "gap", "test", "train"], "line": range(5)})
    sides = split_sides(own, trained)
    assert {side: rows["line"].tolist() for side, rows in sides.items()} == {
        "train": [0, 4], "dev": [1], "test": [1, 3],
    }  # fmt: skip


def test_every_leak_is_one_sentence_and_shared_variants_are_told_once(genome):
    snv = ("a", 120, UNIQUE[119], "ACGTT")
    sides = {"train": [snv], "dev": [snv, ("repeat", 60, "G", "T")], "test": []}
    table = measure_leaks(genome, {"released": frames(sides)}, [16, 24]).assign(task="t")
    sentences = leak_sentences(table)
    assert sentences[0] == (
        "warning: t, released: 1 of 2 dev rows (50.00%) are of a variant that train has too"
    )
    assert sentences[1:] == [
        f"warning: t, released, {bp} bp: 1 of 2 dev rows (50.00%) {what} one of train"
        for bp in (16, 24)
        for what in ("have a window that overlaps", "have a window that reads like")
    ]
    assert LEAK_FLAGS.keys() == LEAKS.keys()


def test_an_unknown_contig_is_one_sentence(genome):
    sides = frames({"train": [("chr9", 50, "A", "C")], "dev": [], "test": []})
    with pytest.raises(LongscaleError, match="has no contig 'chr9'"):
        measure_leaks(genome, {"paired": sides}, [16])
