"""The masked-LM table against a slow construction, its verdicts, flags and refusals."""

import math

import numpy as np
import pandas as pd
import pytest
from mlm_cells import arm, cell_writer, targets

from longscale.errors import LongscaleError
from longscale.evaluation.compare import write_table
from longscale.evaluation.intervals import draw_generator, draw_seeds
from longscale.evaluation.mlm_table import (
    MLM_FLAGS,
    MLM_TABLE_COLUMNS,
    build_mlm_table,
    build_mlm_wide_table,
    is_released,
    read_mlm_table,
)


@pytest.fixture
def study(tmp_path):
    """What `cell_writer` gives."""
    return cell_writer(tmp_path)


PROMISED = (
    *("corpus", "model", "train_length", "protocol", "attention", "scheme", "rule", "length"),
    *("seeds", "documents", "n", "accuracy", "accuracy_lo", "accuracy_hi", "loss", "perplexity"),
    *("delta", "delta_lo", "delta_hi", "verdict", "trained", "flags"),
    *("retained", "retained_lo", "retained_hi"),
    *("rule_delta", "rule_delta_lo", "rule_delta_hi", "rule_verdict"),
)


def build(cells, **options):
    return build_mlm_table(cells, report=lambda line: None, **{"resamples": 200, **options})


def row_of(table, scheme="rope", rule="none", attention="dot", **where):
    where |= {"attention": attention, "scheme": scheme, "rule": rule}
    chosen = table
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    (row,) = chosen.to_dict("records")
    return row


def test_table_equals_the_slow_construction(study):
    """Every number of a row, from the rows of whole documents repeated per draw."""
    frame = targets()
    scores, cells = {}, []
    for attention in ("dot", "cos16"):
        for seed in (1, 2, 5):
            for length in (64, 512):
                key = 10 * len(scores)
                arms = {
                    ("rope", "none"): arm(frame, 0.7 if length == 64 else 0.4, key),
                    ("pi", "infoscale"): arm(frame, 0.5, key + 1),
                    ("pi", "none"): arm(frame, 0.4, key + 2),
                }
                scores[attention, length, seed] = arms
                cells.append(study(arms, attention=attention, seed=seed, length=length))
    table = build(cells, resamples=40, seed=9)

    document = frame["document"].map(sorted(frame["document"].unique()).index).to_numpy()
    even = np.full(15, 1 / 15)
    draws = draw_generator(9, "c", "fixed-target", "documents").multinomial(15, even, 40)
    shares = draw_seeds(3, 40, draw_generator(9, "c", "fixed-target", "seeds", "1", "2", "5"))

    def of_draws(attention, length, *which):
        values = []
        for draw in range(40):
            per_seed = []
            for seed in (1, 2, 5):
                correct = scores[attention, length, seed][which]["correct"]
                per_seed.append(np.repeat(correct, draws[draw][document]).mean())
            values.append(np.dot(per_seed, shares[:, draw]))
        return np.array(values)

    def mean(column, attention, length, *which):
        return np.mean([scores[attention, length, s][which][column].mean() for s in (1, 2, 5)])

    def bounds(values):
        return np.quantile(values, [0.025, 0.975]).tolist()

    places = [("dot", "rope", "none"), ("cos16", "pi", "infoscale"), ("cos16", "rope", "none")]
    for attention, *which in places:
        row = row_of(table, *which, attention, length=512)
        own, drawn = mean("correct", attention, 512, *which), of_draws(attention, 512, *which)
        base, base_drawn = (
            mean("correct", "dot", 512, "rope", "none"),
            of_draws("dot", 512, "rope", "none"),
        )
        short = mean("correct", attention, 64, "rope", "none")
        short_drawn = of_draws(attention, 64, "rope", "none")
        unruled = mean("correct", attention, 512, which[0], "none")
        unruled_drawn = of_draws(attention, 512, which[0], "none")
        loss = mean("loss", attention, 512, *which)
        expected = {
            "accuracy": own,
            "delta": own - base,
            "retained": own / short,
            "rule_delta": own - unruled,
            "loss": loss,
            "perplexity": math.exp(loss),
        }
        assert (row["seeds"], row["documents"], row["n"]) == (3, 15, len(frame))
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
        intervals = {
            "accuracy": drawn,
            "delta": drawn - base_drawn,
            "retained": drawn / short_drawn,
            "rule_delta": drawn - unruled_drawn,
        }
        for name, values in intervals.items():
            found = [row[f"{name}_lo"], row[f"{name}_hi"]]
            assert found == pytest.approx(bounds(values), abs=1e-12)


def test_columns_and_order_of_rows(study):
    frame = targets()
    both = {("pi", "none"): arm(frame, 0.5, 1), ("rope", "none"): arm(frame, 0.5, 2)}
    with_rule = both | {("rope", "logn"): arm(frame, 0.5, 3)}
    cells = [
        study(both, attention="cos128"),
        study(with_rule, length=512),
        study({("alibi", "none"): arm(frame, 0.5, 4)}, trained_scheme="alibi"),
        study(both, attention="cos16"),
        study(with_rule),
    ]
    table = build(cells)
    assert tuple(table.columns[: len(PROMISED)]) == PROMISED
    assert list(table.columns) == MLM_TABLE_COLUMNS
    columns = ["attention", "scheme", "rule", "length", "trained"]
    assert table[columns].to_numpy().tolist() == [
        ["dot", "rope", "none", 64, True],
        ["dot", "rope", "none", 512, True],
        ["dot", "rope", "logn", 64, True],
        ["dot", "rope", "logn", 512, True],
        ["dot", "pi", "none", 64, False],
        ["dot", "pi", "none", 512, False],
        ["cos16", "rope", "none", 64, True],
        ["cos16", "pi", "none", 64, False],
        ["cos128", "rope", "none", 64, True],
        ["cos128", "pi", "none", 64, False],
        ["dot", "alibi", "none", 64, True],
    ]


def test_bytes_do_not_depend_on_the_order_of_rows_or_cells(study, tmp_path):
    frame = targets()
    arms = {("rope", "none"): arm(frame, 0.5, 1), ("rope", "logn"): arm(frame, 0.6, 2)}
    places = [{"seed": 1}, {"seed": 2}, {"seed": 1, "length": 128}]
    cells = [study(arms, **place) for place in places]
    write_table(build(cells), tmp_path / "one.tsv")
    shuffled = {name: rows.sample(frac=1, random_state=3) for name, rows in reversed(arms.items())}
    cells = [study(shuffled, **place) for place in reversed(places)]
    write_table(build(cells), tmp_path / "two.tsv")
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()


def test_draws_depend_on_corpus_and_protocol_not_on_company(study):
    frame = targets()
    arms = {("rope", "none"): arm(frame, 0.5, 1)}
    alone = build([study(arms)])
    others = [study(arms, model="n"), study(arms, corpus="b"), study(arms, protocol="released")]
    together = build([study(arms), *others])
    own = together.query("corpus == 'c' and model == 'm' and protocol == 'fixed-target'")
    pd.testing.assert_frame_equal(alone, own.reset_index(drop=True))
    bounds = {
        (row["corpus"], row["model"], row["protocol"]): (row["accuracy_lo"], row["accuracy_hi"])
        for row in together.to_dict("records")
    }
    assert bounds["c", "n", "fixed-target"] == bounds["c", "m", "fixed-target"]
    assert len(set(bounds.values())) == 3


def test_verdicts(study):
    frame = targets(30)
    base = arm(frame, 0.5, 1)
    flipped = np.random.default_rng(2).random(len(frame)) < 0.15
    arms = {
        ("rope", "none"): base,
        ("rope", "same"): base.assign(loss=base["loss"] * 2),
        ("rope", "better"): base.assign(correct=base["correct"] | flipped),
        ("rope", "worse"): base.assign(correct=base["correct"] & ~flipped),
        ("pi", "none"): base.assign(correct=base["correct"] | flipped),
        ("pi", "back"): base,
    }
    table = build([study(arms)])
    verdicts = {which: row_of(table, *which)["verdict"] for which in arms}
    assert list(verdicts.values()) == [
        *("baseline", "unresolved", "better", "worse", "better", "unresolved")
    ]
    rule_verdicts = {which: row_of(table, *which)["rule_verdict"] for which in arms}
    assert list(rule_verdicts.values()) == [
        *("baseline", "unresolved", "better", "worse", "baseline", "worse")
    ]
    same = row_of(table, rule="same")
    assert (same["delta"], same["delta_lo"], same["delta_hi"]) == (0, 0, 0)
    assert same["perplexity"] == pytest.approx(row_of(table)["perplexity"] ** 2)
    better = row_of(table, rule="better")
    assert 0 < better["delta_lo"] < better["delta"] < better["delta_hi"]


def test_the_interval_is_of_documents_not_of_targets(study):
    """Copying every target within its document adds rows, not evidence: the interval stays."""
    frame = targets()
    few = arm(frame, 0.5, 1)
    many = pd.concat([few.assign(target=few["target"] + 10_000 * copy) for copy in range(3)])
    one = row_of(build([study({("rope", "none"): few})]))
    thrice = row_of(build([study({("rope", "none"): many})]))
    assert thrice["n"] == 3 * one["n"]
    for name in ("accuracy", "accuracy_lo", "accuracy_hi"):
        assert thrice[name] == pytest.approx(one[name], abs=1e-12)


def test_seeds_that_disagree_widen_the_interval_and_copies_do_not(study):
    frame = targets(30)
    strong, weak = arm(frame, 0.9, 1), arm(frame, 0.2, 2)
    width = {}
    for name, runs in {"one": [strong], "copies": [strong] * 2, "two": [strong, weak]}.items():
        cells = [
            study({("rope", "none"): run}, seed=seed, corpus=name) for seed, run in enumerate(runs)
        ]
        row = row_of(build(cells, resamples=400))
        width[name] = row["accuracy_hi"] - row["accuracy_lo"]
    assert width["copies"] == pytest.approx(width["one"], rel=0.35)
    assert width["two"] > 2 * width["one"]


def test_differences_use_the_seeds_that_both_have(study):
    frame = targets()
    base = {seed: arm(frame, 0.5, seed) for seed in (1, 2)}
    other = {seed: arm(frame, 0.7, seed + 9) for seed in (2, 3)}
    short = {seed: arm(frame, 0.8, seed + 20) for seed in (3, 4)}
    place = {"length": 512}
    cells = [study({("rope", "none"): rows}, seed=seed, **place) for seed, rows in base.items()]
    for rows_of, where in ((other, place), (short, {"length": 64})):
        cells += [
            study({("rope", "none"): rows}, seed=seed, attention="cos16", **where)
            for seed, rows in rows_of.items()
        ]
    row = row_of(build(cells), attention="cos16", length=512)
    means = {seed: rows["correct"].mean() for seed, rows in other.items()}
    assert row["seeds"] == 2
    assert row["accuracy"] == pytest.approx((means[2] + means[3]) / 2)
    assert row["delta"] == pytest.approx(means[2] - base[2]["correct"].mean())
    assert row["retained"] == pytest.approx(means[3] / short[3]["correct"].mean())
    assert row["flags"] == "single_seed"


def test_what_learned_nothing_retains_nothing_and_has_no_verdict(study):
    frame = targets(30)
    arms = {("rope", "none"): arm(frame, 0.3, 2), ("rope", "logn"): arm(frame, 0.9, 3)}
    dot = study({("rope", "none"): arm(frame, 0.5, 1)})

    def row(*flags):
        table = build([dot, study(arms, attention="cos256", flags=[*flags])])
        return row_of(table, rule="logn", attention="cos256")

    verdicts = ("verdict", "rule_verdict", "loss_verdict")
    learned, nothing = row(), row("not_learned")
    assert learned["accuracy"] == nothing["accuracy"] > 0.8
    assert learned["retained"] > 1
    assert learned["rule_verdict"] == "better"
    assert math.isnan(nothing["retained"])
    assert math.isnan(nothing["retained_lo"])
    assert {nothing[name] for name in verdicts} == {"unresolved"}


def test_retained_is_measured_against_the_checkpoint_as_it_was_trained(study):
    frame = targets()
    at_64 = {
        ("rope", "none"): arm(frame, 0.9, 1),
        ("rope", "logn"): arm(frame, 0.8, 2),
        ("pi", "none"): arm(frame, 0.7, 3),
    }
    at_512 = {("rope", "logn"): arm(frame, 0.4, 4), ("pi", "none"): arm(frame, 0.5, 5)}
    table = build([study(at_64), study(at_512, length=512)])
    as_trained = at_64["rope", "none"]["correct"].mean()
    for which, rows in at_512.items():
        row = row_of(table, *which, length=512)
        assert row["retained"] == pytest.approx(rows["correct"].mean() / as_trained)
        assert row["retained_lo"] < row["retained"] < row["retained_hi"]
    first = row_of(table, length=64)
    assert (first["retained"], first["retained_lo"], first["retained_hi"]) == (1, 1, 1)
    alone = row_of(build([study(at_512, length=512)]), "pi", length=512)
    assert math.isnan(alone["retained"])
    assert math.isnan(alone["retained_lo"])


def test_a_trained_in_scheme_stands_apart_from_the_same_scheme_training_free(study):
    frame = targets()
    cells = [
        study({("rope", "none"): arm(frame, 0.5, 1), ("pi", "none"): arm(frame, 0.6, 2)}),
        study({("pi", "none"): arm(frame, 0.9, 3)}, trained_scheme="pi"),
    ]
    table = build(cells)
    free, trained = (row_of(table, "pi", trained=trained) for trained in (False, True))
    assert free["accuracy"] < trained["accuracy"]
    assert (free["trained_scheme"], trained["trained_scheme"]) == ("rope", "pi")
    # The training-free one shares the baseline's checkpoint, so training cannot differ.
    assert (free["flags"], trained["flags"]) == ("", "single_seed")
    for row in (free, trained):
        assert row["delta"] == pytest.approx(row["accuracy"] - row_of(table)["accuracy"])
        assert row["rule_verdict"] == "baseline"
    wide = build_mlm_wide_table(table)
    assert wide[["scheme", "trained"]].to_numpy().tolist() == [
        ["rope", True],
        ["pi", False],
        ["pi", True],
    ]


def test_flags_of_trainings_arms_and_corpus(study):
    frame = targets(11)
    arms = {("rope", "none"): arm(frame, 0.5, 1), ("rope", "entropy-matched"): arm(frame, 0.5, 2)}
    of_arm = {"rope/entropy-matched": ["unmatched"]}
    cells = [
        study(arms, flags=["non_finite_loss"]),
        study(arms, seed=2, flags=["not_converged"], arm_flags=of_arm),
        study(arms, attention="cos16", flags=["mine"]),
    ]
    table = build(cells)
    assert row_of(table)["flags"] == "not_converged;non_finite_loss;few_documents"
    matched = row_of(table, rule="entropy-matched")["flags"]
    assert matched == "not_converged;non_finite_loss;unmatched;few_documents"
    assert row_of(table, attention="cos16")["flags"] == "single_seed;few_documents;mine"
    assert set(matched.split(";")) < set(MLM_FLAGS)
    enough = build([study({("rope", "none"): arm(targets(12), 0.5, 1)}, corpus="d")])
    assert row_of(enough)["flags"] == ""


def test_one_document_has_no_interval_and_no_verdict(study):
    frame = targets(1)
    arms = {
        ("rope", "none"): arm(frame, 0.5, 1).assign(correct=False),
        ("rope", "logn"): arm(frame, 0.5, 2).assign(correct=True),
    }
    row = row_of(build([study(arms)]), rule="logn")
    assert (row["documents"], row["accuracy"], row["delta"], row["verdict"]) == (
        *(1, 1, 1),
        "unresolved",
    )
    assert math.isnan(row["accuracy_lo"])
    assert math.isnan(row["retained"])  # of nothing


def test_a_broken_arm_gets_no_verdict_no_interval_and_no_loss(study):
    frame = targets()
    broken = arm(frame, 0.9, 1)
    broken.loc[3, "loss"] = np.nan
    flags = {"rope/logn": ["non_finite_loss"]}
    sound = arm(frame, 0.2, 2)
    table = build([study({("rope", "none"): sound, ("rope", "logn"): broken}, arm_flags=flags)])
    row = row_of(table, rule="logn")
    assert row["accuracy"] == pytest.approx(broken["correct"].mean())
    for name in ("accuracy_lo", "loss", "perplexity", "delta_lo", "retained_lo"):
        assert math.isnan(row[name]), name
    assert (row["verdict"], row["flags"]) == ("unresolved", "non_finite_loss")
    assert row_of(table)["flags"] == ""


def test_an_arm_that_cannot_run_has_a_row_without_numbers(study, tmp_path):
    frame = targets()
    rope = {("rope", "none"): arm(frame, 0.5, 1)}
    reason = "reaches 512 tokens only"
    cells = [
        study(rope | {("self-extend", "none"): arm(frame, 0.5, 2)}),
        study(
            rope,
            length=1024,
            not_run={"self-extend/none": reason},
            arm_flags={"self-extend/none": ["mine"]},
        ),
        study({}, length=2048, not_run={"self-extend/none": reason, "rope/none": "no memory"}),
    ]
    lines = []
    table = build_mlm_table(cells, resamples=50, report=lines.append)
    assert lines == [
        "c m fixed-target: trained at 64 tokens, read at 64, 2 arms compared, 0 cannot run",
        "c m fixed-target: trained at 64 tokens, read at 1,024, 1 arms compared, 1 cannot run",
        "cannot run at 1,024: self-extend: reaches 512 tokens only",
        "c m fixed-target: trained at 64 tokens, read at 2,048, 0 arms compared, 2 cannot run",
        "cannot run at 2,048: rope: no memory",
        "cannot run at 2,048: self-extend: reaches 512 tokens only",
    ]
    for scheme, length, flags in [
        ("self-extend", 1024, "cannot_run;mine"),
        ("self-extend", 2048, "cannot_run"),
        ("rope", 2048, "cannot_run"),
    ]:
        row = row_of(table, scheme, length=length)
        assert (row["seeds"], row["documents"], row["n"], row["flags"]) == (0, 0, 0, flags)
        assert {row[name] for name in row if name.endswith("verdict")} == {"unresolved"}
        numbers = [row[name] for name in MLM_TABLE_COLUMNS if isinstance(row[name], float)]
        assert len(numbers) == 17
        assert all(map(math.isnan, numbers))
    wide = build_mlm_wide_table(table)
    assert wide.loc[1, "1024"] == "*"
    write_table(table, tmp_path / "mlm.tsv")
    assert read_mlm_table(tmp_path / "mlm.tsv")["n"].tolist() == table["n"].tolist()


def test_an_arm_that_only_one_seed_can_run(study):
    frame = targets()
    run = arm(frame, 0.5, 1)
    cells = [study({("rope", "none"): run}), study({}, seed=2, not_run={"rope/none": "memory"})]
    row = row_of(build(cells))
    assert (row["seeds"], row["flags"], row["verdict"]) == (1, "cannot_run", "baseline")
    assert row["accuracy"] == run["correct"].mean()


@pytest.mark.parametrize("where", [{"length": 512}, {"seed": 2}, {"attention": "cos16"}])
@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.iloc[1:],
        lambda frame: frame.assign(target=frame["target"] + 1),
        lambda frame: frame.assign(token=frame["token"] + 1),
        lambda frame: frame.assign(document="x" + frame["document"]),
    ],
)
def test_other_targets_are_refused_with_both_files_named(study, change, where):
    frame = targets()
    cells = [
        study({("rope", "none"): arm(frame, 0.5, 1)}),
        study({("rope", "none"): change(arm(frame, 0.5, 1))}, **where),
    ]
    with pytest.raises(
        LongscaleError, match=r"\.parquet and .*\.parquet: .*same targets"
    ) as caught:
        build(cells)
    assert all(str(cell.path) in str(caught.value) for cell in cells)


def test_other_models_and_released_lengths_may_hold_other_targets(study):
    one, other = arm(targets(), 0.5, 1), arm(targets(14, seed=5), 0.5, 2)
    cells = [
        study({("rope", "none"): one}),
        study({("rope", "none"): other}, model="n"),
        study({("rope", "none"): one}, protocol="released"),
        study({("rope", "none"): other}, protocol="released", length=512),
    ]
    table = build(cells)
    assert row_of(table, model="n")["documents"] == 14
    # Without the same documents there are no common draws: a share, but no interval of it.
    row = row_of(table, protocol="released", length=512)
    assert row["retained"] == pytest.approx(other["correct"].mean() / one["correct"].mean())
    assert math.isnan(row["retained_lo"])
    cells.append(study({("rope", "none"): one}, protocol="released", length=512, seed=2))
    with pytest.raises(LongscaleError, match="same targets at each length"):
        build(cells)


def test_nothing_to_compare_is_refused(study):
    cell = study({("rope", "none"): arm(targets(), 0.5, 1)})
    with pytest.raises(LongscaleError, match="two score files for the same cell"):
        build([cell, cell])
    with pytest.raises(LongscaleError, match="at least one is needed"):
        build([])
    with pytest.raises(LongscaleError, match="no rows"):
        build([study({}, corpus="empty")])


def test_wide_table_puts_lengths_side_by_side_without_the_released_arms(study):
    frame = targets()
    rope = ("rope", "none")
    cells = [
        study({rope: arm(frame, 0.5, n), ("rope", "infoscale-released"): arm(frame, 0.5, 1)},
              length=n)
        for n in (512, 64, 128)
    ]  # fmt: skip
    cells.append(study({rope: arm(frame, 0.5, 4)}, attention="cos16", flags=["x"]))
    cells.append(study({rope: arm(frame, 0.5, 5)}, attention="cos16-released"))
    cells.append(study({("pi-released", "none"): arm(frame, 0.5, 6)}, seed=2))
    cells.append(study({rope: arm(frame, 0.5, 7)}, protocol="released"))
    table = build(cells)
    assert len(table) == 10
    assert is_released(table).sum() == 6
    wide = build_mlm_wide_table(table)
    assert list(wide.columns) == [
        *("corpus", "model", "train_length", "protocol", "attention", "scheme", "rule"),
        *("trained", "trained_scheme", "64", "128", "512"),
    ]
    assert wide[["attention", "rule"]].to_numpy().tolist() == [["dot", "none"], ["cos16", "none"]]
    row = row_of(table, length=128)
    expected = f"{row['accuracy']:.3f} [{row['accuracy_lo']:.3f}, {row['accuracy_hi']:.3f}]"
    assert wide.loc[0, "128"] == expected
    assert wide.loc[1, "64"].endswith("] *")
    assert wide.loc[1, "512"] == ""


def test_wide_table_of_released_arms_alone_is_empty(study):
    cell = study({("rope", "none"): arm(targets(), 0.5, 1)}, protocol="released")
    wide = build_mlm_wide_table(build([cell]))
    assert wide.empty
    assert wide.columns[:4].tolist() == ["corpus", "model", "train_length", "protocol"]


def test_written_table_reads_back(study, tmp_path):
    frame = targets()
    arms = {("rope", "none"): arm(frame, 0.5, 1), ("pi", "none"): arm(frame, 0.5, 2)}
    table = build([study(arms, corpus="NA")])
    write_table(table, tmp_path / "mlm.tsv")
    back = read_mlm_table(tmp_path / "mlm.tsv")
    pd.testing.assert_frame_equal(back, table, check_exact=False, atol=1e-6, check_dtype=False)
    assert back.loc[0, "corpus"] == "NA"
    assert back["trained"].tolist() == [True, False]
    write_table(table.drop(columns="retained"), tmp_path / "mlm.tsv")
    with pytest.raises(LongscaleError, match="column 'retained' of the masked-language-model"):
        read_mlm_table(tmp_path / "mlm.tsv")


def test_loss_delta_is_the_paired_difference_of_the_loss(study):
    frame = targets()
    base, other = arm(frame, 0.5, 1), arm(frame, 0.5, 2)
    other["loss"] = base["loss"] - 0.1 - 0.01 * np.random.default_rng(1).random(len(frame))
    other["loss"] = other["loss"].clip(lower=0).astype("float32")
    table = build([study({("rope", "none"): base, ("pi", "none"): other})])
    row = table[table["scheme"] == "pi"].iloc[0]
    expected = (other["loss"].astype(float) - base["loss"].astype(float)).mean()
    assert row["loss_delta"] == pytest.approx(expected)
    assert row["loss_delta_lo"] <= row["loss_delta"] <= row["loss_delta_hi"] < 0
    assert row["loss_verdict"] == "better"
    worse = build([study({("rope", "none"): other, ("pi", "none"): base})])
    assert worse[worse["scheme"] == "pi"].iloc[0]["loss_verdict"] == "worse"
    assert table[table["scheme"] == "rope"].iloc[0]["loss_verdict"] == "baseline"
