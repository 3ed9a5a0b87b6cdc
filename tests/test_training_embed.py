"""Embeddings of rows, against one row at a time; shards that resume."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import save_pretrained, write_genome, write_tokenizer

from longscale.errors import LongscaleError
from longscale.models.encoders import load_encoder
from longscale.training import embed
from longscale.training.embed import embed_task, plan_layout, require_contexts, shards

CONTEXT_BP = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("embed")


@pytest.fixture(scope="module")
def genome(folder):
    return write_genome(folder)


@pytest.fixture(scope="module")
def encoder(genome, folder):
    save_pretrained(write_tokenizer(genome, folder), folder, n_train=20)
    return load_encoder("dnabert2", folder)


def rows_of(genome, count=9, *, alleles=False, strands=("",), pool=(-20, 31)):
    rng = np.random.default_rng(7)
    anchors = rng.integers(400, 4_000, count)
    table = pd.DataFrame(
        {
            "row": np.arange(count),
            "contig": rng.choice(["chr1", "chr3"], count),
            "anchor": anchors,
            "strand": np.resize(strands, count),
            "ref": "",
            "alt": "",
        }
    )
    low, high = pool
    minus = table["strand"] == "-"
    table["pool_start"] = anchors + np.where(minus, 1 - high, low)
    table["pool_stop"] = anchors + np.where(minus, 1 - low, high)
    if alleles:
        for row in range(count):
            contig, anchor = table["contig"][row], int(anchors[row])
            size = (1, 4, 1)[row % 3]
            ref = genome.fetch(contig, anchor, anchor + size).tobytes().decode()
            table.loc[row, "ref"] = ref
            table.loc[row, "alt"] = {0: "G" if ref == "A" else "A", 1: ref[0], 2: ref + "CGT"}[
                row % 3
            ]
    return table


def obvious(encoder, genome, row, allele, context_bp, start, stop):
    """Mean state per base of one row: the context spelt out as a string."""
    left = row["anchor"] - context_bp // 2
    sequence = genome.fetch(row["contig"], 0, genome.lengths[row["contig"]]).tobytes().decode()
    if allele == "alt":
        sequence = (
            sequence[: row["anchor"]] + row["alt"] + sequence[row["anchor"] + len(row["ref"]) :]
        )
    text = sequence[left : left + context_bp]
    start, stop = start - left, stop - left
    if row["strand"] == "-":
        text = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
        start, stop = context_bp - stop, context_bp - start
    encoding = encoder.tokenizer.encode(text)
    states = encoder.hidden(torch.tensor([encoding.ids]), torch.ones(1, len(encoding.ids)))[0]
    places = encoding.offsets
    of_bases = [next(s for s, (a, b) in zip(states, places, strict=True) if a <= base < b)
                for base in range(start, stop)]  # fmt: skip
    return torch.stack(of_bases).mean(0).numpy()


def embedded(encoder, genome, rows, folder, context_bp=CONTEXT_BP, bin_bp=0, **options):
    layout = plan_layout(rows, context_bp, encoder.width, bin_bp)
    embed_task(
        encoder, genome, rows, context_bp, folder, layout=layout, batch_tokens=500,
        settings={"model": "m"}, **{"report": lambda line: None, **options},
    )  # fmt: skip
    parts = [np.load(path, allow_pickle=False) for path, _ in shards(folder, layout)]
    return layout, np.concatenate(parts)


@pytest.mark.parametrize("strands", [("",), ("+", "-")])
def test_a_row_is_the_mean_over_the_bases_of_its_stretch(encoder, genome, tmp_path, strands):
    rows = rows_of(genome, strands=strands, pool=(-38, 26))
    layout, found = embedded(encoder, genome, rows, tmp_path)
    assert found.shape == (9, 1, 16)
    assert found.dtype == np.float16
    assert layout.bytes == found.nbytes
    for number, row in enumerate(rows.to_dict("records")):
        expected = obvious(
            encoder, genome, row, "ref", CONTEXT_BP, row["pool_start"], row["pool_stop"]
        )
        assert found[number, 0] == pytest.approx(expected, abs=4e-3)


def test_a_variant_has_its_reference_and_its_alternative(encoder, genome, tmp_path):
    rows = rows_of(genome, alleles=True)
    layout, found = embedded(encoder, genome, rows, tmp_path)
    assert (layout.alleles, layout.pieces) == (2, 2)
    for number, row in enumerate(rows.to_dict("records")):
        for piece, allele in enumerate(("ref", "alt")):
            span = row["pool_start"], row["pool_stop"]
            expected = obvious(encoder, genome, row, allele, CONTEXT_BP, *span)
            assert found[number, piece] == pytest.approx(expected, abs=4e-3)
    assert (found[:, 0] != found[:, 1]).any(axis=1).all()


@pytest.mark.parametrize(
    ("context_bp", "bins"), [(120, (0, 8)), (100, (1, 7)), (99, (1, 7)), (60, (2, 6)), (31, (3, 5))]
)
@pytest.mark.parametrize("strands", [("+",), ("-",)])
def test_a_profile_has_the_bins_that_the_context_covers(
    encoder, genome, tmp_path, context_bp, bins, strands
):
    """Eight bins of 15 bp; on the other strand their order is that of the strand."""
    rows = rows_of(genome, strands=strands, pool=(-60, 60))
    rows["pool_start"], rows["pool_stop"] = rows["anchor"] - 60, rows["anchor"] + 60
    layout, found = embedded(encoder, genome, rows, tmp_path, context_bp, 15)
    assert layout.bins == bins
    for number, row in enumerate(rows.to_dict("records")):
        places = [(row["pool_start"] + 15 * b, row["pool_start"] + 15 * (b + 1)) for b in range(8)]
        covered = places[slice(*layout.bins)]
        if row["strand"] == "-":
            covered = covered[::-1]
        for piece, span in enumerate(covered):
            expected = obvious(encoder, genome, row, "ref", context_bp, *span)
            assert found[number, piece] == pytest.approx(expected, abs=4e-3)


def test_a_job_goes_on_behind_its_last_shard(encoder, genome, tmp_path, monkeypatch):
    monkeypatch.setattr(embed, "SHARD_ROWS", 4)
    rows = rows_of(genome)
    layout = plan_layout(rows, CONTEXT_BP, encoder.width)
    layout = embed.Layout(**{**layout.__dict__, "shard_rows": 4})
    calls = []
    original = embed.embed_rows

    def counting(*arguments):
        calls.append(len(arguments[2]))
        if len(calls) == 2 and len(done) == 0:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(embed, "embed_rows", counting)
    done = []
    common = {"layout": layout, "batch_tokens": 500, "report": lambda line: None}

    def run(settings):
        embed_task(encoder, genome, rows, CONTEXT_BP, tmp_path, settings=settings, **common)

    with pytest.raises(KeyboardInterrupt):
        run({"model": "m"})
    assert not (tmp_path / "index.json").exists()
    assert [path.name for path in sorted(tmp_path.glob("*.npy"))] == ["shard-00000.npy"]
    done.append(True)
    calls.clear()
    run({"model": "m"})
    assert calls == [4, 1]
    index = json.loads((tmp_path / "index.json").read_text())
    assert (index["rows"], index["pieces"], index["width"], index["model"]) == (9, 1, 16, "m")
    calls.clear()
    run({"model": "m"})
    assert calls == []
    run({"model": "another"})
    assert calls == [4, 4, 1]


@pytest.mark.parametrize("strands", [("+",), ("-",)])
def test_of_a_stretch_beyond_the_context_the_part_inside_counts(encoder, genome, tmp_path, strands):
    rows = rows_of(genome, strands=strands, pool=(-100, 30))
    _, found = embedded(encoder, genome, rows, tmp_path)
    for number, row in enumerate(rows.to_dict("records")):
        start = max(row["pool_start"], row["anchor"] - CONTEXT_BP // 2)
        stop = min(row["pool_stop"], row["anchor"] - CONTEXT_BP // 2 + CONTEXT_BP)
        expected = obvious(encoder, genome, row, "ref", CONTEXT_BP, start, stop)
        assert found[number, 0] == pytest.approx(expected, abs=4e-3)


def test_a_context_that_leaves_a_contig_is_one_sentence(encoder, genome):
    rows = rows_of(genome, pool=(-10, 10))
    edge = int((rows["anchor"]).min())
    require_contexts(genome, rows, 2 * edge)
    with pytest.raises(LongscaleError, match=r"has no context of .* probe\.context_bp"):
        require_contexts(genome, rows, 2 * edge + 2)


def test_a_context_that_holds_nothing_to_average_is_one_sentence(encoder, genome):
    rows = rows_of(genome, pool=(40, 91))
    with pytest.raises(LongscaleError, match="context_bp is 50, which holds nothing of the 51 bp"):
        plan_layout(rows, 50, encoder.width)
    with pytest.raises(LongscaleError, match="context_bp is 10, which does not hold one bin of 15"):
        plan_layout(rows_of(genome, pool=(-60, 60)), 10, encoder.width, 15)


def test_states_that_float16_cannot_hold_are_refused(encoder, genome, tmp_path, monkeypatch):
    monkeypatch.setattr(
        embed, "pool_states", lambda states, *_: torch.full((1, states.shape[1]), 1e6)
    )
    with pytest.raises(LongscaleError, match="not finite in float16"):
        embedded(encoder, genome, rows_of(genome), tmp_path)
