"""Figures of the masked-LM branch: which there are, what they show, that nothing overlaps."""

import itertools
import math
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from longscale.evaluation.cosine_peaks import theory_mean, theory_mode
from longscale.evaluation.mlm_records import COSINE_COLUMNS
from longscale.evaluation.mlm_table import MLM_TABLE_COLUMNS
from longscale.report.mlm_plots import (
    draw_attention_maps,
    draw_cosine_peaks,
    draw_entropy,
    draw_length_curves,
    draw_loss_curves,
    draw_rule_gain,
    draw_scheme_curves,
    plot_attention_maps,
    plot_cosine_peaks,
    plot_entropy,
    plot_length_curves,
    plot_loss_curves,
    plot_rule_gain,
    plot_scheme_curves,
    select_mlm_figures,
    sort_names,
)

RULES = ["none", "infoscale", "logn", "sqrtlogn", "yarn-temperature", "critscale"]
FREE = ["rope", "pi", "ntk", "self-extend"]


def mlm_table(
    *,
    corpora=("pydoc",),
    protocols=("fixed-target",),
    attentions=("dot", "cos16"),
    free=FREE,
    trained=("alibi", "pi"),
    rules=RULES,
    train_lengths=(64,),
    lengths=(64, 256, 1024, 4096),
) -> pd.DataFrame:
    """A plausible table, each accuracy in it another number."""
    schemes = [("rope", scheme) for scheme in free] + [(scheme, scheme) for scheme in trained]
    arms = itertools.product(corpora, protocols, train_lengths, attentions, schemes, rules, lengths)
    rows = []
    for index, arm in enumerate(arms):
        corpus, protocol, train_length, attention, (trained_scheme, scheme), rule, length = arm
        accuracy = 0.8 - 0.1 * math.log2(max(1, length / train_length)) + 1e-4 * index
        rows.append(
            dict.fromkeys(MLM_TABLE_COLUMNS, 0.5)
            | {
                "corpus": corpus,
                "model": "small",
                "train_length": train_length,
                "protocol": protocol,
                "attention": attention,
                "scheme": scheme,
                "rule": rule,
                "length": length,
                "seeds": 3,
                "documents": 12,
                "n": 384,
                "accuracy": accuracy,
                "accuracy_lo": accuracy - 0.03,
                "accuracy_hi": accuracy + 0.03,
                "verdict": "unresolved",
                "trained": scheme == trained_scheme,
                "trained_scheme": trained_scheme,
                "flags": "",
            }
        )
    return pd.DataFrame(rows)


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def panel(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return axes


def drawn(axes):
    """The heights of every line that has more than two points."""
    lines = [tuple(map(float, line.get_ydata())) for line in axes.lines]
    return [line for line in lines if len(line) > 2]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def one_scheme(table, **where):
    for name, value in where.items():
        table = table[table[name] == value]
    return tuple(table.sort_values("length")["accuracy"])


def test_one_figure_per_corpus_model_and_protocol_without_released_arms():
    table = mlm_table(
        corpora=("pydoc", "books"),
        protocols=("fixed-target", "released"),
        attentions=("dot", "cos16-released"),
        free=("rope", "pi-released"),
        trained=(),
        rules=("none", "infoscale-released"),
    )
    figures = dict(select_mlm_figures(table))
    assert list(figures) == [
        f"{corpus}.small.{protocol}"
        for corpus in ("books", "pydoc")
        for protocol in ("fixed-target", "released")
    ]
    for rows in figures.values():
        found = rows[["attention", "scheme", "rule"]].drop_duplicates()
        assert found.to_numpy().tolist() == [["dot", "rope", "none"]]


@pytest.mark.parametrize("plot", [plot_length_curves, plot_scheme_curves, plot_rule_gain])
def test_files_are_whole_and_the_same_again(plot, tmp_path):
    table = mlm_table(rules=RULES[:2])
    paths = plot(table, tmp_path / "one")
    assert [path.name for path in paths] == [
        "pydoc.small.fixed-target.svg",
        "pydoc.small.fixed-target.png",
    ]
    assert ET.parse(paths[0]).getroot().tag.endswith("svg")
    assert imread(paths[1]).std() > 0
    shuffled = plot(table.sample(frac=1, random_state=1), tmp_path / "two")
    for first, second in zip(paths, shuffled, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.rglob("*.*"))) == 4
    assert plot(table.iloc[:0], tmp_path / "none") == []


def test_length_curves_show_every_rule_of_every_attention_on_rope():
    table = mlm_table(trained=(), free=("rope",), train_lengths=(64, 256))
    figure = draw_length_curves(table)
    assert titles(figure) == [
        f"{attention}, trained at {length}"
        for length in (64, 256)
        for attention in ("dot", "cos16")
    ]
    for length, attention in itertools.product((64, 256), ("dot", "cos16")):
        axes = panel(figure, f"{attention}, trained at {length}")
        for rule in RULES:
            expected = one_scheme(table, train_length=length, attention=attention, rule=rule)
            assert expected in drawn(axes)
        assert len(axes.collections) == len(RULES)  # the bands
        (training,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert training.get_xdata() == [math.log2(length)] * 2
    lines = dict(zip(legend(figure), figure.legends[0].get_lines(), strict=True))
    assert list(lines) == [*RULES, "training length"]
    assert len({lines[rule].get_color() for rule in RULES}) == len(RULES)
    heading = figure.get_suptitle()
    assert "pydoc: small, fixed-target protocol" in heading
    assert "384 masked tokens of 12 documents, mean of 3 seeds" in heading


def test_length_curves_leave_other_schemes_out(tmp_path):
    only_others = mlm_table(free=("pi",), trained=("alibi",))
    assert plot_length_curves(only_others, tmp_path) == []


def test_a_flagged_point_is_hollow_and_one_that_cannot_run_is_absent():
    table = mlm_table(attentions=("dot",), free=("rope",), trained=(), rules=("none",))
    table.loc[1, "flags"] = "single_seed;unmatched"
    table.loc[2, "flags"] = "few_documents"
    table.loc[3, ["accuracy", "accuracy_lo", "accuracy_hi"]] = math.nan
    table.loc[3, ["n", "seeds", "documents", "flags"]] = [0, 0, 0, "cannot_run"]
    figure = draw_length_curves(table)
    figure.canvas.draw()
    faces = {
        line.get_markerfacecolor(): line.get_ydata().tolist()
        for line in figure.axes[0].lines
        if line.get_marker() == "o" and line.get_linestyle() == "None"
    }
    assert faces["white"][0] == table.loc[1, "accuracy"]
    assert math.isnan(faces["white"][1])
    assert faces["black"] == table.loc[[0, 2], "accuracy"].tolist()
    assert legend(figure)[-1] == "flagged"
    assert "384 masked tokens of 12 documents" in figure.get_suptitle()


def test_scheme_curves_keep_training_free_and_trained_in_apart():
    table = mlm_table(attentions=("dot",), rules=("none", "infoscale"))
    figure = draw_scheme_curves(table)
    assert titles(figure) == [
        "rope",
        *FREE[1:],
        "alibi, trained in",
        "pi, trained in",
    ]
    reference = one_scheme(table, scheme="rope", rule="none")
    for title, trained_scheme in [("pi", "rope"), ("pi, trained in", "pi")]:
        axes = panel(figure, title)
        where = {"scheme": "pi", "trained_scheme": trained_scheme}
        solid, dashed = (one_scheme(table, **where, rule=rule) for rule in ("none", "infoscale"))
        lines = [line for line in axes.lines if line.get_linestyle() != "None"]
        found = {tuple(line.get_ydata()): line for line in lines}
        assert found[reference].get_color() == "black"
        assert found[dashed].get_linestyle() == "--"
        assert found[solid].get_color() == found[dashed].get_color()
        # The others of the group, and none of the other group, stand behind it in grey.
        grey = [values for values, line in found.items() if line.get_color() == "#cccccc"]
        others = ["alibi"] if trained_scheme == "pi" else ["rope", "ntk", "self-extend"]
        assert set(grey) == {one_scheme(table, scheme=scheme, rule="none") for scheme in others} - {
            reference
        }
    assert panel(figure, "alibi, trained in").get_subplotspec().colspan.start == 0


def test_rule_gain_is_the_longest_length_in_numbers_and_marks(tmp_path):
    table = mlm_table(attentions=("cos16", "dot"))
    at = table[table["length"] == 4096].index
    baseline = at[(table.loc[at, ["attention", "trained_scheme", "scheme", "rule"]] == [
        "dot", "rope", "rope", "none"
    ]).all(axis=1)]  # fmt: skip
    table.loc[baseline, "verdict"] = "baseline"
    better, worse, flagged, absent = at[:4]
    table.loc[better, "verdict"] = "better"
    table.loc[worse, "verdict"] = "worse"
    table.loc[flagged, "flags"] = "not_converged"
    table.loc[absent, ["n", "accuracy"]] = [0, math.nan]
    figure = draw_rule_gain(table.loc[at])
    assert sorted(titles(figure)) == ["cos16, trained at 64", "dot, trained at 64"]
    cos = panel(figure, "cos16, trained at 64")
    assert [label.get_text() for label in cos.get_yticklabels()] == [
        *FREE,
        "alibi (trained in)",
        "pi (trained in)",
    ]
    columns = [label.get_text() for label in cos.get_xticklabels()]
    assert columns == sort_names(table["rule"])
    shown = {text.get_position(): text.get_text() for text in cos.texts}
    assert len(shown) == 6 * len(RULES)
    accuracy = {mark: f"{table.loc[mark, 'accuracy']:.2f}" for mark in (better, worse, flagged)}
    for mark, text in [
        (better, accuracy[better] + "▲"),
        (worse, accuracy[worse] + "▼"),
        (flagged, accuracy[flagged] + "*"),
        (absent, "–"),
    ]:
        assert shown[columns.index(table.loc[mark, "rule"]), 0] == text
    frames = {axes.get_title(loc="left"): len(axes.patches) for axes in figure.axes[:2]}
    assert frames == {"dot, trained at 64": 1, "cos16, trained at 64": 0}
    (path, _) = plot_rule_gain(table, tmp_path)
    assert path.exists()


@pytest.fixture
def histories():
    runs = itertools.product(("dot", "cos16"), ("rope", "alibi"), (1, 2), range(0, 100, 10))
    frame = pd.DataFrame(runs, columns=["attention", "scheme", "seed", "step"])
    losses = 5 * np.exp(-frame["step"] / 30) + frame.index / 1000
    on_dev = frame["step"] % 30 == 20
    return frame.assign(loss=losses.mask(on_dev), dev_loss=(losses + 0.1).where(on_dev))


@pytest.fixture
def entropies():
    frame = pd.DataFrame(
        itertools.product(range(5), RULES[:3], (64, 256, 1024), (1, 2)),
        columns=["layer", "rule", "length", "seed"],
    )
    return frame.assign(entropy=2 + frame["layer"] / 10 + np.log(frame["length"] / 64) / 2)


@pytest.fixture
def peaks():
    rows = itertools.product((8.0, 16.0, 64.0), range(4))
    numbers = [(alpha, layer, 0.0, 0.2, 0.1, alpha / 100, alpha / 110) for alpha, layer in rows]
    return pd.DataFrame(numbers, columns=COSINE_COLUMNS)


def test_the_other_figures_are_whole_and_the_same_again(histories, entropies, peaks, tmp_path):
    maps = dict.fromkeys(("before", "after"), np.eye(4)[None])
    for plot, *arguments in [
        (plot_loss_curves, histories),
        (plot_entropy, entropies, 64),
        (plot_cosine_peaks, peaks),
        (plot_attention_maps, maps),
    ]:
        first, *others = arguments
        name = plot.__name__
        one, two = (plot(first, tmp_path / run / f"{name}.svg", *others) for run in "ab")
        assert [path.name for path in one] == [f"{name}.svg", f"{name}.png"]
        assert ET.parse(one[0]).getroot().tag.endswith("svg")
        assert imread(one[1]).std() > 0
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_loss_curves_hold_a_line_per_training(histories):
    figure = draw_loss_curves(histories, "pydoc: small")
    assert titles(figure) == ["trained with rope", "trained with alibi"]
    for scheme in ("rope", "alibi"):
        lines = drawn(panel(figure, f"trained with {scheme}"))
        runs = histories[histories["scheme"] == scheme].groupby(["attention", "seed"])
        curves = [tuple(run[kind].dropna()) for _, run in runs for kind in ("loss", "dev_loss")]
        assert sorted(lines) == sorted(curves)
    assert legend(figure) == ["dot", "cos16"]
    assert figure.get_suptitle().endswith("a line per training, 2 seeds; points: development text")


def test_entropy_has_a_panel_per_layer_and_the_training_lengths_value(entropies):
    # Seeds are averaged.
    entropies.loc[entropies["seed"] == 2, "entropy"] += 0.5
    figure = draw_entropy(entropies, 64)
    assert titles(figure) == [f"layer {layer}" for layer in range(5)]
    for layer in range(5):
        axes = panel(figure, f"layer {layer}")
        expected = 2.25 + layer / 10 + np.log([1, 4, 16]) / 2
        for line in drawn(axes):
            assert line == pytest.approx(expected)
        assert len(drawn(axes)) == 3
        (level,) = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert level.get_ydata() == pytest.approx([expected[0]] * 2)
    assert legend(figure) == [*RULES[:3], "training length", "entropy there"]


def test_cosine_peaks_show_theory_and_every_layer(peaks):
    peaks["theory_mode"] = [theory_mode(alpha, 128) for alpha in peaks["alpha"]]
    of_dot = peaks.iloc[:3].assign(alpha=math.nan, theory_mode=math.nan, theory_mean=math.nan)
    figure = draw_cosine_peaks(pd.concat([of_dot, peaks]))
    mode, mean = figure.axes[:2]
    for axes, theory in ((mode, theory_mode), (mean, theory_mean)):
        (line,) = axes.lines
        curve = dict(zip(np.round(line.get_xdata(), 6), line.get_ydata(), strict=True))
        for alpha in (8, 16, 64, 256):
            assert curve[math.log2(alpha)] == pytest.approx(theory(alpha, 128))
    measured = [points.get_offsets().data for points in (*mode.collections, *mean.collections)]
    assert [points.shape for points in measured] == [(12, 2)] * 3
    assert [set(points[:, 1]) for points in measured] == [{0.0}, {0.2}, {0.1}]
    assert np.abs(measured[0][:, 0] - np.log2(peaks["alpha"])).max() < 0.5


@pytest.mark.parametrize("layers", [1, 5, 7, 13])
def test_attention_maps_hold_every_layer_before_and_after(layers):
    maps = dict(zip(("before", "after"), np.random.default_rng(1).normal(size=(2, layers, 8, 8)),
                    strict=True))  # fmt: skip
    figure = draw_attention_maps(maps)
    assert sorted(titles(figure)) == sorted(
        f"layer {layer}, {when}" for layer in range(layers) for when in maps
    )
    for layer in range(layers):
        for when in maps:
            (image,) = panel(figure, f"layer {layer}, {when}").images
            np.testing.assert_array_equal(image.get_array(), maps[when][layer])
            low, high = image.get_clim()
            assert low == -high == -np.abs(maps[when][layer]).max()


def test_maps_without_negative_values_use_all_colours():
    maps = {"before": 3 + np.eye(4)[None], "after": np.eye(4)[None]}
    figure = draw_attention_maps(maps)
    assert [panel(figure, f"layer 0, {when}").images[0].get_clim() for when in maps] == [
        (3, 4),
        (0, 1),
    ]


@pytest.mark.parametrize(
    ("draw", "where"),
    [
        (draw_length_curves, {"free": ("rope",), "trained": ()}),
        (
            draw_length_curves,
            {
                "free": ("rope",),
                "trained": (),
                "attentions": ("dot", "cos8", "cos16", "cos-matched"),
                "lengths": (64, 128, 256, 512, 1024, 2048, 4096),
            },
        ),
        (draw_scheme_curves, {"attentions": ("dot",), "rules": ("none", "infoscale")}),
        (
            draw_scheme_curves,
            {
                "attentions": ("dot",),
                "rules": ("none",),
                "train_lengths": (64, 256),
                "free": ("rope", "streamingllm", "leaky-rerope", "lm-infinite", "pi"),
                "trained": ("alibi", "pose", "randpos"),
            },
        ),
        (draw_rule_gain, {"lengths": (4096,), "attentions": ("dot", "cos8", "cos-matched")}),
        (draw_rule_gain, {"lengths": (4096,), "attentions": ("dot",), "rules": ("none",)}),
    ],
)
def test_nothing_overlaps_and_nothing_is_cut_off(draw, where):
    figure = draw(mlm_table(**where))
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    parts = [axes.get_tightbbox(renderer) for axes in shown]
    parts += [one.get_window_extent(renderer) for one in figure.legends]
    parts.append(figure._suptitle.get_window_extent(renderer))
    if figure._supxlabel is not None:
        parts.append(figure._supxlabel.get_window_extent(renderer))
    for one, other in itertools.combinations(parts, 2):
        assert not one.overlaps(other)
    for part in parts:
        assert -0.5 <= part.x0 < part.x1 <= figure.bbox.width + 0.5
        assert -0.5 <= part.y0 < part.y1 <= figure.bbox.height + 0.5


@pytest.mark.parametrize("draw", [draw_length_curves, draw_scheme_curves, draw_rule_gain])
def test_a_study_in_which_nothing_could_run_is_no_error(draw):
    table = mlm_table(attentions=("dot",), free=("rope",), trained=(), lengths=(64,))
    numbers = ["accuracy", "accuracy_lo", "accuracy_hi"]
    figure = draw(
        table[table["rule"].isin(RULES[:2])].assign(**dict.fromkeys(numbers, math.nan), n=0)
    )
    figure.canvas.draw()
    assert "no masked tokens" in figure.get_suptitle()
