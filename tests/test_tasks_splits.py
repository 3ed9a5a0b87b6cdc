"""No window is shared between train, dev and test, and the result depends on the variants alone."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from longscale.errors import LongscaleError
from longscale.tasks.splits import (
    PROTOCOLS,
    WindowSpans,
    assign_splits,
    leave_out_overlaps,
    list_left_out,
)

WINDOW_BP = 1000


def table(contigs, per_contig=200, spacing=60, seed=0):
    """SNVs and a few deletions along each contig, about a quarter of them with label 1."""
    generator = np.random.default_rng(seed)
    frames = []
    for contig in contigs:
        pos = np.sort(generator.integers(1, per_contig * spacing, per_contig))
        refs = generator.choice(["A", "ACCTG"], per_contig, p=[0.9, 0.1])
        frames.append(pd.DataFrame({"contig": contig, "pos": pos, "ref": refs, "alt": "A"}))
    variants = pd.concat(frames, ignore_index=True)
    variants["alt"] = np.where(variants["ref"] == "A", "C", "A")
    variants["label"] = (generator.random(len(variants)) < 0.25).astype(np.int8)
    return variants.assign(split="", tissue="", line=np.arange(2, len(variants) + 2))


def stretches(variants, window_bp=WINDOW_BP):
    """What both windows of each variant are made of, by the definition, row by row."""
    result = []
    for row in variants.itertuples():
        start = row.pos - 1 - window_bp // 2
        deleted = max(0, len(row.ref) - len(row.alt))
        result.append((row.contig, row.split, start, start + window_bp + deleted))
    return result


def check_no_shared_window(variants, window_bp=WINDOW_BP):
    rows = [row for row in stretches(variants, window_bp) if row[1] != "gap"]
    for number, (contig, split, start, end) in enumerate(rows):
        for other_contig, other_split, other_start, other_end in rows[:number]:
            if contig == other_contig and split != other_split:
                assert end <= other_start or other_end <= start


def check_both_classes(variants, splits=("train", "dev")):
    for split in splits:
        assert set(variants.loc[variants["split"] == split, "label"]) == {0, 1}


def split_of(variants):
    return dict(zip(variants["line"], variants["split"], strict=True))


SITUATIONS = {
    "one chromosome": (["chrM"], {}),
    "two chromosomes": (["chr1", "chr2"], {}),
    "two chromosomes, one is the test": (["chr1", "chr2"], {"test_chromosomes": ["chr2"]}),
    "three for training": (list("abcd"), {"test_chromosomes": ["b"]}),
    "many": ([f"chr{n}" for n in range(1, 13)], {"test_chromosomes": ["chr8", "chr9"]}),
    "named dev": (list("abcd"), {"test_chromosomes": ["b"], "dev_chromosomes": ["d"]}),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_paired_splits_share_no_window(situation):
    contigs, options = SITUATIONS[situation]
    variants = table(contigs, per_contig=150)
    options = {"protocol": "paired", "max_window_bp": WINDOW_BP, **options}
    result, summary = assign_splits(variants, **options)
    check_no_shared_window(result)
    check_both_classes(result, ("train", "dev", "test"))
    pd.testing.assert_frame_equal(result.drop(columns="split"), variants.drop(columns="split"))
    counted = {split: sum(labels.values()) for split, labels in summary["counts"].items()}
    assert counted == result["split"].value_counts().to_dict()
    assert json.loads(json.dumps(summary)) == summary
    shuffled, same = assign_splits(variants.sample(frac=1, random_state=3), **options)
    assert split_of(shuffled) == split_of(result)
    assert same == summary


def test_whole_chromosomes_are_held_out_where_three_or_more_train():
    variants = table([f"chr{n}" for n in range(1, 13)], per_contig=80)
    chosen = set()
    for seed in range(5):
        result, summary = assign_splits(
            variants,
            protocol="paired",
            max_window_bp=WINDOW_BP,
            test_chromosomes=["chr9", "chr10"],
            dev_fraction=0.2,
            seed=seed,
        )
        assert (result.groupby("contig")["split"].nunique() == 1).all()
        assert set(result.loc[result["split"] == "test", "contig"]) == {"chr9", "chr10"}
        share = (result["split"] == "dev").sum() / result["split"].isin(["dev", "train"]).sum()
        assert share == pytest.approx(0.2)
        assert sorted(set(result.loc[result["split"] == "dev", "contig"])) == sorted(
            summary["dev_chromosomes"]
        )
        assert summary["dev_from"] == summary["test_from"] == "chromosomes"
        chosen.add(tuple(summary["dev_chromosomes"]))
    assert len(chosen) > 1


def test_a_drawn_dev_set_has_both_classes():
    variants = table(list("abcdefgh"), per_contig=40)
    variants["label"] = (variants["contig"].isin(["a", "b", "h"])).astype(np.int8)
    result, _ = assign_splits(
        variants, protocol="paired", max_window_bp=WINDOW_BP, test_chromosomes=["a"]
    )
    check_both_classes(result)


def test_blocks_of_one_chromosome_have_the_asked_size_and_gaps():
    variants = table(["chrM"], per_contig=1000, spacing=30)
    result, summary = assign_splits(
        variants,
        protocol="paired",
        max_window_bp=WINDOW_BP,
        dev_fraction=0.15,
        test_fraction=0.25,
    )
    sizes = result["split"].value_counts()
    assert sizes["test"] == pytest.approx(250, abs=3)
    assert sizes["dev"] == pytest.approx(0.15 * (1000 - 250 - 33), abs=3)  # 33: the first gap
    spans = {split: span["chrM"] for split, span in summary["spans"].items()}
    assert spans["train"][1] + WINDOW_BP <= spans["dev"][0]
    assert spans["dev"][1] + WINDOW_BP <= spans["test"][0]
    assert spans["dev"][0] - spans["train"][1] < WINDOW_BP + 200  # no wider than it must be
    assert summary["dev_from"] == summary["test_from"] == "blocks"
    assert summary["dev_chromosomes"] == []


def test_one_position_is_never_in_two_splits():
    variants = table(["chrM"], per_contig=300)
    tissues = pd.concat([variants.assign(tissue=tissue) for tissue in ("Liver", "Lung", "Skin")])
    tissues = tissues.assign(line=np.arange(len(tissues)))
    result, _ = assign_splits(tissues, protocol="paired", max_window_bp=16)
    assert (result.groupby("pos")["split"].nunique() == 1).all()


def test_the_files_own_splits_are_kept():
    variants = table(list("abcd"), per_contig=100)
    given = variants["contig"].map({"a": "Test", "b": "valid", "c": "TRAIN", "d": ""})
    result, summary = assign_splits(
        variants.assign(split=given), protocol="paired", max_window_bp=WINDOW_BP
    )
    expected = variants["contig"].map({"a": "test", "b": "dev", "c": "train", "d": "train"})
    assert result["split"].tolist() == expected.tolist()
    assert (summary["test_from"], summary["dev_from"]) == ("file", "file")


def test_what_the_file_calls_test_is_kept_and_its_neighbours_left_out():
    variants = table(list("abcd"), per_contig=100)
    variants.loc[variants.index % 97 == 5, "split"] = "test"
    result, _ = assign_splits(variants, protocol="paired", max_window_bp=WINDOW_BP)
    is_test = variants["split"] == "test"
    assert (result["split"] == "test").tolist() == is_test.tolist()
    assert (result["split"] == "gap").sum() > 10
    check_no_shared_window(result)


def test_rows_on_test_chromosomes_never_train_whatever_the_file_says():
    variants = table(list("abcdef"), per_contig=60)
    variants.loc[variants["contig"] == "a", "split"] = "test"
    for protocol in ("paired", "released"):
        result, _ = assign_splits(
            variants, protocol=protocol, max_window_bp=WINDOW_BP, test_chromosomes=["a", "b"]
        )
        assert set(result.loc[result["contig"] == "b", "split"]) == {"gap"}
        assert set(result.loc[result["contig"] == "a", "split"]) == {"test"}


@pytest.mark.parametrize("protocol", ["paired", "released"])
def test_a_task_without_training_rows(protocol):
    variants = table(list("abcd"), per_contig=20)
    options = {"protocol": protocol, "max_window_bp": WINDOW_BP}
    result, summary = assign_splits(variants, test_chromosomes="all", **options)
    assert set(result["split"]) == {"test"}
    assert summary["dev_from"] == "none"
    result, _ = assign_splits(variants.assign(split="test"), **options)
    assert set(result["split"]) == {"test"}


def test_released_is_scikit_learns_stratified_fifth_in_file_order():
    variants = table(list("abcd"), per_contig=100)
    variants["split"] = np.where(variants["contig"] == "b", "test", "train")
    options = {"protocol": "released", "max_window_bp": WINDOW_BP}
    result, summary = assign_splits(variants, **options)
    training = variants[variants["split"] == "train"]
    train, dev = train_test_split(
        training, test_size=0.2, stratify=training["label"], random_state=42
    )
    assert set(result.loc[result["split"] == "dev", "line"]) == set(dev["line"])
    assert set(result.loc[result["split"] == "train", "line"]) == set(train["line"])
    assert set(result.loc[result["contig"] == "b", "split"]) == {"test"}
    assert summary["dev_from"] == "random"
    again, _ = assign_splits(variants.sample(frac=1, random_state=1), **options)
    assert split_of(again) == split_of(result)


intervals = st.tuples(st.sampled_from("ab"), st.integers(0, 40), st.integers(1, 15), st.booleans())


@given(rows=st.lists(intervals, min_size=1, max_size=30))
@example(rows=[("a", 0, 15, True), ("a", 1, 1, True), ("a", 10, 1, False)])  # one in another
@settings(deadline=None)
def test_overlap_is_that_of_every_pair(rows):
    contigs, starts, lengths, chosen = map(np.array, zip(*rows, strict=True))
    ends = starts + lengths
    expected = [
        any(
            chosen[other]
            and contigs[other] == contigs[row]
            and starts[other] < ends[row]
            and starts[row] < ends[other]
            for other in range(len(rows))
        )
        for row in range(len(rows))
    ]
    windows = WindowSpans(pd.Series(contigs), starts, ends)
    assert windows.overlap(chosen).tolist() == expected


@st.composite
def small_tables(draw):
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from("abcde"),
                st.integers(1, 400),
                st.sampled_from(["A", "ACCTGACCTG"]),
                st.integers(0, 1),
                st.sampled_from(["", "", "", "train", "test", "dev"]),
            ),
            min_size=1,
            max_size=40,
        )
    )
    variants = pd.DataFrame(rows, columns=["contig", "pos", "ref", "label", "split"])
    variants["alt"] = np.where(variants["ref"] == "A", "C", "A")
    return variants.assign(line=np.arange(len(rows)))


@settings(deadline=None)
@given(
    variants=small_tables(), window_bp=st.integers(16, 60), chromosomes=st.sampled_from([[], ["b"]])
)
def test_paired_property(variants, window_bp, chromosomes):
    refusal = None
    try:
        result, _ = assign_splits(
            variants, protocol="paired", max_window_bp=window_bp, test_chromosomes=chromosomes
        )
    except LongscaleError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith(("split: no ", "test_chromosomes: "))
        return
    check_no_shared_window(result, window_bp)
    assert set(result["split"]) <= {"train", "dev", "test", "gap"}
    if set(result["split"]) != {"test"}:
        check_both_classes(result)
    was_test = (variants["split"] == "test").to_numpy()
    if was_test.any():
        assert ((result["split"] == "test").to_numpy() == was_test).all()
    held_out = result["contig"].isin(chromosomes)
    assert not result.loc[held_out, "split"].isin(["train", "dev"]).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocol": "paird"}, "protocol is 'paird': it must be"),
        ({"dev_fraction": 0}, "dev_fraction is 0: it must lie between 0 and 1"),
        ({"test_fraction": 1.5}, "test_fraction is 1.5"),
        ({"max_window_bp": 0}, "window_bp is 0"),
        ({}, "test_chromosomes: the variants lie on 4 chromosomes and their file marks no test"),
        ({"test_chromosomes": ["chr9"]}, "no variant for it lies on 'chr9'; .* on a, b, c, d"),
        (
            {"test_chromosomes": ["a"], "dev_chromosomes": ["a"]},
            "dev_chromosomes: no variant for it lies on 'a'; there are variants on b, c, d",
        ),
        ({"test_chromosomes": list("abc"), "dev_chromosomes": ["d"]}, "split: no train variant"),
    ],
)
def test_bad_arguments_are_one_sentence(options, sentence):
    options = {"protocol": "paired", "max_window_bp": WINDOW_BP, **options}
    with pytest.raises(LongscaleError, match=sentence):
        assign_splits(table(list("abcd"), per_contig=50), **options)


def test_an_unknown_split_name_is_one_sentence():
    variants = table(["a"]).assign(split="holdout")
    with pytest.raises(LongscaleError, match="split is 'holdout': it must be one of train, dev,"):
        assign_splits(variants, protocol="paired", max_window_bp=WINDOW_BP)


def test_windows_too_long_for_the_chromosome_are_one_sentence():
    with pytest.raises(LongscaleError, match=r"split: no (train|dev) variant with label"):
        assign_splits(table(["chrM"]), protocol="paired", max_window_bp=100_000)


def test_rows_without_a_split_are_listed_with_their_line():
    """Accepted rows are in a split or in the list, never in neither."""
    variants = table(["a", "b", "c", "d"], spacing=700)
    shuffled = variants.sample(frac=1, random_state=3)
    options = {"protocol": "paired", "max_window_bp": WINDOW_BP, "test_chromosomes": ["b"]}
    result, _ = assign_splits(shuffled, **options, dev_chromosomes=["c"])
    result.loc[result["contig"] == "a", "split"] = "gap"
    listed = list_left_out(result, WINDOW_BP, None)
    kept = result.loc[result["split"] != "gap", "line"]
    assert sorted([*listed["line"], *kept]) == variants["line"].tolist()
    assert listed["line"].is_monotonic_increasing
    assert listed["sentence"].str.contains("1,000 bp overlaps that of a dev or test row").all()
    one = list_left_out(result, WINDOW_BP, "other")["sentence"].iloc[0]
    assert one == "its window of 1,000 bp overlaps one that other was trained on"


def test_protocols_between_split_as_paired_or_as_released():
    variants = table(["a", "b", "c", "d", "e"])
    options = {"max_window_bp": WINDOW_BP, "test_chromosomes": ["b"]}
    splits = {
        protocol: assign_splits(variants, protocol=protocol, **options)[0]["split"].tolist()
        for protocol in PROTOCOLS
    }
    assert splits.pop("random-dev") == (released := splits.pop("released"))
    assert set(map(tuple, splits.values())) == {tuple(splits["paired"])} != {tuple(released)}


def test_one_class_cannot_be_split_the_released_way():
    variants = table(list("ab"), per_contig=20).assign(label=0)
    variants.loc[variants.index[0], "label"] = 1
    with pytest.raises(LongscaleError, match="at least two training variants of each class"):
        assign_splits(
            variants, protocol="released", max_window_bp=WINDOW_BP, test_chromosomes=["b"]
        )


def test_what_another_tasks_training_has_seen_leaves_the_test():
    def table(split, *positions):
        rows = {"contig": "chr1", "pos": positions, "ref": "A", "alt": "C", "split": split}
        return pd.DataFrame({**rows, "label": 0})

    trained = pd.concat([table("train", 1000), table("dev", 5000), table("test", 9000)])
    test = table("test", 1000, 1099, 1100, 4901, 9000, 20_000)
    kept, count = leave_out_overlaps(test, trained, 100)
    # Windows of 100 bp overlap where their centres are less than 100 bp apart.
    assert list(kept["split"]) == ["gap", "gap", "test", "gap", "test", "test"]
    assert count == 3
    assert list(test["split"]) == ["test"] * 6
    with pytest.raises(LongscaleError, match="no variant is left to test"):
        leave_out_overlaps(table("test", 1000, 1050), trained, 100)
