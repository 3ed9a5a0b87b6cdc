"""What tokenisation and truncation leave of the windows that a model is shown.

Measured on the windows as the protocols make them, which are those that are trained on and scored.
"""

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from longscale.genome.sequence import Genome
from longscale.models.tokenizer import EncodedWindows
from longscale.tasks.split_leaks import VARIANT_KEY
from longscale.tasks.splits import GAP
from longscale.training.protocols import PROTOCOLS

SPECIAL_PER_WINDOW = 2  # [CLS] and [SEP]
MOST_VARIANTS = 2000
SEED = 1
CHUNK_BP = 8_000_000

AUDIT_COLUMNS = [
    *("protocol", "window_bp", "allele", "windows", "token_limit"),
    *("tokens_per_bp", "tokens_per_bp_min", "tokens_per_bp_max"),
    *("truncated_share", "variant_kept_share", "flags"),
]

AUDIT_FLAGS = {
    "truncated": "windows are cut to the limit of tokens",
    "variant_cut_away": "the token that holds the window's centre base, where the allele begins, is"
    " cut away from some windows: nothing in them tells the variant",
}


def sample_variants(
    variants: pd.DataFrame, most: int = MOST_VARIANTS, seed: int = SEED
) -> tuple[pd.DataFrame, int]:
    """At most `most` distinct variants of train, dev and test, drawn with `seed`, in their order.

    `variants` is a table of splits. Returns them and the number of variants that they were drawn
    from.
    """
    used = variants[variants["split"] != GAP].drop_duplicates(VARIANT_KEY)
    if len(used) <= most:
        return used.reset_index(drop=True), len(used)
    rows = np.random.default_rng(seed).choice(len(used), most, replace=False)
    return used.iloc[np.sort(rows)].reset_index(drop=True), len(used)


def audit_tokens(
    genome: Genome, tokenizer: Tokenizer, variants: pd.DataFrame, *, protocol: str, window_bp: int
) -> pd.DataFrame:
    """One row per allele that the protocol shows, with AUDIT_COLUMNS.

    `variants` has the columns contig, pos (1-based), ref, alt, label, tissue. `token_limit` counts
    special tokens, and is None where nothing is cut. Tokens per bp are those of the whole window
    before any cut, without special tokens. `truncated_share` and `variant_kept_share` are shares of
    the windows: of those that lost tokens, and of those that still have the token which holds the
    centre base (0-based index `window_bp // 2`, where the allele begins). Raises LongscaleError for
    a contig that the genome does not have.
    """
    examples = PROTOCOLS[protocol].examples
    rows_per_chunk = max(1, CHUNK_BP // window_bp)
    parts: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(variants), rows_per_chunk):
        chunk = variants.iloc[first : first + rows_per_chunk].reset_index(drop=True)
        shown = examples.encode(genome, tokenizer, chunk, window_bp, []).windows
        for allele, windows in dict(zip(examples.alleles, shown, strict=True)).items():
            parts.setdefault(allele, []).append(_facts(windows))
    limit = examples.token_limit(tokenizer, window_bp)
    rows = [
        {"protocol": protocol, "window_bp": window_bp, "allele": allele, "token_limit": limit}
        | _summarise(np.concatenate(facts), window_bp)
        for allele, facts in parts.items()
    ]
    return pd.DataFrame(rows, columns=AUDIT_COLUMNS).astype({"token_limit": object})


def audit_sentences(table: pd.DataFrame) -> list[str]:
    """One sentence per finding, with its numbers; `table` also has the columns task and model."""
    sentences = []
    for row in table.to_dict("records"):
        where = f"{row['task']}, {row['model']}, {row['protocol']}, {row['window_bp']:,} bp"
        counted = f"of {row['windows']:,} windows of the {row['allele']} allele"
        if row["truncated_share"] > 0:
            cut = round(row["truncated_share"] * row["windows"])
            sentences.append(
                f"warning: {where}: {cut:,} {counted} are cut to {row['token_limit']:,} tokens"
            )
        if row["variant_kept_share"] < 1:
            lost = round((1 - row["variant_kept_share"]) * row["windows"])
            sentences.append(f"warning: {where}: {lost:,} {counted} lose the variant to that cut")
    return sentences


def _facts(windows: EncodedWindows) -> np.ndarray:
    """(windows, 3) int64: tokens before any cut, tokens cut off, whether the variant's is kept."""
    cut = windows.cut.sum(axis=1)
    whole = windows.lengths + cut - SPECIAL_PER_WINDOW
    return np.stack([whole, cut, windows.variant >= 0], axis=1).astype(np.int64)


def _summarise(facts: np.ndarray, window_bp: int) -> dict[str, object]:
    whole, cut, is_kept = facts.T
    flags = {"truncated": (cut > 0).any(), "variant_cut_away": (is_kept == 0).any()}
    return {
        "windows": len(facts),
        "tokens_per_bp": whole.mean() / window_bp,
        "tokens_per_bp_min": whole.min() / window_bp,
        "tokens_per_bp_max": whole.max() / window_bp,
        "truncated_share": (cut > 0).mean(),
        "variant_kept_share": is_kept.mean(),
        "flags": ";".join(flag for flag in AUDIT_FLAGS if flags[flag]),
    }
