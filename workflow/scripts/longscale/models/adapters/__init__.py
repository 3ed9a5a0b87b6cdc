"""Which module makes the frozen encoder of an architecture: its `load(folder, logits=...)`."""

from longscale.models.adapters import (
    dnabert2,
    enformer,
    gau_alpha,
    huggingface,
    hyenadna,
    nucleotide_transformer,
)

ENCODERS = {
    "dnabert2": dnabert2.load,
    "gau-alpha": gau_alpha.load,
    "nucleotide-transformer": nucleotide_transformer.load,
    "hyenadna": hyenadna.load,
    "huggingface": huggingface.load,
    "enformer": enformer.load,
}
