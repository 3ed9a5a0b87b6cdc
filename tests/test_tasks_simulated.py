"""The positive control: what the generator says of its loci is what stands in the sequence."""

import copy
import gzip
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from longscale.errors import LongscaleError
from longscale.files import checksum
from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import convert_assembly
from longscale.genome.download import published_md5
from longscale.genome.sequence import Genome
from longscale.tasks.simulated import (
    ACCESSION,
    Recipe,
    draw_background,
    is_visible,
    posterior,
    simulate,
    truth_table,
    variant_table,
    write_simulation,
)
from longscale.variants.accept import accept_variants
from longscale.variants.readers import read_variants
from longscale.variants.windows import gather_windows, has_window

RECIPE = ROOT / "resources" / "simulated.yaml"
SMALL = {"chromosomes": 3, "test_chromosomes": 1, "loci_per_chromosome": 230}
LENGTHS = (160, 320, 640, 1280)
COLUMNS = {
    "contig": "CHROM",
    "pos": "POS",
    "ref": "REF",
    "alt": "ALT",
    "label": "INT_LABEL",
    "split": "split",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small simulation on disk, converted, with all its tables."""
    folder = tmp_path_factory.mktemp("simulation")
    recipe = Recipe.read(RECIPE, SMALL)
    write_simulation(recipe, folder / "sim")
    report = AssemblyReport.read(folder / "sim" / f"{ACCESSION}_assembly_report.txt")
    fasta_gz = folder / "sim" / f"{ACCESSION}_genomic.fna.gz"
    contigs = convert_assembly(fasta_gz, report, folder / "g.fa")
    truths = {t: pd.read_parquet(folder / "sim" / f"{t}.truth.parquet") for t in recipe.tasks}
    return SimpleNamespace(
        folder=folder / "sim",
        recipe=recipe,
        report=report,
        contigs=contigs,
        fasta=folder / "g.fa",
        genome=Genome(folder / "g.fa"),
        truths=truths,
    )


@pytest.fixture(scope="module")
def whole():
    """All loci of the shipped recipe: (truth, labels, is a test variant) per task."""
    recipe = Recipe.read(RECIPE)
    tables = {}
    _, loci = simulate(recipe)
    for name, task in recipe.tasks.items():
        own = [locus for locus in loci if locus.task == name]
        labels = np.array([locus.label for locus in own])
        test = np.array([locus.split == "test" for locus in own])
        tables[name] = truth_table(own, task, len(recipe.elements["partner"])), labels, test
    return recipe, tables


# --- what stands in the sequence --------------------------------------------------------------


def texts(genome, truth, window_bp):
    return [w.tobytes().decode() for w in gather_windows(genome, truth, window_bp, "ref")]


@pytest.mark.parametrize("window_bp", [64, 129, 160, 319, 640, 1279, 1280])
def test_a_window_holds_the_element_if_and_only_if_it_is_visible(written, window_bp):
    """By string search; no other element of the locus' kind comes so near."""
    for truth in written.truths.values():
        windows = texts(written.genome, truth, window_bp)
        visible = is_visible(truth, window_bp)
        for window, partner, seen in zip(windows, truth["partner"], visible, strict=True):
            own, other = ("partner", "decoy") if partner else ("decoy", "partner")
            assert (written.recipe.elements[own] in window) == seen
            assert written.recipe.elements[other] not in window


def test_the_shortest_window_that_holds_the_element_is_exact_to_one_base(written):
    """Both sides, odd and even lengths: one base less and the element is gone."""
    seen = {"left": set(), "right": set()}
    for truth in written.truths.values():
        for row in truth.itertuples():
            element = written.recipe.elements["partner" if row.partner else "decoy"]
            assert (row.left_bp == 0) != (row.right_bp == 0)
            one = truth[row.Index : row.Index + 1]
            # A window of w holds w // 2 bases before the variant and the rest from its own on.
            shortest = 2 * row.left_bp if row.left_bp else 2 * row.right_bp - 1
            for window_bp, expected in ((shortest, True), (shortest - 1, False)):
                (window,) = texts(written.genome, one, window_bp)
                assert (element in window) == expected == is_visible(one, window_bp).item()
            seen["left" if row.left_bp else "right"].add(shortest)
    assert all(len(lengths) > 100 for lengths in seen.values())


def test_the_site_is_hit_or_stands_beside_the_variant(written):
    site = written.recipe.elements["site"]
    for truth in written.truths.values():
        windows = texts(written.genome, truth, 64)
        alternative = gather_windows(written.genome, truth, 64, "alt")
        for window, row, alt in zip(windows, truth.itertuples(), alternative, strict=True):
            at = window.index(site)
            assert (at <= 32 < at + len(site)) == row.hit
            assert (site in alt.tobytes().decode()) != row.hit


def test_every_window_of_the_study_lies_inside_and_without_n(written):
    for truth in written.truths.values():
        assert has_window(written.genome, truth, 1280).all()
        assert (gather_windows(written.genome, truth, 1280, "ref") != ord("N")).all()


def test_alleles_are_normalised_and_accepted_as_they_are(written):
    for name in written.recipe.tasks:
        path = written.folder / f"{name}.csv"
        found = accept_variants(
            read_variants(path, COLUMNS), written.genome, written.report.aliases()
        )
        assert found.rejected.empty
        table, accepted = pd.read_csv(path), found.accepted
        for ours, theirs in COLUMNS.items():
            assert accepted[ours].tolist() == table[theirs].tolist(), ours
        kinds = np.sign(accepted["alt"].str.len() - accepted["ref"].str.len())
        assert set(kinds) == {-1, 0, 1}
        truth = written.truths[name]
        assert truth[["contig", "pos", "ref", "alt"]].equals(
            accepted[["contig", "pos", "ref", "alt"]].astype(truth.dtypes[:4].to_dict())
        )


# --- the posterior ----------------------------------------------------------------------------


def all_draws(recipe, name, seed):
    """The generative story again, vectorised: hit, partner, reach on a side, label."""
    rng, task, count = np.random.default_rng(seed), recipe.tasks[name], 400_000
    low, high = task.distance_bp
    hit, partner = rng.random(count) < task.hits, rng.random(count) < task.partners
    if task.spacing == "uniform":
        distance = rng.integers(low, high + 1, count)
    else:
        distance = (low * ((high + 1) / low) ** rng.random(count)).astype(int)
    left, element_bp = rng.random(count) < 0.5, len(recipe.elements["partner"])
    # The site covers 8 bp before and 7 after a variant that hits, 4 to 19 after one that misses.
    beside_the_site = np.where(left, np.where(hit, 9, 1), np.where(hit, 8, 20))
    distance = np.maximum(distance, beside_the_site)
    label = np.where(rng.random(count) < task.penetrance, hit & partner, ~(hit & partner))
    truth = pd.DataFrame(
        {
            "hit": hit,
            "partner": partner,
            "left_bp": np.where(left, distance + element_bp - 1, 0),
            "right_bp": np.where(left, 0, distance + element_bp),
            "partners": task.partners,
            "penetrance": task.penetrance,
        }
    )
    return truth, label.astype(int)


@pytest.mark.parametrize("window_bp", [100, 160, 640, 1280])
@pytest.mark.parametrize("name", ["sim_near", "sim_far"])
def test_posterior_is_the_share_of_ones_among_all_that_show_the_same(name, window_bp):
    recipe = Recipe.read(RECIPE)
    truth, label = all_draws(recipe, name, seed=5)
    shown = np.select(
        [~is_visible(truth, window_bp), truth["partner"]], ["nothing", "partner"], "decoy"
    )
    groups = pd.DataFrame({"hit": truth["hit"], "shown": shown, "label": label})
    groups["posterior"] = posterior(truth, window_bp)
    for _, group in groups.groupby(["hit", "shown"]):
        assert group["posterior"].nunique() == 1
        p, n = group["posterior"].iloc[0], len(group)
        assert abs(group["label"].mean() - p) < 5 * np.sqrt(p * (1 - p) / n)


def test_the_drawn_loci_are_those_of_the_story(whole):
    """Shares and distances of the generator against the same story written again."""
    recipe, tables = whole
    for name, (truth, labels, _) in tables.items():
        again, label = all_draws(recipe, name, seed=6)
        reach, expected = (t[["left_bp", "right_bp"]].max(axis=1) for t in (truth, again))
        pairs = [(labels, label), *((truth[k], again[k]) for k in ("hit", "partner"))]
        pairs += [(truth["left_bp"] > 0, again["left_bp"] > 0)]
        pairs += [(reach < q, expected < q) for q in expected.quantile([0.2, 0.5, 0.8])]
        for mine, its in pairs:
            p = np.mean(its)
            assert abs(np.mean(mine) - p) <= 4.5 * np.sqrt(p * (1 - p) / len(truth)), name


def test_the_ceiling_is_flat_or_rises_and_stays_in_its_range(whole):
    """In its range for the recipe itself; on the test rows within the noise of drawing them."""
    recipe, tables = whole
    ceilings = {}
    for name, (truth, labels, test) in tables.items():
        scores = [posterior(truth, window_bp)[test] for window_bp in LENGTHS]
        ceilings[name] = [roc_auc_score(labels[test], score) for score in scores]
        many, label = all_draws(recipe, name, seed=7)
        expected = [roc_auc_score(label, posterior(many, window_bp)) for window_bp in LENGTHS]
        assert 0.85 <= min(expected) <= max(expected) <= 0.97, name
        assert np.allclose(ceilings[name], expected, atol=0.025)
    near, far = ceilings["sim_near"], ceilings["sim_far"]
    assert len(set(near)) == 1
    assert all(b > a for a, b in pairwise(far))


def test_few_elements_are_cut_by_the_edge_of_a_window(whole):
    """They count as not shown; what that can hide of the ceiling is small."""
    for truth, _, _ in whole[1].values():
        for window_bp in LENGTHS:
            nearer = truth.assign(
                left_bp=(truth["left_bp"] - 15).clip(lower=0),
                right_bp=(truth["right_bp"] - 15).clip(lower=0),
            )
            cut = is_visible(nearer, window_bp) & ~is_visible(truth, window_bp)
            assert cut.mean() < 0.05


# --- the assembly -----------------------------------------------------------------------------


def test_the_assembly_converts_and_its_checksums_match(written):
    lengths = dict(written.contigs)
    assert list(lengths) == ["chr1", "chr2", "chr3", "chrUn_KI900001v1", "chrM"]
    assert lengths["chr1"] == 231 * written.recipe.assembly["locus_bp"]
    assert (lengths["chrUn_KI900001v1"], lengths["chrM"]) == (30_000, 16_000)
    roles = {row.ucsc: (row.role, row.molecule) for row in written.report.sequences}
    assert roles["chrUn_KI900001v1"] == ("unplaced-scaffold", None)
    assert roles["chrM"] == ("assembled-molecule", "MT")
    for path in written.folder.glob(f"{ACCESSION}*"):
        assert published_md5(written.folder / "md5checksums.txt", path.name) == checksum(
            path, "md5"
        )
    assert len(list(written.folder.glob(f"{ACCESSION}*"))) == 2


def test_the_sequence_has_soft_masked_stretches_and_runs_of_n(written):
    text = written.fasta.read_text()
    assert text.count("N" * 20) >= 3
    lower = sum(text.count(base) for base in "acgt") / len(text)
    assert 0.001 < lower < 0.05
    lines = gzip.decompress((written.folder / f"{ACCESSION}_genomic.fna.gz").read_bytes()).split()
    assert max(map(len, (line for line in lines if not line.startswith(b">")))) == 80


def test_gc_content_follows_the_recipe():
    sequence = draw_background(np.random.default_rng(1), 1_050_000, (0.36, 0.46))
    regions = [sequence[i : i + 100_000] for i in range(0, 1_000_000, 100_000)]
    shares = [np.isin(region, [ord("G"), ord("C")]).mean() for region in regions]
    assert len(sequence) == 1_050_000
    assert 0.355 < min(shares) < 0.40 < max(shares) < 0.465


def test_splits_are_whole_chromosomes(written):
    for name in written.recipe.tasks:
        table = pd.read_csv(written.folder / f"{name}.csv")
        assert table.groupby("CHROM")["split"].unique().map(list).to_dict() == {
            "chr1": ["train"],
            "chr2": ["train"],
            "chr3": ["test"],
        }


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(written, tmp_path):
    write_simulation(Recipe.read(RECIPE, SMALL), tmp_path / "again")
    other = yaml.safe_load(RECIPE.read_text()) | {"seed": 7}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other, sort_keys=False))
    write_simulation(Recipe.read(tmp_path / "other.yaml", SMALL), tmp_path / "other")
    names = sorted(path.name for path in written.folder.iterdir())
    assert len(names) == 3 + 2 * len(written.recipe.tasks)
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (written.folder / name).read_bytes()
        if not name.endswith("report.txt"):
            assert (tmp_path / "other" / name).read_bytes() != (written.folder / name).read_bytes()


def test_a_failed_simulation_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space")

    monkeypatch.setattr("longscale.tasks.simulated.variant_table", fail)
    with pytest.raises(OSError, match="no space"):
        write_simulation(Recipe.read(RECIPE, SMALL | {"loci_per_chromosome": 4}), tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=15, deadline=None)
@given(
    chromosomes=st.integers(1, 3),
    loci=st.integers(1, 5),
    extra_bp=st.integers(0, 300),
    seed=st.integers(0, 2**32),
)
def test_any_small_assembly_has_its_loci_where_it_says(chromosomes, loci, extra_bp, seed):
    recipe = Recipe.read(
        RECIPE,
        {
            "chromosomes": chromosomes,
            "test_chromosomes": 1,
            "loci_per_chromosome": loci,
            "locus_bp": 1382 + extra_bp,
        },
    )
    recipe = Recipe(**{**vars(recipe), "seed": seed})
    assembly, drawn = simulate(recipe)
    sequences = {contig.ucsc: s.tobytes().decode().upper() for contig, s in assembly}
    assert len(drawn) == chromosomes * loci
    for locus in drawn:
        sequence = sequences[locus.contig]
        assert sequence[locus.pos : locus.pos + len(locus.ref)] == locus.ref
        assert locus.ref[0] == locus.alt[0] or len(locus.ref) == len(locus.alt) == 1
        assert (locus.split == "test") == (locus.contig == f"chr{chromosomes}")
        element = recipe.elements["partner" if locus.partner else "decoy"]
        low, high = recipe.tasks[locus.task].distance_bp
        assert low <= locus.distance <= high
        # The nearest base of the element is `distance` away on its side.
        start = locus.pos + locus.distance if locus.side > 0 else None
        start = locus.pos - locus.distance - len(element) + 1 if start is None else start
        assert sequence[start : start + len(element)] == element
    assert variant_table(drawn)["POS"].tolist() == [locus.pos + 1 for locus in drawn]


# --- mistakes in a recipe ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("sead", 1, "not a recipe of a simulation: .*'sead'"),
        ("tasks", None, "not a recipe of a simulation"),
        ("tasks.sim_far.hit", 0.5, "not a recipe of a simulation: .*'hit'"),
        ("tasks.sim_far.spacing", "log", "tasks.sim_far.spacing is 'log', but must be one of unif"),
        ("tasks.sim_far.hits", 1.5, "tasks.sim_far.hits is 1.5, but must be from 0 to 1"),
        ("tasks.sim_near.distance_bp", [0, 10], r"tasks.sim_near.distance_bp is \[0, 10\], but"),
        ("tasks.sim_near.distance_bp", [30, 10], "two rising numbers"),
        ("tasks.sim_near.distance_bp", [10, 5000], "locus_bp is 1500, .* must be at least 10182"),
        ("assembly.locus_bp", 1381, "assembly.locus_bp is 1381, .* must be at least 1382"),
        ("elements.decoy", "ACGT", "elements.partner and elements.decoy differ in length"),
        (
            "elements.lure",
            "ACGT",
            "elements are site, partner, decoy, lure, but must be site, part",
        ),
        ("variant_types.snv", 0.5, "variant_types must be shares of snv, deletion, insertion"),
        ("variant_types.mnv", 0.0, "variant_types must be shares of snv, deletion, insertion"),
    ],
)
def test_a_bad_recipe_is_one_sentence(tmp_path, path, value, sentence):
    raw = copy.deepcopy(yaml.safe_load(RECIPE.read_text()))
    *parents, last = path.split(".")
    place = raw
    for key in parents:
        place = place[key]
    place[last] = value
    target = tmp_path / "own.yaml"
    target.write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(LongscaleError, match=f"own.yaml: .*{sentence}") as told:
        Recipe.read(target)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "tasks: {a: 1}"])
def test_a_file_that_is_no_recipe_is_one_sentence(tmp_path, text):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(LongscaleError, match=r"own.yaml: not a recipe of a simulation") as told:
        Recipe.read(tmp_path / "own.yaml")
    assert "\n" not in str(told.value)


def test_a_missing_recipe_and_an_unknown_override_are_one_sentence(tmp_path):
    with pytest.raises(LongscaleError, match=r"none.yaml: not a recipe .*No such file"):
        Recipe.read(tmp_path / "none.yaml")
    with pytest.raises(LongscaleError, match="`assembly` has no key 'loci'; known: chromosomes,"):
        Recipe.read(RECIPE, {"loci": 3})
