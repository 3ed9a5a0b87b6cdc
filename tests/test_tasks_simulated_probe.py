"""Simulated probe tasks: what the generator says is in the sequence and in the labels."""

import ast
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from longscale.errors import LongscaleError
from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import convert_assembly
from longscale.genome.sequence import Genome
from longscale.tasks.gene_starts import read_gene_starts
from longscale.tasks.probe_rows import (
    read_rows,
    read_tss_distances,
    variant_rows,
    write_profile_labels,
)
from longscale.tasks.probe_tasks import EQTL_TSS_COLUMN, PROBE_TASKS
from longscale.tasks.simulated import Recipe
from longscale.tasks.simulated_probe import (
    ACCESSION,
    ANNOTATION,
    ProbeRecipe,
    Truth,
    best_prediction,
    ceiling_table,
    find_task,
    probe_tasks,
    simulate,
    write_simulation,
)
from longscale.training.probe import ProbeSettings, run_probe
from longscale.variants.accept import accept_variants
from longscale.variants.readers import read_variants

RECIPE = ROOT / "resources" / "simulated_probe.yaml"
SMALL = {"chromosomes": 3, "test_chromosomes": 1, "loci_per_chromosome": 12}
CONTEXTS = (64, 129, 160, 320, 640, 1279, 1280)
COMPLEMENT = str.maketrans("ACGT", "TGCA")


def read_all(folder, recipe):
    """Every task through the readers: rows, labels and truth."""
    report = AssemblyReport.read(folder / "sim" / f"{ACCESSION}_assembly_report.txt")
    convert_assembly(folder / "sim" / f"{ACCESSION}_genomic.fna.gz", report, folder / "g.fa")
    genome, found = Genome(folder / "g.fa"), {}
    starts = read_gene_starts(folder / "sim" / ANNOTATION)
    for name, task in probe_tasks(recipe).items():
        files = {key: folder / "sim" / path for key, path in task.files.items()}
        if task.kind == "variant":
            columns = {k: column for k, column in task.columns.items() if k != "tss_distance"}
            accepted = accept_variants(read_variants(files["rows"], columns), genome, {})
            assert accepted.rejected.empty
            distances = read_tss_distances(files["rows"], EQTL_TSS_COLUMN)
            rows = variant_rows(
                task, accepted.accepted, genome, context_bp=1280, tss_distances=distances
            )
        else:
            rows = read_rows(task, files, genome, {}, context_bp=1280, gene_starts=starts)
        labels = rows.labels
        if task.kind == "profile":
            write_profile_labels(task, rows.shard_rows, files["shards"], folder / "l.npy")
            labels = np.log1p(np.load(folder / "l.npy").astype(np.float64))
        truth = Truth.load(folder / "sim" / f"{name}.truth.npz")
        found[name] = SimpleNamespace(task=task, found=rows, labels=labels, truth=truth)
    return genome, starts, found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small simulation, written and read."""
    folder = tmp_path_factory.mktemp("small")
    recipe = ProbeRecipe.read(RECIPE, SMALL)
    write_simulation(recipe, folder / "sim")
    genome, starts, tasks = read_all(folder, recipe)
    return SimpleNamespace(folder=folder, recipe=recipe, genome=genome, starts=starts, tasks=tasks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The shipped recipe."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = ProbeRecipe.read(RECIPE)
    write_simulation(recipe, folder / "sim")
    return SimpleNamespace(recipe=recipe, tasks=read_all(folder, recipe)[2])


# --- files and sequence ---------------------------------------------------------------------------


def test_every_row_is_usable_and_every_kind_is_there(small):
    assert {task.task.kind for task in small.tasks.values()} == {
        "variant", "interval", "multilabel", "expression", "profile",
    }  # fmt: skip
    for one in small.tasks.values():
        assert one.found.rejected.empty
        assert len(one.found.rows) == len(one.truth.slots) == sum(one.task.rows)
        by_split = one.found.rows["split"].value_counts()
        assert by_split["test"] == one.task.rows[1]
        if one.task.test_chromosomes != "random":
            is_test = one.found.rows["contig"].isin(one.task.test_chromosomes)
            assert (is_test == (one.found.rows["split"] == "test")).all()


@pytest.mark.parametrize("context_bp", CONTEXTS)
def test_a_context_holds_an_element_if_and_only_if_its_slot_is_visible(small, context_bp):
    """By string search in the context as it is encoded, "-" reverse-complemented."""
    elements = list(small.recipe.elements.values())
    for one in small.tasks.values():
        rows, truth = one.found.rows, one.truth
        starts = rows["anchor"].to_numpy() - context_bp // 2
        windows = small.genome.gather(rows["contig"].array, starts, context_bp)
        visible = truth.visible(context_bp)
        for i, (window, row) in enumerate(zip(windows, rows.itertuples(), strict=True)):
            text = window.tobytes().decode()
            if row.strand == "-":
                text = text.translate(COMPLEMENT)[::-1]
            for index, element in enumerate(elements):
                expected = ((truth.slots[i] == index) & visible[i]).sum()
                assert text.count(element) == expected


def test_elements_stand_where_the_offsets_say_on_both_strands(small):
    one = small.tasks["sim_rna"]
    assert set(one.found.rows["strand"]) == {"+", "-"}
    for row, slots in zip(one.found.rows.itertuples(), one.truth.slots, strict=True):
        # Mirrored as an encoder mirrors places: the context's last base comes first.
        start = row.anchor - 1000
        text = small.genome.fetch(row.contig, start, start + 2000).tobytes().decode()
        tss = row.anchor - start
        if row.strand == "-":
            text, tss = text.translate(COMPLEMENT)[::-1], 1999 - tss
        for offset, held in zip(one.truth.offsets, slots, strict=True):
            if held >= 0:
                element = list(small.recipe.elements.values())[held]
                assert text[tss + offset : tss + offset + len(element)] == element


def test_a_variant_hits_its_site_or_stands_beside_it(small):
    one = small.tasks["sim_eqtl"]
    for row, hit in zip(one.found.rows.itertuples(), one.truth.hit, strict=True):
        start = row.anchor - 32
        text = small.genome.fetch(row.contig, start, start + 64).tobytes().decode()
        at = text.index(small.recipe.site)
        assert (at <= 32 < at + len(small.recipe.site)) == hit
        assert text[32] == row.ref != row.alt


def test_pools_show_every_slot(small):
    for one in small.tasks.values():
        rows, truth = one.found.rows, one.truth
        for row, slots in zip(rows.itertuples(), truth.slots, strict=True):
            first = truth.offsets[np.flatnonzero(slots >= 0)]
            places = row.anchor + (1 - first - 16 if row.strand == "-" else first)
            assert (places >= row.pool_start).all()
            assert (places + 16 <= row.pool_stop).all()


def test_distances_in_the_file_are_those_to_the_annotation(small):
    rows = small.tasks["sim_eqtl"].found.rows
    expected = [np.abs(small.starts[row.contig] - row.anchor).min() for row in rows.itertuples()]
    assert rows["tss_distance"].tolist() == expected
    assert (small.tasks["sim_rna"].found.rows["tss_distance"] == 0).all()


# --- what can be predicted ------------------------------------------------------------------------


def fillings(truth, row, context_bp):
    """Every way to fill the slots that a context hides: (slots, probability)."""
    hidden = np.flatnonzero(~truth.visible(context_bp)[row])
    shares = [1 - truth.rates.sum(), *truth.rates]
    for held in product(range(-1, len(truth.rates)), repeat=len(hidden)):
        slots = truth.slots[row].copy()
        slots[hidden] = held
        yield slots, np.prod([shares[h + 1] for h in held])


def expected_by_hand(truth, row, context_bp, with_tissue):
    """The mean over all fillings, each of which decides the labels; (bins, outputs)."""
    total = 0.0
    for slots, probability in fillings(truth, row, context_bp):
        if truth.penetrance:
            there = [any(slots == e) for e in range(len(truth.rates))]
            value = [
                [float(truth.hit[row] and any(there * (truth.weights[:, o] > 0)))
                 for o in range(truth.weights.shape[1])]
            ]  # fmt: skip
            value = np.where(np.array(value) > 0, truth.penetrance, 1 - truth.penetrance)
            if truth.tissue[row] >= 0:
                value = value[:, [truth.tissue[row]]] if with_tissue else value.mean(keepdims=True)
        else:
            value = np.zeros((truth.kernel.shape[1], truth.weights.shape[1]))
            for s, held in enumerate(slots):
                if held >= 0:
                    value += truth.kernel[s][:, None] * truth.weights[held]
            value = (value - truth.base) / truth.scale
        total = total + probability * value
    return total


@pytest.mark.parametrize(
    ("name", "context_bp"),
    [("sim_eqtl", 150), ("sim_eqtl", 224), ("sim_interval", 100), ("sim_multilabel", 130),
     ("sim_rna", 600), ("sim_rna", 1280), ("sim_cage", 1160), ("sim_cage", 1280)],
)  # fmt: skip
def test_the_best_prediction_is_the_mean_over_all_that_may_be_hidden(small, name, context_bp):
    truth = small.tasks[name].truth
    for with_tissue in (True, False):
        found = best_prediction(truth, context_bp, with_tissue=with_tissue)
        for row in range(6):
            if (~truth.visible(context_bp)[row]).sum() <= 5:
                expected = expected_by_hand(truth, row, context_bp, with_tissue)
                assert np.allclose(found[row], expected, atol=1e-12)
    assert (~truth.visible(context_bp)).sum(axis=1).min() <= 5


def test_a_ceiling_is_the_best_prediction_of_the_test_rows(small):
    for one in small.tasks.values():
        rows, names = one.found.rows, one.found.names
        shuffled = rows.iloc[::-1]  # rows are found by their line, not by their order
        table = ceiling_table(one.truth, shuffled, names, 256)
        best = best_prediction(one.truth, 256)
        test = rows.index[rows["split"] == "test"]
        assert len(table) == len(test) * one.task.bins
        for line in table.sample(min(len(table), 50), random_state=1).itertuples(index=False):
            of_row = best[line.row][getattr(line, "bin", 0)]
            assert list(line)[-len(names) :] == of_row.tolist()
        assert set(table["row"]) == set(test)
        assert ("bin" in table) == (one.task.kind == "profile")


def test_a_task_is_found_by_its_name(small):
    assert find_task("bulk_rna_expression") is PROBE_TASKS["bulk_rna_expression"]
    assert find_task("sim_rna", RECIPE, SMALL) == small.tasks["sim_rna"].task


def test_labels_follow_the_truth_as_often_as_the_penetrance_says(whole):
    for name in ("sim_eqtl", "sim_interval", "sim_multilabel"):
        one = whole.tasks[name]
        shown = best_prediction(one.truth, 1280)[:, 0]
        agree = (shown > 0.5) == (one.labels > 0.5)
        p = one.truth.penetrance
        assert abs(agree.mean() - p) < 4 * np.sqrt(p * (1 - p) / agree.size), name


def test_a_model_that_is_not_told_the_tissue_cannot_reach_the_ceiling(whole):
    one = whole.tasks["sim_eqtl"]
    test = (one.found.rows["split"] == "test").to_numpy()
    told, untold = (
        [
            roc_auc_score(
                one.labels[test, 0], best_prediction(one.truth, bp, with_tissue=tissue)[test, 0, 0]
            )
            for bp in (320, 1280)
        ]
        for tissue in (True, False)
    )
    assert 0.9 < min(told) <= max(told) < 1
    assert max(untold) < min(told) - 0.1
    # The same variant has both labels: what the tissue is needed for.
    by_variant = pd.Series(one.labels[:, 0]).groupby(np.arange(len(one.labels)) // 3).nunique()
    assert (by_variant > 1).mean() > 0.4


@pytest.mark.parametrize("name", ["sim_rna", "sim_cage"])
def test_values_are_linear_in_what_stands_there_plus_the_noise_of_the_recipe(whole, name):
    """Least squares on counts knows nothing of the weights and leaves the same noise."""
    one = whole.tasks[name]
    noise = whole.recipe.tasks[name].noise
    labels = one.labels.reshape(len(one.labels), -1, one.task.outputs)
    signal = best_prediction(one.truth, 1280)
    assert np.abs((labels - signal).mean()) < 0.05
    share = (labels - signal).var(axis=(0, 1)) / signal.var(axis=(0, 1))
    assert np.allclose(share, noise**2, rtol=0.25)
    held = np.stack([(one.truth.slots == e) for e in range(len(one.truth.rates))], axis=2)
    counts = np.einsum("nse,sb->nbe", held, one.truth.kernel)
    design = np.concatenate([counts, np.ones((*counts.shape[:2], 1))], axis=2)
    flat = design.reshape(-1, design.shape[2])
    fitted = flat @ np.linalg.lstsq(flat, labels.reshape(len(flat), -1), rcond=None)[0]
    assert np.allclose(fitted.reshape(signal.shape), signal, atol=0.3 * labels.std())


def test_attainable_correlations_rise_with_the_context(whole):
    one = whole.tasks["sim_rna"]
    test = (one.found.rows["split"] == "test").to_numpy()
    means = []
    for context_bp in (160, 320, 640, 1280):
        signal = best_prediction(one.truth, context_bp)[test, 0]
        pairs = zip(one.labels[test].T, signal.T, strict=True)
        means.append(np.mean([spearmanr(*pair).statistic for pair in pairs]))
    assert means == sorted(means)
    assert 0.7 < means[-1] < 0.95
    standardised = one.labels.astype(float)
    assert np.allclose(standardised.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(standardised.std(axis=0), 1, atol=1e-5)


def test_a_profile_decays_over_neighbouring_bins(small):
    one, recipe = small.tasks["sim_cage"], small.recipe.tasks["sim_cage"]
    assert recipe.bins == one.task.bins == 10
    alone = replace(one.truth, slots=np.full_like(one.truth.slots, -1), base=0 * one.truth.base)
    alone.slots[0, np.flatnonzero(one.truth.offsets == -640 + 3 * 128)] = 1
    signal = best_prediction(alone, 1280)[0]
    for distance in range(7):
        assert np.allclose(signal[3 + distance], 0.4**distance * one.truth.weights[1])
    assert np.allclose(signal[2], signal[4])


# --- the recipe -----------------------------------------------------------------------------------


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    write_simulation(small.recipe, tmp_path / "again")
    write_simulation(replace(small.recipe, seed=5), tmp_path / "other")
    files = [path for path in (small.folder / "sim").rglob("*") if path.is_file()]
    # Assembly and annotation; truth and rows; values, shards and names of the regressions.
    assert len(files) == 4 + 2 * 5 + (1 + 3 + 2)
    for path in files:
        name = path.relative_to(small.folder / "sim")
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes(), name
    fasta = f"{ACCESSION}_genomic.fna.gz"
    assert (tmp_path / "other" / fasta).read_bytes() != (small.folder / "sim" / fasta).read_bytes()


def test_known_elements_are_those_of_the_first_simulation(small):
    first = Recipe.read(ROOT / "resources" / "simulated.yaml").elements
    assert small.recipe.site == first["site"]
    assert [small.recipe.elements[key] for key in "ab"] == [first["partner"], first["decoy"]]


def test_both_labels_are_in_train_and_test(whole):
    for name in ("sim_eqtl", "sim_interval", "sim_multilabel"):
        one = whole.tasks[name]
        assert 200 <= len(one.labels) <= 1000
        for split in ("train", "test"):
            labels = one.labels[(one.found.rows["split"] == split).to_numpy()]
            assert (np.abs(labels.mean(axis=0) - 0.5) < 0.25).all(), (name, split)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"site": None, "elements": {"a": "ACGT", "b": "ACG", "c": "ACGT"}}, "differ in length"),
        ({"tasks.sim_eqtl.kind": "other"}, "tasks.sim_eqtl.kind is 'other'"),
        ({"tasks.sim_rna.rates": {"a": 0.1}}, "tasks.sim_rna.rates name a"),
        ({"tasks.sim_rna.rates": {"a": 0.5, "b": 0.5, "c": 0.5}}, "shares of 1"),
        ({"tasks.sim_cage.slots_bp": [-600, 600]}, "multiple of 256"),
        ({"tasks.sim_interval.outputs": {"label": "z"}}, "elements other than"),
        ({"tasks.sim_rna.tissues": 0}, "have tissues"),
        ({"tasks.sim_interval.penetrance": 1.5}, "from 0 to 1"),
        ({"assembly.locus_bp": 1000}, "at least 1312"),
        ({"tasks.sim_rna.colour": 1}, "not a recipe"),
    ],
)
def test_a_bad_recipe_is_one_sentence(tmp_path, change, sentence):
    raw = yaml.safe_load(RECIPE.read_text())
    for key, value in change.items():
        *parents, last = key.split(".")
        place = raw
        for parent in parents:
            place = place[parent]
        place[last] = value
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(LongscaleError, match=sentence):
        ProbeRecipe.read(tmp_path / "r.yaml")
    with pytest.raises(LongscaleError, match="no key 'colour'"):
        ProbeRecipe.read(RECIPE, {"colour": 1})


def test_lists_of_labels_are_written_as_in_the_benchmark(small):
    table = pd.read_csv(small.folder / "sim" / "sim_multilabel" / "rows.csv")
    assert [ast.literal_eval(text) for text in table["HISTONES"]] == (
        small.tasks["sim_multilabel"].labels.tolist()
    )


def test_loci_lie_apart(small):
    _, loci = simulate(small.recipe)
    places = pd.concat(
        [pd.DataFrame({"contig": one.contig, "anchor": one.anchor}) for one in loci.values()]
    ).sort_values(["contig", "anchor"])
    gaps = places.groupby("contig")["anchor"].diff().dropna()
    assert gaps.min() == small.recipe.assembly["locus_bp"]


# --- probes ---------------------------------------------------------------------------------------


class Features:
    """Made-up embeddings: what a model would know that has read every element."""

    def __init__(self, values):
        self.values = values.astype(np.float16)
        self.rows, self.pieces, self.width = values.shape

    def read(self, numbers):
        return self.values[numbers]


def elements_as_features(one):
    """Of each row and piece: counts of the elements, and whether the allele is the one that hits,
    seen through a random matrix."""
    held = np.stack([(one.truth.slots == e) for e in range(len(one.truth.rates))], axis=2)
    counts = np.einsum("nse,sb->nbe", held.astype(float), one.truth.kernel)
    if one.task.kind == "variant":
        hits = np.stack([np.zeros(len(counts)), one.truth.hit], axis=1)[:, :, None]
        counts = np.concatenate([np.repeat(counts, 2, axis=1), hits], axis=2)
    mixed = np.random.default_rng(0).normal(size=(counts.shape[2], 24))
    return Features(counts @ mixed)


def score(task, labels, predicted):
    """AUROC, or the mean correlation over outputs."""
    if task.kind in ("expression", "profile"):
        pairs = zip(labels.T, predicted.T, strict=True)
        return np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs])
    return np.mean([roc_auc_score(y, p) for y, p in zip(labels.T, predicted.T, strict=True)])


@pytest.mark.parametrize(
    "name", ["sim_eqtl", "sim_interval", "sim_multilabel", "sim_rna", "sim_cage"]
)
def test_a_probe_of_a_model_that_reads_every_element_reaches_the_ceiling(whole, tmp_path, name):
    one = whole.tasks[name]
    settings = ProbeSettings(epochs=40, learning_rate=3e-3, batch=64, folds=2)
    labels = np.expm1(one.labels) if one.task.log1p else one.labels
    run_probe(
        one.found.rows, elements_as_features(one), labels.astype(np.float32), tmp_path,
        kind=one.task.kind, outputs=one.found.names, context_bp=1280, log1p=one.task.log1p,
        settings=settings,
    )  # fmt: skip
    frame = pd.read_parquet(tmp_path / "predictions.parquet")
    best = best_prediction(one.truth, 1280)
    own = one.labels.reshape(best.shape)
    at = (frame["row"], frame.get("bin", 0))
    ceiling = score(one.task, own[at], best[at])
    for fold in range(2):
        columns = [f"fold{fold}:{output}" for output in one.found.names]
        reached = score(one.task, own[at], frame[columns].to_numpy())
        chance = 0 if one.task.kind in ("expression", "profile") else 0.5
        print(name, fold, reached, ceiling)
        assert reached - chance > 0.95 * (ceiling - chance)
