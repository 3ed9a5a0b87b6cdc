"""Log-likelihood ratios, against one masked window at a time."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_study import make_variants, quiet, save_pretrained, write_genome, write_tokenizer

from longscale.errors import LongscaleError
from longscale.evaluation.zero_shot import log_likelihood_ratios
from longscale.models.encoders import load_encoder
from longscale.models.nucleotide_transformer import (
    NucleotideTransformerConfig,
    NucleotideTransformerForMaskedLM,
)

CONTEXT_BP = 72
COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def encoders(genome, tmp_path_factory):
    """Byte pairs, and 6-mers."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("dnabert2", "nt")}
    save_pretrained(write_tokenizer(genome, folders["dnabert2"], 60), folders["dnabert2"])
    torch.manual_seed(2)
    config = NucleotideTransformerConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    NucleotideTransformerForMaskedLM(config).save_pretrained(folders["nt"])
    return {
        "dnabert2": load_encoder("dnabert2", folders["dnabert2"], logits=True),
        "nt": load_encoder("nucleotide-transformer", folders["nt"], logits=True),
    }


@pytest.fixture(scope="module")
def rows(genome):
    table = make_variants(genome, "chr1", 7)
    table.loc[2, "alt"] = "ACGTT"
    start = int(table["pos"][4]) - 1
    table.loc[4, "ref"] = genome.fetch("chr1", start, start + 5).tobytes().decode()
    return pd.DataFrame(
        {"contig": "chr1", "anchor": table["pos"] - 1, "strand": "",
         "ref": table["ref"], "alt": table["alt"]}
    )  # fmt: skip


def text_of(genome, row, allele):
    chromosome = genome.fetch(row["contig"], 0, genome.lengths[row["contig"]]).tobytes().decode()
    if allele == "alt":
        after = row["anchor"] + len(row["ref"])
        chromosome = chromosome[: row["anchor"]] + row["alt"] + chromosome[after:]
    left = row["anchor"] - CONTEXT_BP // 2
    return chromosome[left : left + CONTEXT_BP]


def slow_log_likelihood(encoder, text, start, stop):
    """Token by token, from the places that the encoder gives."""
    window = np.frombuffer(text.encode(), np.uint8)[None]
    tokens = encoder.tokenise(window)
    ids = torch.from_numpy(tokens.window(0).astype(np.int64))
    hit = [
        i
        for i, (a, b) in enumerate(zip(tokens.starts, tokens.stops, strict=True))
        if a < stop and b > start
    ]
    masked = ids.clone()
    masked[hit] = encoder.mask_id
    with torch.inference_mode():
        logits = encoder.logits(masked[None], torch.ones(1, len(ids), dtype=torch.long))[0]
    return sum(float(logits[i].double().log_softmax(0)[ids[i]]) for i in hit)


@pytest.mark.parametrize("name", ["dnabert2", "nt"])
@pytest.mark.parametrize("both_strands", [False, True])
def test_equals_one_masked_window_at_a_time(encoders, genome, rows, name, both_strands):
    encoder = encoders[name]
    found = log_likelihood_ratios(
        encoder, genome, rows, CONTEXT_BP, batch_tokens=60, both_strands=both_strands, report=quiet
    )
    for number, row in enumerate(rows.to_dict("records")):
        of = {}
        for allele in ("ref", "alt"):
            text, start = text_of(genome, row, allele), CONTEXT_BP // 2
            stop = start + len(row[allele])
            values = [slow_log_likelihood(encoder, text, start, stop)]
            if both_strands:
                other = text[::-1].translate(COMPLEMENT)
                span = CONTEXT_BP - stop, CONTEXT_BP - start
                values.append(slow_log_likelihood(encoder, other, *span))
            of[allele] = np.mean(values)
        assert found[number] == pytest.approx(of["ref"] - of["alt"], abs=1e-4)


def test_an_snv_in_a_k_mer_is_the_usual_ratio(encoders, genome, rows):
    """One forward pass of the hidden reference context serves both alleles."""
    encoder = encoders["nt"]
    snvs = rows[(rows["ref"].str.len() == 1) & (rows["alt"].str.len() == 1)].reset_index(drop=True)
    found = log_likelihood_ratios(encoder, genome, snvs, CONTEXT_BP, batch_tokens=500, report=quiet)
    for number, row in enumerate(snvs.to_dict("records")):
        texts = [text_of(genome, row, allele).encode() for allele in ("ref", "alt")]
        windows = np.stack([np.frombuffer(text, np.uint8) for text in texts])
        tokens = encoder.tokenise(windows)
        place = int(tokens.token_at(CONTEXT_BP // 2)[0])
        ref, alt = (torch.from_numpy(tokens.window(i).astype(np.int64)) for i in (0, 1))
        masked = ref.clone()
        masked[place] = encoder.mask_id
        with torch.inference_mode():
            logits = encoder.logits(masked[None], torch.ones(1, len(ref), dtype=torch.long))
        log_p = logits[0, place].double().log_softmax(0)
        assert found[number] == pytest.approx(
            float(log_p[ref[place]] - log_p[alt[place]]), abs=1e-5
        )


def test_a_model_without_a_mask_is_refused(encoders, genome, rows, monkeypatch):
    monkeypatch.setattr(type(encoders["nt"]), "mask_id", None)
    with pytest.raises(LongscaleError, match="is no masked language model"):
        log_likelihood_ratios(encoders["nt"], genome, rows, CONTEXT_BP, batch_tokens=60)
