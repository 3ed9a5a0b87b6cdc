"""What a model is shown of a variant, against the windows and offsets of one variant at a time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny_study import make_variants, tiny_config, write_genome, write_tokenizer
from tokenizers import Tokenizer

from longscale.attention.released import released_token_limit
from longscale.errors import LongscaleError
from longscale.models.tokenizer import CLS, PAD, SEP
from longscale.tasks import splits
from longscale.training.protocols import (
    PROTOCOLS,
    AllelePairs,
    AlternativeAlleles,
    one_hot,
    training_tissues,
)
from longscale.variants.windows import gather_windows

ROOT = Path(__file__).parents[1]
WINDOW_BP = 128
TISSUES = ["Liver", "Lung", "Whole Blood"]


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def tokenizer(genome, tmp_path_factory):
    return write_tokenizer(genome, tmp_path_factory.mktemp("tokenizer"), vocab_size=60)


@pytest.fixture(scope="module")
def variants(genome):
    """SNVs, and among them insertions and deletions of up to 30 bp."""
    table = make_variants(genome, "chr1", 24, split="train", tissues=TISSUES)
    for row, size in ((1, 2), (5, 11), (7, 30)):
        start = table["pos"][row] - 1
        table.loc[row, "ref"] = genome.fetch("chr1", start, start + size).tobytes().decode()
        table.loc[row, "alt"] = table["ref"][row][0]
    for row, alt in ((2, "AC"), (6, "AGGTTCCAAGT"), (8, "A" + "CG" * 15)):
        table.loc[row, "alt"] = alt
    return table


def window_text(genome, variants, row, allele, window_bp=WINDOW_BP):
    (window,) = gather_windows(genome, variants[row : row + 1], window_bp, allele)
    return window.tobytes().decode()


@pytest.fixture(scope="module")
def pairs(genome, tokenizer, variants):
    return AllelePairs.encode(genome, tokenizer, variants, WINDOW_BP, TISSUES)


def test_reference_rows_come_first_then_alternative_ones(pairs, genome, tokenizer, variants):
    rows = [3, 8, 7, 2]
    batch = pairs.batch(rows)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape == (8, int(mask.sum(1).max()))
    for place, (allele, row) in enumerate([(a, r) for a in ("ref", "alt") for r in rows]):
        expected = tokenizer.encode(window_text(genome, variants, row, allele)).ids
        assert ids[place][mask[place] == 1].tolist() == expected
        assert (ids[place][mask[place] == 0] == PAD).all()
        assert (mask[place].diff() <= 0).all()  # padding on the right
    assert batch["labels"].tolist() == variants["label"][rows].tolist()


def test_the_readout_overlaps_the_allele_and_eight_bases_around_it(
    pairs, genome, tokenizer, variants
):
    """And not one token more: by the offsets of each token."""
    rows = list(range(len(variants)))
    batch = pairs.batch(rows)
    centre = WINDOW_BP // 2
    for place, (allele, row) in enumerate([(a, r) for a in ("ref", "alt") for r in rows]):
        text = window_text(genome, variants, row, allele)
        encoding = tokenizer.encode(text)
        low, high = centre - 8, centre + len(variants[allele][row]) + 8
        start, stop = int(batch["readout_start"][place]), int(batch["readout_stop"][place])
        read = encoding.offsets[start:stop]
        assert read[0][0] <= low < read[0][1]
        assert read[-1][0] < high <= read[-1][1]
        assert "".join(encoding.tokens[start:stop]) == text[read[0][0] : read[-1][1]]
        written = text[centre : centre + len(variants[allele][row])]
        assert written == variants[allele][row]


def test_a_readout_longer_than_the_window_stays_inside(genome, tokenizer, variants):
    examples = AllelePairs.encode(genome, tokenizer, variants, 32, TISSUES)
    batch = examples.batch(np.arange(len(variants)))
    lengths = batch["attention_mask"].sum(1)
    assert (batch["readout_start"] >= 1).all()
    assert (batch["readout_stop"] <= lengths - 1).all()  # [SEP] is never read
    assert (batch["readout_stop"] > batch["readout_start"]).all()


@pytest.mark.parametrize("limit", [3, 12, 40])
def test_a_limit_of_the_tokenizer_cuts_evenly_around_the_variant(
    genome, tokenizer, variants, limit
):
    limited = Tokenizer.from_str(tokenizer.to_str())
    limited.enable_truncation(limit)
    assert AllelePairs.token_limit(tokenizer, WINDOW_BP) is None
    assert AllelePairs.token_limit(limited, WINDOW_BP) == limit
    examples = AllelePairs.encode(genome, limited, variants, WINDOW_BP, TISSUES)
    for allele, encoded in zip(("ref", "alt"), examples.windows, strict=True):
        assert (encoded.lengths == limit).all()
        assert np.abs(encoded.variant * 2 - (limit - 1)).max() <= 1  # in the middle
        for row in range(len(variants)):
            encoding = tokenizer.encode(window_text(genome, variants, row, allele))
            first = 1 + encoded.cut[row, 0]
            held = encoding.ids[first : first + limit - 2]
            assert encoded.window(row).tolist() == [CLS, *held, SEP]
            start, stop = encoding.offsets[first - 1 + encoded.variant[row]]
            assert start <= WINDOW_BP // 2 < stop
    batch = examples.batch(np.arange(len(variants)))
    assert (batch["readout_start"] >= 1).all()
    assert (batch["readout_stop"] <= limit - 1).all()
    assert (batch["readout_stop"] > batch["readout_start"]).all()


def test_the_tissue_is_a_one_hot_row(pairs, variants):
    tissue = pairs.batch([0, 5, 9])["tissue"]
    assert tissue.dtype == torch.float32
    assert tissue.shape == (3, 3)
    assert (tissue.sum(1) == 1).all()
    found = [TISSUES[i] for i in tissue.argmax(1)]
    assert found == variants["tissue"][[0, 5, 9]].tolist()


def test_without_tissues_there_is_no_such_input(genome, tokenizer, variants):
    examples = AllelePairs.encode(genome, tokenizer, variants.assign(tissue=""), WINDOW_BP, [])
    assert set(examples.batch([0])) == {
        "input_ids", "attention_mask", "readout_start", "readout_stop", "labels",
    }  # fmt: skip


@pytest.mark.parametrize("tissue", ["Brain", ""])
def test_a_tissue_without_training_variants_is_one_sentence(genome, tokenizer, variants, tissue):
    other = variants.copy()
    other.loc[4, "tissue"] = tissue
    with pytest.raises(
        LongscaleError, match=f"tissue '{tissue}' has no training .* Liver, Lung, Wh"
    ):
        AllelePairs.encode(genome, tokenizer, other, WINDOW_BP, TISSUES)


def test_one_hot_against_pandas():
    tissue = pd.Series(["b", "a", "b", "c"])
    expected = pd.get_dummies(tissue).to_numpy(dtype=np.float32)
    assert (one_hot(tissue, ["a", "b", "c"]) == expected).all()
    assert one_hot(tissue, []).shape == (4, 0)


def test_tissues_are_those_of_the_training_variants_alone():
    table = pd.DataFrame(
        {"split": ["train", "test", "train", "dev", "train"], "tissue": ["b", "z", "a", "y", "b"]}
    )
    assert training_tissues(table) == ["a", "b"]
    assert training_tissues(table.assign(tissue="")) == []
    assert PROTOCOLS["released"].list_tissues(table) == []


def test_lengths_count_both_alleles(pairs, genome, tokenizer, variants):
    for row, tokens in enumerate(pairs.lengths):
        texts = [window_text(genome, variants, row, allele) for allele in ("ref", "alt")]
        assert tokens == sum(len(tokenizer.encode(text).ids) for text in texts)
    assert len(pairs) == len(variants)


# --- released ---------------------------------------------------------------------------------


@pytest.mark.parametrize("window_bp", [64, 128, 1000])
def test_released_shows_the_alternative_window_cut_on_the_right(
    genome, tokenizer, variants, window_bp
):
    examples = AlternativeAlleles.encode(genome, tokenizer, variants, window_bp, TISSUES)
    batch = examples.batch(np.arange(len(variants)))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    limit, cut = released_token_limit(window_bp), 0
    for row in range(len(variants)):
        ids = tokenizer.encode(window_text(genome, variants, row, "alt", window_bp)).ids
        expected = ids if len(ids) <= limit else [*ids[: limit - 1], SEP]
        cut += len(ids) > limit
        assert batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist() == expected
        assert expected[0] == CLS
    assert cut == len(variants)  # this tokenizer's tokens are short
    assert (examples.lengths == limit).all()
    assert AlternativeAlleles.token_limit(tokenizer, window_bp) == limit


def test_released_cuts_the_variant_away_where_tokens_are_short(genome, variants, tmp_path):
    """A defect of the released scripts, kept: the audit of tokens counts it."""
    single_bases = write_tokenizer(genome, tmp_path, vocab_size=9)
    examples = AlternativeAlleles.encode(genome, single_bases, variants, WINDOW_BP, TISSUES)
    limit = released_token_limit(WINDOW_BP)
    assert limit < WINDOW_BP // 2
    assert (examples.alternative.variant == -1).all()
    assert (examples.alternative.cut == [0, WINDOW_BP + 2 - limit]).all()
    pairs = AllelePairs.encode(genome, single_bases, variants, WINDOW_BP, TISSUES)
    assert all((allele.variant == 1 + WINDOW_BP // 2).all() for allele in pairs.windows)


# --- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_model_of_a_protocol_takes_its_batches(protocol, genome, tokenizer, variants):
    steps = PROTOCOLS[protocol]
    tissues = steps.list_tissues(variants)
    examples = steps.examples.encode(genome, tokenizer, variants, WINDOW_BP, tissues)
    model = steps.model(tiny_config(tokenizer, tissues=tissues, num_labels=2)).eval()
    output = model(**examples.batch([4, 1, 2]))
    assert output.logits.shape == (3, 2)
    assert output.loss.isfinite()
    assert [len(windows.lengths) for windows in examples.windows] == [24] * len(examples.windows)


def test_one_released_choice_at_a_time(pairs, genome, tokenizer, variants):
    """Between paired and released: another allele, another place, and nothing else."""
    for name, alleles, at_cls in (
        ("alternative-only", ("alt", "alt"), False),
        ("at-cls", ("ref", "alt"), True),
        ("alternative-at-cls", ("alt", "alt"), True),
        ("random-dev", ("ref", "alt"), False),
    ):
        row = PROTOCOLS[name]
        assert row.model is PROTOCOLS["paired"].model
        shown = row.examples.encode(genome, tokenizer, variants, WINDOW_BP, TISSUES)
        assert (shown.tissue == pairs.tissue).all()
        for windows, allele in zip(shown.windows, alleles, strict=True):
            expected = dict(zip(("ref", "alt"), pairs.windows, strict=True))[allele]
            assert windows.ids.tolist() == expected.ids.tolist()
            assert (windows.readout == ([0, 1] if at_cls else expected.readout)).all()


def test_every_protocol_has_its_splits_and_stands_in_the_schema():
    schema = yaml.safe_load((ROOT / "config" / "schema.yaml").read_text())
    study = schema["$defs"]["study"]["properties"]
    assert set(PROTOCOLS) == set(splits.PROTOCOLS) == set(study["protocols"]["items"]["enum"])
    assert set(PROTOCOLS) == set(study["protocol_attentions"]["propertyNames"]["enum"])
