"""A genome, a tokenizer, variants and a model, all as small as they can be."""

import numpy as np
import pandas as pd
import pysam
import torch

from longscale.genome.sequence import Genome
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForMaskedLM
from longscale.models.tokenizer import load_tokenizer, train_tokenizer

CONTIG_BP = 12_000
N_RUN = slice(5_000, 5_600)


def quiet(text):
    """A report that nobody reads."""


def write_genome(folder):
    """Three contigs of random bases; chr2 has a run of N."""
    rng = np.random.default_rng(2)
    contigs = {name: rng.choice(list("ACGTacgt"), CONTIG_BP) for name in ("chr1", "chr2", "chr3")}
    contigs["chr2"][N_RUN] = "N"
    path = folder / "genome.fa"
    path.write_text("".join(f">{name}\n{''.join(bases)}\n" for name, bases in contigs.items()))
    pysam.faidx(str(path))
    return Genome(path)


def write_tokenizer(genome, folder, vocab_size=24):
    """A tokenizer of tokens of one to three bases."""
    train_tokenizer(genome, folder / "tokenizer.json", vocab_size=vocab_size, seed=1)
    return load_tokenizer(folder)


def make_variants(genome, contig, count, *, split="", tissues=("",), seed=0):
    """SNVs of an A: to C with label 1, to G with label 0; rows as a splits file has them."""
    rng = np.random.default_rng(seed)
    bases = genome.fetch(contig, 0, CONTIG_BP)
    inside = np.arange(1_000, 4_500)
    positions = np.sort(rng.choice(inside[bases[inside] == ord("A")], count, replace=False))
    labels = rng.permutation(np.arange(count) % 2)
    return pd.DataFrame(
        {
            "contig": contig,
            "pos": positions + 1,
            "ref": "A",
            "alt": np.where(labels == 1, "C", "G"),
            "label": labels.astype(np.int8),
            "split": split,
            "tissue": rng.permutation(np.resize(tissues, count)),
            "line": np.arange(count) + 2,
        }
    )


def tiny_config(tokenizer, **changes):
    """One layer of two heads, 16 wide."""
    small = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.1,
    }
    return DNABERT2Config(**(small | changes))


def save_pretrained(tokenizer, folder, seed=0, **changes):
    """A random masked language model in `folder`, with queries and keys of unequal lengths."""
    torch.manual_seed(seed)
    model = DNABERT2ForMaskedLM(tiny_config(tokenizer, **changes))
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            layer.attention.self.Wqkv.weight.normal_(0, 0.3)
            layer.attention.self.Wqkv.bias.normal_(0, 0.5)
    model.save_pretrained(folder)
    return folder
