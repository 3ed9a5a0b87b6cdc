"""`entropy-matched` for DNABERT-2: multipliers measured around held-out variants.

Measured are the windows of the reference allele around development variants: held out, and without
their labels.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from longscale.errors import LongscaleError
from longscale.evaluation.entropy import Match, dnabert2_entropies, restore_dnabert2
from longscale.evaluation.multipliers import Matches, describe_matches
from longscale.genome.sequence import Genome
from longscale.models.dnabert2 import DNABERT2PreTrainedModel
from longscale.models.tokenizer import EncodedWindows
from longscale.training.protocols import PROTOCOLS

MOST_WINDOWS = 64

Encode = Callable[[pd.DataFrame, int], EncodedWindows]  # variants, window_bp -> their windows


def choose_variants(variants: pd.DataFrame, most: int = MOST_WINDOWS) -> pd.DataFrame:
    """At most `most` development variants at distinct positions, evenly over the table.

    `variants` has the columns contig, pos (1-based), split. Raises `LongscaleError` if there is no
    development variant.
    """
    dev = variants[variants["split"] == "dev"].drop_duplicates(["contig", "pos"])
    if dev.empty:
        raise LongscaleError(
            "there is no variant of split dev, around which attention entropies are measured"
        )
    rows = np.linspace(0, len(dev) - 1, min(len(dev), most)).round().astype(int)
    return dev.iloc[rows].reset_index(drop=True)


def reference_encoder(genome: Genome, tokenizer: Tokenizer, protocol: str) -> Encode:
    """What makes of variants the windows that the protocol shows first, without a tissue.

    That is the reference allele under `paired`, and under `released`, which never shows it, the
    alternative one.
    """
    encode = PROTOCOLS[protocol].examples.encode
    return lambda variants, bp: encode(genome, tokenizer, variants, bp, []).windows[0]


def match_variants(
    model: DNABERT2PreTrainedModel,
    variants: pd.DataFrame,
    encode: Encode,
    *,
    train_bp: int,
    eval_bp: Iterable[int],
    report: Callable[[str], None] = print,
) -> dict[int, Matches]:
    """Length in bp -> the multipliers of each layer and head (see `evaluation.entropy`).

    They are 1 up to `train_bp`, and where no window has more than n_train tokens (protocol
    `released` cuts long windows). Else windows of no more tokens are left out: no rule acts on
    them.
    """
    model.eval()
    model.set_rule("none")
    targets = dnabert2_entropies(model, encode(variants, train_bp))
    report(f"{train_bp:,} bp: {len(variants)} windows, mean entropy {_mean(targets):.3f} nats")
    found: dict[int, Matches] = {}
    for bp in sorted(set(eval_bp)):
        windows = encode(variants, bp)
        beyond = windows.lengths > model.config.n_train
        if bp <= train_bp or not beyond.any():
            entropies = targets if bp == train_bp else dnabert2_entropies(model, windows)
            found[bp] = [[Match(1.0, entropy, True) for entropy in layer] for layer in entropies]
            continue
        if not beyond.all():
            windows = encode(variants[beyond].reset_index(drop=True), bp)
        found[bp] = restore_dnabert2(model, windows, targets)
        report(f"{bp:,} bp: {describe_matches(found[bp])}")
    return found


def _mean(entropies: Sequence[Sequence[float]]) -> float:
    return float(np.mean([value for layer in entropies for value in layer]))
