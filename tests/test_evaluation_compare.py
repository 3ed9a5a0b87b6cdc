"""The headline table against a slow construction, its verdicts, flags and refusals."""

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from longscale.errors import LongscaleError
from longscale.evaluation.compare import (
    AUROC_COLUMNS,
    build_auroc_table,
    build_wide_table,
    read_auroc_table,
    write_table,
)
from longscale.evaluation.intervals import block_ids, draw_blocks, draw_generator, draw_seeds
from longscale.evaluation.scores import ROW_COLUMNS, Cell, write_scores

PROMISED = (
    *("task", "protocol", "model", "train_bp", "attention", "rule", "eval_bp", "seeds", "n"),
    *("positives", "auroc", "auroc_lo", "auroc_hi", "delta", "delta_lo", "delta_hi", "verdict"),
    *("auprc", "accuracy", "f1", "mcc", "precision", "recall", "ceiling", "flags"),
)


def variants(n=240, contigs=("chr1", "chr2"), seed=0, span=30_000_000):
    """Test rows with labels, sorted by position, without a tissue."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "contig": rng.choice(contigs, n),
            "pos": rng.choice(span, n, replace=False) + 1,
            "ref": "A",
            "alt": rng.choice(["C", "G", "T"], n),
            "tissue": "",
            "label": rng.integers(0, 2, n),
        }
    )
    return frame.sort_values(["contig", "pos"], ignore_index=True)


def noisy(frame, strength, seed):
    return frame["label"] * strength + np.random.default_rng(seed).normal(size=len(frame))


@pytest.fixture
def study(tmp_path):
    """study(frame, rules, ...) writes one score file and gives its cell."""

    def write(
        frame,
        rules,
        *,
        task="t",
        protocol="paired",
        attention="dot",
        seed=1,
        eval_bp=1000,
        flags=(),
        rule_flags=None,
    ):
        path = tmp_path / f"{task}/{protocol}/m/1000/{attention}/seed{seed}/{eval_bp}.parquet"
        provenance = {"flags": list(flags)} | ({"rule_flags": rule_flags} if rule_flags else {})
        write_scores(frame.assign(**rules), path, provenance)
        return Cell.from_path(path)

    return write


def build(cells, **options):
    return build_auroc_table(cells, report=lambda line: None, **{"resamples": 200, **options})


def row_of(table, attention="dot", rule="none", **where):
    chosen = table[(table["attention"] == attention) & (table["rule"] == rule)]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    (row,) = chosen.to_dict("records")
    return row


def test_table_equals_the_slow_construction(study):
    """Every number of a row, from rows repeated per draw and scikit-learn."""
    frame = variants()
    scores, cells = {}, []
    for attention in ("dot", "cos16"):
        for seed in (1, 2, 5):
            key = len(scores) + 1
            rules = {"none": noisy(frame, 1, key), "logn": noisy(frame, 1.5, key + 50).round()}
            scores[attention, seed] = rules
            cells.append(study(frame, rules, attention=attention, seed=seed))
    table = build(cells, resamples=40, seed=9, block_bp=2_000_000)

    labels, blocks = frame["label"].to_numpy(), block_ids(frame["contig"], frame["pos"], 2_000_000)
    draws = draw_blocks(blocks, labels, 40, draw_generator(9, "t", "blocks")).weights
    seeds = draw_seeds(3, 40, draw_generator(9, "t", "seeds", "1", "2", "5"))

    def of_draws(attention, rule):
        values = []
        for draw in range(40):
            repeats = draws[draw].astype(int)[blocks]
            per_seed = [
                roc_auc_score(
                    np.repeat(labels, repeats),
                    np.repeat(np.float32(scores[attention, seed][rule]), repeats),
                )
                for seed in (1, 2, 5)
            ]
            values.append(np.dot(per_seed, seeds[:, draw]))
        return np.array(values)

    for attention, rule in [("dot", "none"), ("dot", "logn"), ("cos16", "logn")]:
        row = row_of(table, attention, rule)
        own = [roc_auc_score(labels, np.float32(scores[attention, s][rule])) for s in (1, 2, 5)]
        base = [roc_auc_score(labels, np.float32(scores["dot", s]["none"])) for s in (1, 2, 5)]
        drawn = of_draws(attention, rule)
        excess = drawn - of_draws("dot", "none")
        assert (row["seeds"], row["n"], row["positives"]) == (3, 240, labels.sum())
        assert row["auroc"] == pytest.approx(np.mean(own), abs=1e-12)
        assert row["delta"] == pytest.approx(np.mean(own) - np.mean(base), abs=1e-12)
        bounds = [row["auroc_lo"], row["auroc_hi"], row["delta_lo"], row["delta_hi"]]
        expected = [*np.quantile(drawn, [0.025, 0.975]), *np.quantile(excess, [0.025, 0.975])]
        assert bounds == pytest.approx(expected, abs=1e-12)
        accuracy = [((scores[attention, s][rule] > 0) == labels).mean() for s in (1, 2, 5)]
        assert row["accuracy"] == pytest.approx(np.mean(accuracy))


def test_what_a_released_choice_costs_is_measured_against_the_same_cell_without_it(study):
    """From the same draws of blocks and seeds as every other difference."""
    frame = variants()
    columns = {
        (protocol, attention, rule, seed): noisy(frame, 1, 7 * number)
        for number, (protocol, attention, rule, seed) in enumerate(
            (protocol, attention, rule, seed)
            for protocol, attention in (
                ("paired", "dot"),
                ("paired", "cos16"),
                ("paired", "cos16-released"),
                ("released", "dot"),
            )
            for rule in ("none", "infoscale", "infoscale-released", "infoscale-released-d")
            for seed in (1, 2)
        )
    }
    cells = [
        study(
            frame,
            {rule: c for (p, a, rule, s), c in columns.items() if (p, a, s) == place},
            protocol=place[0],
            attention=place[1],
            seed=place[2],
        )
        for place in dict.fromkeys((p, a, s) for p, a, _, s in columns)
    ]
    table = build(cells, resamples=40, seed=9, block_bp=2_000_000)
    labels, blocks = frame["label"].to_numpy(), block_ids(frame["contig"], frame["pos"], 2_000_000)
    draws = draw_blocks(blocks, labels, 40, draw_generator(9, "t", "blocks")).weights
    seeds = draw_seeds(2, 40, draw_generator(9, "t", "seeds", "1", "2"))

    def of_draws(arm):
        values = np.zeros(40)
        for draw in range(40):
            repeats = draws[draw].astype(int)[blocks]
            for place, seed in enumerate((1, 2)):
                scores = np.float32(columns[(*arm, seed)])
                auroc = roc_auc_score(np.repeat(labels, repeats), np.repeat(scores, repeats))
                values[draw] += seeds[place, draw] * auroc
        return values

    for arm, right in (
        (("released", "dot", "none"), ("paired", "dot", "none")),
        (("released", "dot", "infoscale"), ("paired", "dot", "infoscale")),
        (("released", "dot", "infoscale-released"), ("paired", "dot", "infoscale")),
        (("paired", "dot", "infoscale-released-d"), ("paired", "dot", "infoscale")),
        (("paired", "cos16-released", "none"), ("paired", "cos16", "none")),
    ):
        row = row_of(table, *arm[1:], protocol=arm[0])
        expected = np.quantile(of_draws(arm) - of_draws(right), [0.025, 0.975])
        assert [row["choice_delta_lo"], row["choice_delta_hi"]] == pytest.approx(expected)
        own, other = row, row_of(table, *right[1:], protocol=right[0])
        assert row["choice_delta"] == pytest.approx(own["auroc"] - other["auroc"])
    plain = row_of(table, "cos16", "infoscale", protocol="paired")
    assert (plain["choice_delta"], plain["choice_verdict"]) == (0, "baseline")


def test_columns_and_order_of_rows(study):
    frame = variants()
    cells = [
        study(frame, {"logn": noisy(frame, 1, 1), "none": noisy(frame, 1, 2)}, **where)
        for where in (
            {"attention": "cos128"},
            {"attention": "dot", "eval_bp": 8000},
            {"attention": "cos16"},
            {"attention": "dot"},
        )
    ]
    table = build(cells)
    assert tuple(table.columns[: len(PROMISED)]) == PROMISED
    assert list(table.columns) == AUROC_COLUMNS
    places = list(zip(table["attention"], table["rule"], table["eval_bp"], strict=True))
    assert places == [
        ("dot", "none", 1000),
        ("dot", "none", 8000),
        ("dot", "logn", 1000),
        ("dot", "logn", 8000),
        ("cos16", "none", 1000),
        ("cos16", "logn", 1000),
        ("cos128", "none", 1000),
        ("cos128", "logn", 1000),
    ]


def test_bytes_do_not_depend_on_the_order_of_rows_or_cells(study, tmp_path):
    frame = variants()
    rules = {"none": noisy(frame, 1, 1), "logn": noisy(frame, 1.2, 2)}
    cells = [study(frame, rules), study(frame, rules, seed=2), study(frame, rules, eval_bp=2000)]
    write_table(build(cells), tmp_path / "one.tsv")
    shuffled = np.random.default_rng(0).permutation(len(frame))
    for seed, eval_bp in [(1, 1000), (2, 1000), (1, 2000)]:
        whole = frame.assign(**rules).iloc[shuffled]
        study(whole[ROW_COLUMNS], whole[["none", "logn"]], seed=seed, eval_bp=eval_bp)
    write_table(build(cells[::-1]), tmp_path / "two.tsv")
    assert (tmp_path / "one.tsv").read_bytes() == (tmp_path / "two.tsv").read_bytes()


def test_draws_of_a_task_do_not_depend_on_its_company(study):
    frame = variants()
    one = study(frame, {"none": noisy(frame, 1, 1)})
    other = study(frame, {"none": noisy(frame, 1, 1)}, task="a")
    alone, together = build([one]), build([one, other])
    of_t = together[together["task"] == "t"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_t)
    assert row_of(together, task="a")["auroc_lo"] != row_of(together, task="t")["auroc_lo"]


def test_verdicts(study):
    frame = variants(600)
    base = noisy(frame, 1, 1)
    rules = {
        "none": base,
        "same": base,
        "monotone": 3 * base + 1,
        "stronger": base + 0.5 * frame["label"],
        "weaker": base - 0.5 * frame["label"],
        "nearly": base + 0.05 * np.random.default_rng(5).normal(size=len(frame)),
    }
    table = build([study(frame, rules), study(frame, {"none": base + 1}, attention="cos16")])
    verdicts = {rule: row_of(table, rule=rule)["verdict"] for rule in rules}
    assert verdicts == {
        "none": "baseline",
        "same": "unresolved",
        "monotone": "unresolved",
        "stronger": "better",
        "weaker": "worse",
        "nearly": "unresolved",
    }
    assert row_of(table, "cos16")["verdict"] == "unresolved"
    for rule in ("none", "same", "monotone"):
        row = row_of(table, rule=rule)
        assert (row["delta"], row["delta_lo"], row["delta_hi"]) == (0, 0, 0)
    better = row_of(table, rule="stronger")
    assert 0 < better["delta_lo"] < better["delta"] < better["delta_hi"]
    assert better["auroc_lo"] < better["auroc"] < better["auroc_hi"]


def test_one_seed_resamples_blocks_only_and_more_seeds_widen(study):
    """Seeds that disagree widen the interval; a copy of one seed does not."""
    frame = variants(600)
    strong, weak = noisy(frame, 2, 1), noisy(frame, 0.5, 2)
    width = {}
    for name, columns in {
        "one": [strong],
        "copies": [strong, strong],
        "two": [strong, weak],
    }.items():
        cells = [
            study(frame, {"none": column}, seed=seed, task=name)
            for seed, column in enumerate(columns)
        ]
        row = row_of(build(cells, resamples=400))
        width[name] = row["auroc_hi"] - row["auroc_lo"]
    assert width["copies"] == pytest.approx(width["one"], rel=0.25)
    assert width["two"] > 2 * width["one"]


def test_delta_uses_the_seeds_that_both_have(study):
    frame = variants()
    base = {seed: noisy(frame, 1, seed) for seed in (1, 2)}
    arm = {seed: noisy(frame, 2, seed + 9) for seed in (2, 3)}
    cells = [study(frame, {"none": column}, seed=seed) for seed, column in base.items()]
    cells += [
        study(frame, {"none": column}, seed=seed, attention="cos16") for seed, column in arm.items()
    ]
    row = row_of(build(cells), "cos16")
    labels = frame["label"]
    own = {seed: roc_auc_score(labels, np.float32(column)) for seed, column in arm.items()}
    assert row["seeds"] == 2
    assert row["auroc"] == pytest.approx(np.mean([own[2], own[3]]))
    assert row["delta"] == pytest.approx(own[2] - roc_auc_score(labels, np.float32(base[2])))


def test_the_baseline_is_of_the_same_length_protocol_and_training(study):
    frame = variants()
    cells = []
    for protocol in ("paired", "released"):
        for eval_bp in (1000, 8000):
            key = len(cells)
            rules = {"none": noisy(frame, 1, key), "logn": noisy(frame, 1, key + 20)}
            cells.append(study(frame, rules, protocol=protocol, eval_bp=eval_bp))
    table = build(cells)
    assert Counter(table["verdict"])["baseline"] == 4
    for _, group in table.groupby(["protocol", "eval_bp"]):
        base = group.set_index("rule")["auroc"]
        delta = group.set_index("rule")["delta"]
        assert delta["logn"] == pytest.approx(base["logn"] - base["none"], abs=1e-12)


def test_no_baseline_no_difference(study):
    frame = variants()
    row = row_of(build([study(frame, {"none": noisy(frame, 1, 1)}, attention="cos16")]), "cos16")
    assert math.isnan(row["delta"])
    assert math.isnan(row["delta_lo"])
    assert row["verdict"] == "unresolved"
    assert row["auroc_lo"] < row["auroc_hi"]


@pytest.mark.parametrize(
    ("flag", "auroc", "scores"),
    [
        ("constant_prediction", 0.5, lambda frame: np.full(len(frame), 0.3)),
        ("constant_prediction", 1.0, lambda frame: 0.3 + 1e-5 * frame["label"]),
        ("non_finite_score", math.nan, lambda frame: noisy(frame, 3, 1).where(frame.index > 0)),
        ("non_finite_score", math.nan, lambda frame: np.full(len(frame), np.inf)),
    ],
)
def test_a_broken_arm_gets_no_verdict_and_no_interval(study, flag, auroc, scores):
    frame = variants()
    broken, sound = scores(frame), noisy(frame, 1, 2)
    for rules in ({"none": sound, "logn": broken}, {"none": broken, "logn": sound}):
        table = build([study(frame, rules), study(frame, {"none": sound, "logn": sound}, seed=2)])
        name = "logn" if rules["logn"] is broken else "none"
        row = row_of(table, rule=name)
        expected = (auroc + roc_auc_score(frame["label"], np.float32(sound))) / 2
        assert row["flags"].split(";") == [flag]
        assert row["auroc"] == pytest.approx(expected, nan_ok=True)
        assert math.isnan(row["auroc_lo"])
        assert row_of(table, rule="none")["verdict"] == "baseline"
        other = row_of(table, rule="logn")
        assert other["verdict"] == "unresolved"
        assert math.isnan(other["delta_lo"])


def test_flags_of_the_training_are_passed_on(study):
    frame = variants()
    cells = [
        study(frame, {"none": noisy(frame, 1, 1)}, flags=["non_finite_loss"]),
        study(frame, {"none": noisy(frame, 1, 2)}, seed=2, flags=["not_converged"]),
        study(frame, {"none": noisy(frame, 1, 3)}, attention="cos16"),
    ]
    table = build(cells)
    assert row_of(table)["flags"] == "not_converged;non_finite_loss"
    assert row_of(table, "cos16")["flags"] == "single_seed"


def test_flags_of_a_rule_stand_on_its_rows_alone(study):
    """Equal scores too: multipliers that all are 1 may still miss their target."""
    frame = variants()
    scores = noisy(frame, 1, 1)
    rules = {"none": scores, "entropy-matched": scores}
    cells = [
        study(frame, rules, rule_flags={"entropy-matched": ["unmatched"]}),
        study(frame, rules, seed=2),
        study(frame, rules, eval_bp=2000, rule_flags={"entropy-matched": []}),
    ]
    table = build(cells)
    assert row_of(table, rule="none", eval_bp=1000)["flags"] == ""
    assert row_of(table, rule="entropy-matched", eval_bp=1000)["flags"] == "unmatched"
    assert row_of(table, rule="entropy-matched", eval_bp=2000)["flags"] == ""


def test_flags_of_the_task(study):
    small = variants(50, contigs=["chrM"], span=16_000)
    cells = [study(small, {"none": noisy(small, 1, 1), "logn": noisy(small, 9, 1)})]
    row = row_of(build(cells), rule="logn")
    assert row["flags"] == "few_of_class;few_blocks;single_chromosome"
    # All of chrM is one block of 1 Mb: nothing can be resampled, so nothing can be claimed.
    assert (row["blocks"], row["verdict"]) == (1, "unresolved")
    assert math.isnan(row["auroc_lo"])
    assert row["auroc"] > 0.9
    fine = row_of(build(cells, block_bp=500), rule="logn")
    assert fine["flags"] == "few_of_class;single_chromosome"
    assert fine["verdict"] == "better"


def test_one_class_only_has_no_auroc(study):
    frame = variants().assign(label=0)
    row = row_of(build([study(frame, {"none": noisy(frame, 1, 1)})]))
    assert math.isnan(row["auroc"])
    assert math.isnan(row["auroc_lo"])
    assert row["positives"] == 0
    assert row["flags"] == "few_of_class"


def test_tissues_of_a_variant_share_a_block(study):
    """Copying every row into more tissues adds rows, not evidence: the interval stays."""
    frame = variants()
    score = noisy(frame, 1, 1)
    copies = pd.concat([frame.assign(tissue=t, none=score) for t in ("Brain", "Liver", "Lung")])
    one = row_of(build([study(frame, {"none": score})]))
    many = row_of(build([study(copies[ROW_COLUMNS], {"none": copies["none"]})]))
    assert many["n"] == 3 * one["n"]
    for name in ("auroc", "auroc_lo", "auroc_hi"):
        assert many[name] == pytest.approx(one[name], abs=1e-12)


def test_ceiling_is_the_auroc_of_the_posterior_on_the_same_rows(study, tmp_path):
    frame = variants()
    cells = [study(frame, {"none": noisy(frame, 1, 1)}, eval_bp=bp) for bp in (1000, 8000)]
    cells.append(study(frame, {"none": noisy(frame, 1, 1)}, task="real"))
    others = variants(seed=3).assign(contig="chr7")
    truth = pd.concat([frame, others])[["contig", "pos", "ref", "alt"]]
    for bp, strength in ((1000, 1), (8000, 3)):
        both = pd.concat([noisy(frame, strength, bp), noisy(others, strength, bp + 1)])
        truth[f"posterior_{bp}"] = 1 / (1 + np.exp(-both))
    path = tmp_path / "truth.parquet"
    truth.sample(frac=1, random_state=1).to_parquet(path)
    table = build(cells, truths={"t": path})
    for bp in (1000, 8000):
        posterior = truth[f"posterior_{bp}"].iloc[: len(frame)]
        expected = roc_auc_score(frame["label"], posterior)
        assert row_of(table, task="t", eval_bp=bp)["ceiling"] == pytest.approx(expected, abs=1e-12)
    assert math.isnan(row_of(table, task="real")["ceiling"])

    truth.drop(columns="posterior_8000").to_parquet(path)
    with pytest.raises(LongscaleError, match=r"truth\.parquet: .*posterior_8000"):
        build(cells, truths={"t": path})
    truth.iloc[1:].to_parquet(path)
    with pytest.raises(LongscaleError, match="the truth must cover every test variant"):
        build(cells, truths={"t": path})
    pd.concat([truth, truth.iloc[:1]]).to_parquet(path)
    with pytest.raises(LongscaleError, match="one row for each"):
        build(cells, truths={"t": path})


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.iloc[1:],
        lambda frame: frame.assign(pos=frame["pos"] + 1),
        lambda frame: frame.assign(label=1 - frame["label"]),
        lambda frame: frame.assign(tissue="Liver"),
    ],
)
def test_other_variants_are_refused_with_both_files_named(study, change):
    frame = variants()
    other = change(frame)
    cells = [
        study(frame, {"none": noisy(frame, 1, 1)}),
        study(other, {"none": noisy(other, 1, 1)}, eval_bp=8000),
    ]
    with pytest.raises(LongscaleError, match=r"8000\.parquet and .*1000\.parquet: .*same variants"):
        build(cells)


def test_nothing_to_compare_is_refused(study):
    frame = variants()
    cell = study(frame, {"none": noisy(frame, 1, 1)})
    with pytest.raises(LongscaleError, match="two score files for the same cell"):
        build([cell, cell])
    with pytest.raises(LongscaleError, match="at least one is needed"):
        build([])
    empty = study(frame.iloc[:0], {"none": np.zeros(0)}, task="empty")
    with pytest.raises(LongscaleError, match="no rows"):
        build([empty])


def test_wide_table_puts_lengths_side_by_side_without_the_released_arms(study):
    frame = variants()
    cells = []
    for bp in (8000, 1000, 2000):
        rules = {"none": noisy(frame, 1, bp), "infoscale-released": noisy(frame, 1, bp + 1)}
        cells.append(study(frame, rules, eval_bp=bp))
    cells.append(study(frame, {"none": noisy(frame, 1, 4)}, attention="cos16", flags=["x"]))
    cells.append(study(frame, {"none": noisy(frame, 1, 5)}, attention="cos16-released"))
    cells.append(study(frame, {"none": noisy(frame, 1, 6)}, protocol="released"))
    table = build(cells)
    assert len(table) == 9
    wide = build_wide_table(table)
    arm = ["task", "protocol", "model", "train_bp", "attention", "rule"]
    assert list(wide.columns) == [*arm, "1000", "2000", "8000"]
    assert wide[["attention", "rule"]].to_numpy().tolist() == [["dot", "none"], ["cos16", "none"]]
    row = row_of(table, eval_bp=2000, protocol="paired")
    expected = f"{row['auroc']:.3f} [{row['auroc_lo']:.3f}, {row['auroc_hi']:.3f}]"
    assert wide.loc[0, "2000"] == expected
    assert wide.loc[1, "1000"].endswith("] *")
    assert wide.loc[1, "8000"] == ""


def test_written_table_reads_back(study, tmp_path):
    frame = variants()
    cells = [study(frame, {"none": noisy(frame, 1, 1)}, task="NA")]
    table = build(cells)
    write_table(table, tmp_path / "auroc.tsv")
    back = read_auroc_table(tmp_path / "auroc.tsv")
    pd.testing.assert_frame_equal(back, table, check_exact=False, atol=1e-6, check_dtype=False)
    assert back.loc[0, "task"] == "NA"
    write_table(table.drop(columns="flags"), tmp_path / "auroc.tsv")
    with pytest.raises(LongscaleError, match="column 'flags'"):
        read_auroc_table(tmp_path / "auroc.tsv")


def test_a_rule_is_also_compared_with_its_own_attention_without_one(study):
    frame = variants()
    cos = {"none": noisy(frame, 0.5, 5), "logn": noisy(frame, 3, 6)}
    cells = [
        study(frame, {"none": noisy(frame, 1, 1)}),
        study(frame, cos, attention="cos16"),
    ]
    table = build(cells)
    none, logn = row_of(table, "cos16"), row_of(table, "cos16", "logn")
    assert (none["rule_verdict"], none["rule_delta"]) == ("baseline", 0)
    assert logn["rule_delta"] == pytest.approx(logn["auroc"] - none["auroc"])
    assert logn["rule_verdict"] == "better"
    assert logn["rule_delta_lo"] < logn["rule_delta"] < logn["rule_delta_hi"]
    assert row_of(table)["rule_verdict"] == "baseline"
