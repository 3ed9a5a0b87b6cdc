"""Multipliers of a fine-tuned DNABERT-2, measured around development variants."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import make_variants, quiet, tiny_config, write_genome, write_tokenizer

from longscale.errors import LongscaleError
from longscale.evaluation.entropy import dnabert2_entropies
from longscale.evaluation.multipliers import Measured
from longscale.evaluation.scoring import score_variants
from longscale.evaluation.variant_entropy import (
    choose_variants,
    match_variants,
    reference_encoder,
)
from longscale.models.tokenizer import encode_windows
from longscale.training.protocols import PROTOCOLS
from longscale.variants.windows import gather_windows

TRAIN_BP = 64


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def tokenizer(genome, tmp_path_factory):
    return write_tokenizer(genome, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def variants(genome):
    """Development and test variants, each development one twice, for two tissues."""
    dev = make_variants(genome, "chr1", 40, split="dev", tissues=["a"])
    test = make_variants(genome, "chr3", 10, split="test", tissues=["a"], seed=1)
    return pd.concat([dev, dev.assign(tissue="b"), test], ignore_index=True)


def model_of(tokenizer, n_train=30, protocol="paired"):
    torch.manual_seed(4)
    tissues = ["a", "b"] if protocol == "paired" else []
    config = tiny_config(tokenizer, n_train=n_train, num_hidden_layers=2, tissues=tissues)
    model = PROTOCOLS[protocol].model(config)
    with torch.no_grad():
        for layer in model.base_model.encoder.layer:
            layer.attention.self.Wqkv.weight.normal_(0, 0.5)
        for name, parameter in model.named_parameters():
            if not name.startswith("bert."):  # the head, so that scores are no constant
                parameter.normal_(0, 1)
    return model


# --- which variants ---------------------------------------------------------------------------


def test_at_most_so_many_positions_of_the_development_set_are_chosen(variants):
    chosen = choose_variants(variants, most=7)
    assert len(chosen) == 7
    assert set(chosen["split"]) == {"dev"}
    assert not chosen.duplicated(["contig", "pos"]).any()
    dev = variants[variants["split"] == "dev"]
    assert chosen["pos"].iloc[0] == dev["pos"].min()  # the whole table is covered
    assert chosen["pos"].iloc[-1] == dev["pos"].max()
    assert len(choose_variants(variants)) == 40
    pd.testing.assert_frame_equal(choose_variants(variants, most=7), chosen)


def test_without_a_development_variant_nothing_can_be_measured(variants):
    with pytest.raises(LongscaleError, match="no variant of split dev"):
        choose_variants(variants[variants["split"] == "test"])


def test_the_windows_are_those_of_the_reference(genome, tokenizer, variants):
    chosen = choose_variants(variants, most=5)
    found = reference_encoder(genome, tokenizer, "paired")(chosen, 96)
    expected = encode_windows(tokenizer, gather_windows(genome, chosen, 96, "ref"))
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    swapped = chosen.assign(alt=["C"] * 5, label=1 - chosen["label"], tissue="")
    again = reference_encoder(genome, tokenizer, "paired")(swapped, 96)
    np.testing.assert_array_equal(again.ids, found.ids)  # neither labels nor alleles nor tissues


# --- multipliers ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def matched(genome, tokenizer, variants):
    model = model_of(tokenizer)
    chosen = choose_variants(variants, most=12)
    encode = reference_encoder(genome, tokenizer, "paired")
    matches = match_variants(
        model, chosen, encode, train_bp=TRAIN_BP, eval_bp=[128, 48, TRAIN_BP], report=quiet
    )
    return model, chosen, encode, matches


def test_up_to_the_training_length_the_multipliers_are_1(matched):
    _, _, _, matches = matched
    assert list(matches) == [48, TRAIN_BP, 128]
    for bp in (48, TRAIN_BP):
        assert {(m.beta, m.matched) for layer in matches[bp] for m in layer} == {(1.0, True)}


@torch.no_grad()
def test_beyond_it_the_entropies_are_those_of_the_training_length(matched):
    model, chosen, encode, matches = matched
    model.set_rule("none")
    targets = dnabert2_entropies(model, encode(chosen, TRAIN_BP))
    plain = dnabert2_entropies(model, encode(chosen, 128))
    betas = torch.tensor([[match.beta for match in layer] for layer in matches[128]])
    model.set_rule("entropy-matched", betas)
    found = dnabert2_entropies(model, encode(chosen, 128))
    model.set_rule("none")
    assert sum(match.matched for layer in matches[128] for match in layer) >= 2
    for layer, head in np.ndindex(2, 2):
        if matches[128][layer][head].matched:
            assert found[layer][head] == pytest.approx(targets[layer][head], abs=1e-2)
    assert np.abs(np.subtract(plain, targets)).max() > 0.05  # there was something to restore
    np.testing.assert_allclose(
        [[match.entropy for match in layer] for layer in matches[TRAIN_BP]], targets, atol=1e-6
    )


def test_a_rule_that_was_set_before_does_not_matter(matched, tokenizer):
    _, chosen, encode, matches = matched
    model = model_of(tokenizer).train()
    model.set_rule("logn")
    again = match_variants(model, chosen, encode, train_bp=64, eval_bp=[128], report=quiet)
    assert again[128] == matches[128]


def test_windows_that_no_rule_acts_on_do_not_count(matched, genome, tokenizer):
    """One window of many short tokens of N would feel no multiplier."""
    _, chosen, encode, _ = matched
    lengths = encode(chosen, 80).lengths
    n_train = int(np.sort(lengths)[3])  # three or more windows are not longer
    model = model_of(tokenizer, n_train=n_train)
    found = match_variants(model, chosen, encode, train_bp=64, eval_bp=[80], report=quiet)
    longer = chosen[lengths > n_train].reset_index(drop=True)
    assert 0 < len(longer) < len(chosen)
    model.set_rule(
        "entropy-matched", torch.tensor([[match.beta for match in layer] for layer in found[80]])
    )
    entropies = dnabert2_entropies(model, encode(longer, 80))
    for layer, head in np.ndindex(2, 2):
        assert entropies[layer][head] == pytest.approx(found[80][layer][head].entropy, abs=1e-4)
    short = model_of(tokenizer, n_train=500)  # every window is within its training length
    found = match_variants(short, chosen, encode, train_bp=64, eval_bp=[80], report=quiet)
    assert {match.beta for layer in found[80] for match in layer} == {1.0}


def test_the_multipliers_of_a_file_score_variants(matched, genome, tokenizer, variants):
    model, _, _, matches = matched
    measured = Measured("a.json", 30, "bp", {"alibi": matches})
    test = variants[variants["split"] == "test"]
    tables = {}
    for bp in (TRAIN_BP, 128):
        multipliers, _ = measured.at("alibi", bp)
        tables[bp] = score_variants(
            model, tokenizer, genome, test, bp, ["none", "entropy-matched"],
            protocol="paired", batch_tokens=500, measured=multipliers, report=quiet,
        )  # fmt: skip
    assert (tables[TRAIN_BP]["none"] == tables[TRAIN_BP]["entropy-matched"]).all()
    assert (tables[128]["none"] - tables[128]["entropy-matched"]).abs().max() > 1e-4


def test_the_released_protocol_is_measured_on_what_it_shows(genome, tokenizer, variants):
    model = model_of(tokenizer, protocol="released", n_train=12)
    encode = reference_encoder(genome, tokenizer, "released")
    chosen = choose_variants(variants, most=6)
    found = match_variants(model, chosen, encode, train_bp=64, eval_bp=[64, 128], report=quiet)
    assert list(found) == [64, 128]
    assert encode(chosen, 128).lengths.max() <= 32  # its scripts cut 128 bp there
