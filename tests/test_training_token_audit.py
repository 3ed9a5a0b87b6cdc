"""The audit of tokens, against the tokenizer's own offsets, one window at a time."""

import numpy as np
import pandas as pd
import pytest
from tiny_study import make_variants, write_genome, write_tokenizer
from tokenizers import Tokenizer

from longscale.attention.released import released_token_limit
from longscale.errors import LongscaleError
from longscale.training import token_audit
from longscale.training.token_audit import (
    AUDIT_COLUMNS,
    AUDIT_FLAGS,
    audit_sentences,
    audit_tokens,
    sample_variants,
)
from longscale.variants.windows import gather_windows


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def tokenizer(genome, tmp_path_factory):
    """Tokens of one to three bases."""
    return write_tokenizer(genome, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def variants(genome):
    table = make_variants(genome, "chr2", 40, split="train", tissues=["liver"])
    table.loc[[3, 8], "alt"] = "A" + "CG" * 15
    return table


def limited(tokenizer, limit):
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(limit)
    return copy


def slow_audit(genome, tokenizer, variants, protocol, window_bp, allele, limit):
    """Tokens per bp, and shares of windows that are cut and that keep the centre base's token."""
    windows = gather_windows(genome, variants, window_bp, allele)
    per_bp, cut, kept = [], [], []
    for window in windows:
        encoding = tokenizer.encode(window.tobytes().decode())
        body = encoding.offsets[1:-1]
        per_bp.append(len(body) / window_bp)
        (place,) = [n for n, (a, b) in enumerate(body) if a <= window_bp // 2 < b]
        cut.append(limit is not None and len(body) + 2 > limit)
        # Cut on the right under `released`; around the variant, which always stays, else.
        kept.append(protocol == "paired" or not cut[-1] or place < limit - 2)
    return [np.mean(per_bp), min(per_bp), max(per_bp), np.mean(cut), np.mean(kept)]


@pytest.mark.parametrize("window_bp", [100, 500])
@pytest.mark.parametrize("vocab_size", [9, 40])
def test_released_against_offsets(genome, variants, tmp_path, window_bp, vocab_size):
    tokenizer = write_tokenizer(genome, tmp_path, vocab_size=vocab_size)
    table = audit_tokens(genome, tokenizer, variants, protocol="released", window_bp=window_bp)
    assert list(table.columns) == AUDIT_COLUMNS
    (row,) = table.to_dict("records")
    limit = released_token_limit(window_bp)
    assert (row["allele"], row["windows"], row["token_limit"]) == ("alt", 40, limit)
    expected = slow_audit(genome, tokenizer, variants, "released", window_bp, "alt", limit)
    assert [row[name] for name in AUDIT_COLUMNS[5:10]] == pytest.approx(expected)
    if vocab_size == 9:  # a token per base
        assert row["variant_kept_share"] == 0
        assert row["flags"] == "truncated;variant_cut_away"


@pytest.mark.parametrize("limit", [None, 20, 64])
@pytest.mark.parametrize("window_bp", [100, 501])
def test_paired_against_offsets_and_the_variant_always_stays(
    genome, tokenizer, variants, window_bp, limit
):
    used = tokenizer if limit is None else limited(tokenizer, limit)
    table = audit_tokens(genome, used, variants, protocol="paired", window_bp=window_bp)
    assert table["allele"].tolist() == ["ref", "alt"]
    for row in table.to_dict("records"):
        expected = slow_audit(
            genome, tokenizer, variants, "paired", window_bp, row["allele"], limit
        )
        assert [row[name] for name in AUDIT_COLUMNS[5:10]] == pytest.approx(expected)
        assert row["token_limit"] == limit
        assert row["variant_kept_share"] == 1
        assert row["flags"] == ("truncated" if row["truncated_share"] else "")
        assert bool(row["truncated_share"]) == (limit == 20 or (limit == 64 and window_bp == 501))


def test_an_allele_that_is_shown_twice_is_counted_once(genome, tokenizer, variants):
    twice = audit_tokens(genome, tokenizer, variants, protocol="alternative-only", window_bp=100)
    paired = audit_tokens(genome, tokenizer, variants, protocol="paired", window_bp=100)
    assert twice["allele"].tolist() == ["alt"]
    both = [table.drop(columns="protocol").to_dict("records") for table in (twice, paired)]
    assert both[0] == both[1][1:]


def test_chunks_change_nothing(genome, tokenizer, variants, monkeypatch):
    options = {"protocol": "paired", "window_bp": 100}
    whole = audit_tokens(genome, limited(tokenizer, 40), variants, **options)
    monkeypatch.setattr(token_audit, "CHUNK_BP", 700)
    pd.testing.assert_frame_equal(
        audit_tokens(genome, limited(tokenizer, 40), variants, **options), whole
    )


def test_the_sample_is_of_distinct_used_variants_and_seeded(variants):
    table = pd.concat(
        [
            variants,
            variants.assign(tissue="lung"),
            variants.assign(contig="chr1", split="gap"),
            variants.assign(contig="chr3", split="test"),
        ],
        ignore_index=True,
    )
    everything, count = sample_variants(table, most=80)
    assert (len(everything), count) == (80, 80)
    assert set(everything["contig"]) == {"chr2", "chr3"}
    some, count = sample_variants(table, most=30)
    assert (len(some), count) == (30, 80)
    assert not some.duplicated(["contig", "pos", "ref", "alt"]).any()
    assert some["line"].tolist() == some.sort_values(["contig", "pos"])["line"].tolist()
    pd.testing.assert_frame_equal(sample_variants(table, most=30)[0], some)
    assert not sample_variants(table, most=30, seed=2)[0].equals(some)


def test_every_finding_is_one_sentence(genome, variants, tmp_path):
    tokenizer = write_tokenizer(genome, tmp_path, vocab_size=9)
    released = audit_tokens(genome, tokenizer, variants, protocol="released", window_bp=100)
    paired = audit_tokens(genome, tokenizer, variants, protocol="paired", window_bp=100)
    table = pd.concat([released, paired]).assign(task="t", model="m")
    where = "warning: t, m, released, 100 bp: 40 of 40 windows of the alt allele"
    assert audit_sentences(table) == [
        f"{where} are cut to 16 tokens",
        f"{where} lose the variant to that cut",
    ]
    assert set(";".join(table["flags"]).split(";")) - {""} == AUDIT_FLAGS.keys()


def test_an_unknown_contig_is_one_sentence(genome, tokenizer, variants):
    with pytest.raises(LongscaleError, match="has no contig 'chr9'"):
        audit_tokens(
            genome, tokenizer, variants.assign(contig="chr9"), protocol="paired", window_bp=100
        )
