"""Protocols: what a model is shown of a variant, and which head reads it.

| protocol | input | readout |
| --- | --- | --- |
| `paired` | reference and alternative window | mean of the tokens at the allele, tissue one-hot |
| `released` | alternative window, cut on the right | [CLS]; the tissue is ignored |

Under `paired` no token is cut off, unless the tokenizer's file declares a limit: then evenly around
the variant. Between the two stand protocols that take over one or two of the released choices and
leave the rest as in `paired`, so that what each costs can be measured: `alternative-only`,
`at-cls`, `alternative-at-cls` and `random-dev` (the same examples as `paired`, another dev set).

To add one, write a subclass of `Examples` and a row of `PROTOCOLS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer

from longscale.attention.released import released_token_limit
from longscale.errors import LongscaleError
from longscale.genome.sequence import Genome
from longscale.models.dnabert2 import (
    DNABERT2ForSequenceClassification,
    DNABERT2ForVariantEffect,
    DNABERT2PreTrainedModel,
)
from longscale.models.tokenizer import PAD, EncodedWindows, encode_windows, token_limit
from longscale.variants.windows import Allele, gather_windows, readout_span


@dataclass(frozen=True)
class Examples(ABC):
    """Variants as tokens with their labels: (rows,) int64."""

    alleles: ClassVar[tuple[Allele, ...]]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    @abstractmethod
    def encode(
        cls,
        genome: Genome,
        tokenizer: Tokenizer,
        variants: pd.DataFrame,
        window_bp: int,
        tissues: list[str],
    ) -> Self:
        """Cut and tokenise the windows of `variants` (contig, pos 1-based, ref, alt, tissue,
        label).
        """

    @staticmethod
    @abstractmethod
    def token_limit(tokenizer: Tokenizer, window_bp: int) -> int | None:
        """Tokens, special ones included, to which `encode` cuts a window; None: it cuts none."""

    @property
    @abstractmethod
    def windows(self) -> list[EncodedWindows]:
        """All windows that the model sees, one entry per allele, in the order of `alleles`."""

    @abstractmethod
    def inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the model's forward takes for these rows, labels aside."""

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) tokens of each example, its alleles together."""
        return sum(windows.lengths for windows in self.windows)

    def batch(self, indices: list[int] | np.ndarray) -> dict[str, torch.Tensor]:
        """The inputs and `labels` of a batch as tensors."""
        rows = np.asarray(indices)
        arrays = {**self.inputs(rows), "labels": self.labels[rows]}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class AllelePairs(Examples):
    """Protocol `paired`; `tissue`: (rows, tissues) float32 one-hot."""

    alleles = ("ref", "alt")
    at_cls: ClassVar[bool] = False
    reference: EncodedWindows
    alternative: EncodedWindows
    tissue: np.ndarray

    @classmethod
    def encode(
        cls,
        genome: Genome,
        tokenizer: Tokenizer,
        variants: pd.DataFrame,
        window_bp: int,
        tissues: list[str],
    ) -> Self:
        """Both alleles of each variant; raises if a tissue is not among `tissues`."""
        limit = cls.token_limit(tokenizer, window_bp)
        encoded = []
        for allele in cls.alleles:
            windows = gather_windows(genome, variants, window_bp, allele)
            allele_bp = variants[allele].str.len().to_numpy()
            spans = None if cls.at_cls else readout_span(allele_bp, window_bp)
            tokens = encode_windows(tokenizer, windows, spans)
            encoded.append(tokens if limit is None else tokens.truncate_around(limit))
        return cls(labels_of(variants), *encoded, one_hot(variants["tissue"], tissues))

    @staticmethod
    def token_limit(tokenizer: Tokenizer, window_bp: int) -> int | None:
        """What the tokenizer's file declares; DNABERT-2's declares nothing."""
        del window_bp
        return token_limit(tokenizer)

    @property
    def windows(self) -> list[EncodedWindows]:
        """Reference, alternative."""
        return [self.reference, self.alternative]

    def inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of `DNABERT2ForVariantEffect`: reference rows first, then alternative ones."""
        padded = [allele.pad(rows) for allele in self.windows]
        width = max(ids.shape[1] for ids, _ in padded)
        readout = np.concatenate([allele.readout[rows] for allele in self.windows]).astype(np.int64)
        inputs = {
            "input_ids": np.concatenate([widen(ids, width, PAD) for ids, _ in padded]),
            "attention_mask": np.concatenate([widen(mask, width, 0) for _, mask in padded]),
            "readout_start": readout[:, 0],
            "readout_stop": readout[:, 1],
        }
        return inputs | ({"tissue": self.tissue[rows]} if self.tissue.shape[1] else {})


class PairsAtCLS(AllelePairs):
    """Both alleles, but read at [CLS]."""

    at_cls = True


class AlternativeTwice(AllelePairs):
    """The alternative allele in both places: the head is told nothing of the reference."""

    alleles = ("alt", "alt")


class AlternativeTwiceAtCLS(AlternativeTwice):
    """The same, read at [CLS]."""

    at_cls = True


@dataclass(frozen=True)
class AlternativeAlleles(Examples):
    """Protocol `released`: the alternative window alone, as the released scripts cut it."""

    alleles = ("alt",)
    alternative: EncodedWindows

    @classmethod
    def encode(
        cls,
        genome: Genome,
        tokenizer: Tokenizer,
        variants: pd.DataFrame,
        window_bp: int,
        tissues: list[str],
    ) -> Self:
        """The alternative window of each variant, truncated on the right; `tissues` is ignored."""
        del tissues
        windows = gather_windows(genome, variants, window_bp, "alt")
        encoded = encode_windows(tokenizer, windows)
        limit = cls.token_limit(tokenizer, window_bp)
        return cls(labels_of(variants), encoded.truncate_right(limit))

    @staticmethod
    def token_limit(tokenizer: Tokenizer, window_bp: int) -> int:
        """That of the released scripts, which replaces what a tokenizer declares."""
        del tokenizer
        return released_token_limit(window_bp)

    @property
    def windows(self) -> list[EncodedWindows]:
        """The alternative allele."""
        return [self.alternative]

    def inputs(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of `DNABERT2ForSequenceClassification`."""
        ids, mask = self.alternative.pad(rows)
        return {"input_ids": ids, "attention_mask": mask}


@dataclass(frozen=True)
class Protocol:
    """A row of `PROTOCOLS`: how variants become examples, and the model that reads them."""

    examples: type[Examples]
    model: type[DNABERT2PreTrainedModel]
    list_tissues: Callable[[pd.DataFrame], list[str]]


def labels_of(variants: pd.DataFrame) -> np.ndarray:
    """Labels as torch wants them."""
    return variants["label"].to_numpy(dtype=np.int64)


def one_hot(tissue: pd.Series, tissues: list[str]) -> np.ndarray:
    """(rows, tissues) float32; raises LongscaleError for a tissue that is not in the list."""
    unknown = sorted(set(tissue) - set(tissues)) if tissues else []
    if unknown:
        raise LongscaleError(
            f"tissue {unknown[0]!r} has no training variants; known: {', '.join(tissues)}"
        )
    columns = tissue.to_numpy(dtype=object)[:, None] == np.array(tissues, dtype=object)[None, :]
    return columns.reshape(len(tissue), len(tissues)).astype(np.float32)


def widen(rows: np.ndarray, width: int, fill: int) -> np.ndarray:
    """`rows` (rows, tokens) filled up on the right to `width` tokens."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)


def training_tissues(variants: pd.DataFrame) -> list[str]:
    """The tissues of the training variants in alphabetical order; empty where the task has none."""
    return sorted(set(variants.loc[variants["split"] == "train", "tissue"]) - {""})


PROTOCOLS = {
    "paired": Protocol(AllelePairs, DNABERT2ForVariantEffect, training_tissues),
    "alternative-only": Protocol(AlternativeTwice, DNABERT2ForVariantEffect, training_tissues),
    "at-cls": Protocol(PairsAtCLS, DNABERT2ForVariantEffect, training_tissues),
    "alternative-at-cls": Protocol(
        AlternativeTwiceAtCLS, DNABERT2ForVariantEffect, training_tissues
    ),
    "random-dev": Protocol(AllelePairs, DNABERT2ForVariantEffect, training_tissues),
    "released": Protocol(AlternativeAlleles, DNABERT2ForSequenceClassification, lambda _: []),
}
