"""Scores of variants: one window at a time is the oracle of every batch."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import make_variants, quiet, tiny_config, write_genome, write_tokenizer

from longscale.attention.rules import LENGTH_RULES
from longscale.errors import LongscaleError
from longscale.evaluation import scoring
from longscale.evaluation.scores import ROW_COLUMNS
from longscale.evaluation.scoring import score_variants
from longscale.training.protocols import PROTOCOLS
from longscale.variants.windows import gather_windows, readout_span

WINDOW_BP = 96
RULES = list(LENGTH_RULES)
CLAMPED = [name for name, rule in LENGTH_RULES.items() if not rule.released]
TISSUES = ["a", "b"]
MEASURED = torch.tensor([[1.7, 0.8]])  # layers, heads


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def tokenizer(genome, tmp_path_factory):
    return write_tokenizer(genome, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def variants(genome):
    """With two indels, and an index that does not begin at 0."""
    table = make_variants(genome, "chr3", 30, split="test", tissues=TISSUES)
    table.loc[3, "alt"] = "A" + "CGT" * 6
    table.loc[7, "ref"] = (
        genome.fetch("chr3", table["pos"][7] - 1, table["pos"][7] + 9).tobytes().decode()
    )
    table.loc[7, "alt"] = "A"
    return table.set_index(np.arange(30) + 500)


def model_of(tokenizer, protocol="paired", n_train=20, attention="dot"):
    """Random parameters, large enough to make every term count."""
    torch.manual_seed(4)
    tissues = TISSUES if protocol == "paired" else []
    config = tiny_config(
        tokenizer, n_train=n_train, attention=attention, tissues=tissues, num_labels=2
    )
    model = PROTOCOLS[protocol].model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def scored(
    model, tokenizer, genome, variants, rules=RULES, protocol="paired", batch_tokens=500,
    measured=MEASURED,
):  # fmt: skip
    return score_variants(
        model, tokenizer, genome, variants, WINDOW_BP, rules,
        protocol=protocol, batch_tokens=batch_tokens, measured=measured, report=quiet,
    )  # fmt: skip


@pytest.fixture(scope="module")
def scores(genome, tokenizer, variants):
    return scored(model_of(tokenizer), tokenizer, genome, variants)


# --- scores -----------------------------------------------------------------------------------


def slow_score(model, tokenizer, genome, variant, rule):
    """One variant alone, without padding: log-odds of label 1."""
    spans, ids = [], []
    for allele in ("ref", "alt"):
        (window,) = gather_windows(genome, variant, WINDOW_BP, allele)
        encoding = tokenizer.encode(window.tobytes().decode())
        (start,), (stop,) = readout_span([variant[allele].str.len().item()], WINDOW_BP)
        hit = [i for i, (a, b) in enumerate(encoding.offsets) if a < stop and b > start]
        spans.append((hit[0], hit[-1] + 1))
        ids.append(torch.tensor(encoding.ids))
    model.set_rule(rule, MEASURED if LENGTH_RULES[rule].measured else None)
    with torch.inference_mode():
        read = [
            model.bert(row[None]).last_hidden_state[0, start:stop].mean(0)
            for row, (start, stop) in zip(ids, spans, strict=True)
        ]
        tissue = torch.tensor([[float(variant["tissue"].item() == name) for name in TISSUES]])
        logits = model.head(read[0][None], read[1][None], tissue)[0]
        log_p = logits.log_softmax(0)
    return (log_p[1] - log_p[0]).item()


def test_a_score_is_the_log_odds_of_its_variant_alone(scores, genome, tokenizer, variants):
    model = model_of(tokenizer)
    for row in (0, 3, 7, 29):
        for rule in RULES:
            expected = slow_score(model, tokenizer, genome, variants[row : row + 1], rule)
            assert scores[rule][row] == pytest.approx(expected, abs=2e-5), rule


def test_the_rows_are_those_of_the_input_in_its_order(scores, variants):
    assert list(scores.columns) == [*ROW_COLUMNS, *RULES]
    assert list(scores.index) == list(range(30))
    for column in ROW_COLUMNS:
        assert scores[column].tolist() == variants[column].tolist()
    assert (scores[RULES].dtypes == np.float32).all()


@pytest.mark.parametrize("batch_tokens", [1, 97, 100_000])
def test_scores_do_not_depend_on_the_size_of_a_batch(
    scores, genome, tokenizer, variants, batch_tokens
):
    other = scored(model_of(tokenizer), tokenizer, genome, variants, batch_tokens=batch_tokens)
    np.testing.assert_allclose(other[RULES], scores[RULES], atol=1e-5)


def test_scores_do_not_depend_on_the_company_of_a_row(scores, genome, tokenizer, variants):
    order = np.random.default_rng(1).permutation(30)[:17]
    other = scored(model_of(tokenizer), tokenizer, genome, variants.iloc[order])
    np.testing.assert_allclose(other[RULES], scores[RULES].iloc[order], atol=1e-5)


def test_scores_do_not_depend_on_the_chunks_of_windows(
    scores, genome, tokenizer, variants, monkeypatch
):
    monkeypatch.setattr(scoring, "CHUNK_BP", 4 * WINDOW_BP)
    lines = []
    other = score_variants(
        model_of(tokenizer), tokenizer, genome, variants, WINDOW_BP, RULES,
        protocol="paired", batch_tokens=500, measured=MEASURED, report=lines.append,
    )  # fmt: skip
    np.testing.assert_allclose(other[RULES], scores[RULES], atol=1e-5)
    assert lines == ["30/30 variants at 96 bp, 0.0 min left"]


def test_the_order_of_the_rules_does_not_matter(scores, genome, tokenizer, variants):
    other = scored(model_of(tokenizer), tokenizer, genome, variants, rules=RULES[::-1])
    assert list(other.columns) == [*ROW_COLUMNS, *RULES[::-1]]
    pd.testing.assert_frame_equal(other[scores.columns], scores)


def test_none_is_the_model_without_a_rule(scores, genome, tokenizer, variants):
    """`set_rule` never called, not even possible: a model without n_train."""
    model = model_of(tokenizer, n_train=None)
    steps = PROTOCOLS["paired"].examples
    examples = steps.encode(genome, tokenizer, variants, WINDOW_BP, TISSUES)
    with torch.inference_mode():
        logits = model(**examples.batch(np.arange(30))).logits
    np.testing.assert_allclose(scores["none"], logits[:, 1] - logits[:, 0], atol=1e-5)


def test_beyond_the_training_length_every_rule_is_another(scores):
    """The comparison below cannot pass by a rule having no effect."""
    for i, rule in enumerate(RULES):
        for other in RULES[:i]:
            assert (scores[rule] - scores[other]).abs().max() > 1e-4, (rule, other)


@pytest.mark.parametrize("attention", ["dot", "cos16", "cos-matched"])
def test_up_to_the_training_length_every_rule_is_none(genome, tokenizer, variants, attention):
    model = model_of(tokenizer, n_train=WINDOW_BP + 2, attention=attention)
    table = scored(model, tokenizer, genome, variants)
    for rule in CLAMPED:
        assert (table[rule] == table["none"]).all(), rule
    assert (table["infoscale-released"] != table["none"]).any()


def test_a_dropout_that_is_still_on_is_turned_off(scores, genome, tokenizer, variants):
    model = model_of(tokenizer).train()
    assert model.config.hidden_dropout_prob > 0
    pd.testing.assert_frame_equal(scored(model, tokenizer, genome, variants), scores)


def test_released_scores_are_those_of_its_batches(genome, tokenizer, variants):
    model = model_of(tokenizer, protocol="released")
    table = scored(model, tokenizer, genome, variants, ["none", "logn"], protocol="released")
    examples = PROTOCOLS["released"].examples.encode(genome, tokenizer, variants, WINDOW_BP, [])
    for rule in ("none", "logn"):
        model.set_rule(rule)
        for row in (0, 7, 12):
            with torch.inference_mode():
                logits = model(**examples.batch([row])).logits[0]
            assert table[rule][row] == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)


def test_a_model_that_says_nothing_of_tissues_has_none(genome, tokenizer, variants):
    model = PROTOCOLS["paired"].model(tiny_config(tokenizer, tissues=None))
    table = scored(model, tokenizer, genome, variants.assign(tissue=""), ["none"])
    assert len(table) == 30


# --- mistakes ---------------------------------------------------------------------------------


def test_mistakes_are_one_sentence(genome, tokenizer, variants):
    model = model_of(tokenizer)
    with pytest.raises(LongscaleError, match="there is no test variant to score"):
        scored(model, tokenizer, genome, variants[:0])
    with pytest.raises(LongscaleError, match="tissue 'c' has no training variants; known: a, b"):
        scored(model, tokenizer, genome, variants.assign(tissue="c"))
    with pytest.raises(LongscaleError, match="'entropy-matched' has no formula; give the mult"):
        scored(model, tokenizer, genome, variants, measured=None)
    with pytest.raises(LongscaleError, match="'infoscal' is not a length rule"):
        scored(model, tokenizer, genome, variants, ["infoscal"])
