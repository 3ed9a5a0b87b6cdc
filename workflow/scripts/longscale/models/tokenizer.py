"""DNABERT-2's byte-pair encoding: training one on a genome, and windows to tokens with their
readout spans.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.sequence import Genome
from longscale.models.token_spans import TokenSpans, token_spans, without_settings

# DNABERT-2's special tokens in the order of their ids.
SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
UNK, CLS, SEP, PAD, MASK = range(len(SPECIAL_TOKENS))
CLS_PLACE = 0  # in every window
MOST_IDS = 1 << 16  # EncodedWindows.ids is uint16
LEAST_TOKENS = 3  # of a window that keeps its variant: [CLS], the variant's token, [SEP]
TRAINING_CHUNK_BP = 500
TRAINING_SAMPLE_BP = 8_000_000
NOT_SPELT = 1 << 40


@dataclass(frozen=True)
class EncodedWindows:
    """Windows as tokens, packed one after the other ([CLS] first and [SEP] last in each).

    ids: (tokens,) uint16; offsets: (windows + 1,) int64, window i is ids[offsets[i]:offsets[i +
    1]]; readout: (windows, 2) int32, the half-open span of tokens, counted from the window's [CLS],
    that overlaps the readout span in bp (or (0, 1), the [CLS] token, where no span was given);
    variant: (windows,) int32, the token that holds the window's centre base, where the allele
    begins, counted likewise, or -1 where it was cut away; cut: (windows, 2) int32, tokens that were
    cut off on the left and on the right.
    """

    ids: np.ndarray
    offsets: np.ndarray
    readout: np.ndarray
    variant: np.ndarray
    cut: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each window, special tokens included."""
        return np.diff(self.offsets)

    def window(self, index: int) -> np.ndarray:
        """Token ids of one window."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def truncate_right(self, limit: int) -> "EncodedWindows":
        """Windows of more than `limit` tokens (2 or more) cut on the right, [SEP] at their new end.

        What the released scripts do. Nothing keeps the variant's token: where it lies beyond the
        limit, it is cut away.
        """
        return self._keep(np.zeros(len(self.lengths), np.int64), limit)

    def truncate_around(self, limit: int) -> "EncodedWindows":
        """Windows of more than `limit` tokens (3 or more) cut evenly around the variant's token.

        [CLS] and [SEP] stay and count. What is left holds the variant's token and as many tokens
        on its left as on its right (one more on the right where their number is odd); a side that
        has fewer gives its places to the other. The readout is clipped to what is left.
        """
        sides = limit - LEAST_TOKENS
        on_the_left, on_the_right = self.variant - 1, self.lengths - 2 - self.variant
        left = np.maximum(np.minimum(on_the_left, sides // 2), sides - on_the_right)
        return self._keep(np.where(self.lengths > limit, on_the_left - left, 0), limit)

    def _keep(self, skipped: np.ndarray, limit: int) -> "EncodedWindows":
        """At most `limit` tokens of each window, the first `skipped` (windows,) after [CLS] cut."""
        kept = np.minimum(self.lengths, limit)
        offsets = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        stretches = zip(self.offsets[:-1] + skipped, kept, strict=True)
        ids = np.concatenate([self.ids[first : first + size] for first, size in stretches])
        ids[offsets[:-1]], ids[offsets[1:] - 1] = CLS, SEP
        cut = np.stack([skipped, self.lengths - kept - skipped], axis=1)
        variant = self.variant - skipped
        is_kept = (variant > 0) & (variant < kept - 1)
        # What is read at the variant takes in no special token; what is read at [CLS] stays there.
        last = kept - (cut[:, 1] > 0)
        inside = np.clip(self.readout - skipped[:, None], 1, last[:, None])
        at_cls = self.readout[:, :1] == CLS_PLACE
        readout = np.where(at_cls, np.minimum(self.readout, kept[:, None]), inside)
        return EncodedWindows(
            ids,
            offsets,
            readout.astype(np.int32),
            np.where(is_kept, variant, -1).astype(np.int32),
            (self.cut + cut).astype(np.int32),
        )

    def pad(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask of the given windows, both (rows, longest of them), right-
        padded.
        """
        lengths = self.lengths[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(mask.shape, PAD, dtype=np.int64)
        ids[mask] = np.concatenate([self.window(row) for row in rows])
        return ids, mask.astype(np.int64)


def check_excluded(genome: Genome, exclude: tuple[str, ...]) -> None:
    """Raise where a contig to leave out does not exist: nothing would be left out then."""
    unknown = [name for name in exclude if name not in genome.lengths]
    if unknown:
        raise LongscaleError(
            f"pretrain.exclude_contigs names {unknown[0]!r}, which the genome does not have;"
            f" UCSC names are expected, such as {next(iter(genome.lengths))}"
        )


def draw_training_sequences(
    genome: Genome, rng: np.random.Generator, sample_bp: int, exclude: tuple[str, ...] = ()
) -> list[str]:
    """Random stretches of the genome without N, together at most `sample_bp` long.

    Contigs in `exclude` and those shorter than a stretch are left out. Raises LongscaleError where
    nothing remains.
    """
    check_excluded(genome, exclude)
    lengths = {
        name: length
        for name, length in genome.lengths.items()
        if name not in exclude and length >= TRAINING_CHUNK_BP
    }
    if not lengths:
        raise LongscaleError(
            f"no contig of at least {TRAINING_CHUNK_BP} bp is left to train a tokenizer on"
        )
    names, sizes = list(lengths), np.array(list(lengths.values()))
    count = max(1, min(sample_bp, int(sizes.sum())) // TRAINING_CHUNK_BP)
    contigs = rng.choice(len(names), size=count, p=sizes / sizes.sum())
    starts = (rng.random(count) * (sizes[contigs] - TRAINING_CHUNK_BP + 1)).astype(np.int64)
    rows = genome.gather([names[c] for c in contigs], starts, TRAINING_CHUNK_BP)
    sequences = [row.tobytes().decode() for row in rows if not (row == ord("N")).any()]
    if not sequences:
        raise LongscaleError(
            f"no stretch of {TRAINING_CHUNK_BP} bp without N was found to train a tokenizer on"
        )
    return sequences


def train_tokenizer(
    genome: Genome, path: str | Path, *, vocab_size: int, seed: int, exclude: tuple[str, ...] = ()
) -> None:
    """Train a byte-pair encoding on the genome and write it as `path` in DNABERT-2's layout."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    rng = np.random.default_rng(seed)
    sequences = draw_training_sequences(genome, rng, TRAINING_SAMPLE_BP, exclude)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=list("ACGT"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sequences, trainer)
    with atomic_path(path) as part:
        tokenizer.save(str(part))


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder's `tokenizer.json`; raises if its special tokens are not
    DNABERT-2's.
    """
    tokenizer = read_tokenizer(folder)
    found = tuple(tokenizer.token_to_id(token) for token in SPECIAL_TOKENS)
    if found != (UNK, CLS, SEP, PAD, MASK):
        raise LongscaleError(
            f"{Path(folder) / 'tokenizer.json'}: the ids of {', '.join(SPECIAL_TOKENS)} are"
            f" {found}, but must be 0 to 4 (DNABERT-2's layout)"
        )
    for fault in _layout_faults(tokenizer):
        raise LongscaleError(f"{Path(folder) / 'tokenizer.json'}: {fault}")
    return tokenizer


def _layout_faults(tokenizer: Tokenizer) -> Iterator[str]:
    """What would make wrong tokens of every window, in words."""
    most = max(tokenizer.get_vocab().values())
    if most > MOST_IDS - 1:
        yield f"its largest id is {most}, but must be below {MOST_IDS:,}"
    ids = without_settings(tokenizer).encode("ACGTACGTTTGCA").ids
    if len(ids) < LEAST_TOKENS or (ids[0], ids[-1]) != (CLS, SEP):
        yield "it does not put [CLS] before and [SEP] behind a sequence, as its post_processor must"
    elif UNK in ids[1:-1]:
        yield "its vocabulary does not spell A, C, G and T in upper case, of which windows are made"


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, model: str) -> None:
    """Raise where a tokenizer makes ids for which a model, named `model`, has no embedding."""
    most = max(tokenizer.get_vocab().values())
    if most >= vocab_size:
        raise LongscaleError(
            f"{model}: its vocab_size is {vocab_size}, but its tokenizer has ids up to {most}; the"
            " two must belong together"
        )


def read_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder's `tokenizer.json`, whatever its special tokens are."""
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise LongscaleError(f"{path}: no such file; a tokenizer is expected there")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        raise LongscaleError(
            f"{path}: not a tokenizer of the tokenizers library: {error}"
        ) from error


def token_limit(tokenizer: Tokenizer) -> int | None:
    """The most tokens of a window, special tokens included, that a tokenizer's file declares.

    That is `truncation.max_length` of its tokenizer.json; None where it declares none, as that of
    DNABERT-2. Raises LongscaleError where it has no place for a variant's token.
    """
    if tokenizer.truncation is None:
        return None
    limit = int(tokenizer.truncation["max_length"])
    if limit < LEAST_TOKENS:
        raise LongscaleError(
            f"tokenizer.json: truncation.max_length is {limit}, but must be at least {LEAST_TOKENS}"
            " ([CLS], a variant's token, [SEP])"
        )
    return limit


def encode_windows(
    tokenizer: Tokenizer,
    windows: np.ndarray,
    spans: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    chunk: int = 512,
) -> EncodedWindows:
    """Tokens of `windows` (rows, window_bp) uint8 ASCII: all of them, whatever the limit.

    `spans`: starts and stops (rows,) in window coordinates, 0-based half-open, of what is read out.
    """
    tokenizer = without_settings(tokenizer)
    bases = _bases_of_tokens(tokenizer)
    centre = windows.shape[1] // 2
    ids, lengths = [], []
    readout = np.tile(np.array([0, 1], dtype=np.int32), (len(windows), 1))
    variant = np.empty(len(windows), dtype=np.int32)
    for first in range(0, len(windows), chunk):
        texts = [row.tobytes().decode("ascii") for row in windows[first : first + chunk]]
        # Without offsets, which would cost a fifth more.
        encodings = zip(texts, tokenizer.encode_batch_fast(texts), strict=True)
        for row, (text, encoding) in enumerate(encodings, start=first):
            ids.append(np.array(encoding.ids, dtype=np.uint16))
            lengths.append(len(encoding.ids))
            ends = _token_ends(tokenizer, bases, text, ids[-1])
            variant[row] = np.searchsorted(ends, centre, side="right")
            if spans is not None:
                outer = int(spans[0][row]), int(spans[1][row]) - 1
                readout[row] = np.searchsorted(ends, outer, side="right")
                readout[row, 1] += 1
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    cut = np.zeros((len(windows), 2), dtype=np.int32)
    return EncodedWindows(np.concatenate(ids), offsets, readout, variant, cut)


def encode_spans(tokenizer: Tokenizer, windows: np.ndarray, *, chunk: int = 512) -> TokenSpans:
    """Tokens of `windows` (rows, window_bp) uint8 ASCII with the place of each, [CLS] first and
    [SEP] last: all of them, whatever the tokenizer's limit.
    """
    tokenizer = without_settings(tokenizer)
    bases = _bases_of_tokens(tokenizer)
    ids, starts = [], []
    for first in range(0, len(windows), chunk):
        texts = [row.tobytes().decode("ascii") for row in windows[first : first + chunk]]
        for text, encoding in zip(texts, tokenizer.encode_batch_fast(texts), strict=True):
            own = np.array(encoding.ids, dtype=np.uint16)
            ids.append(own[1:-1])
            starts.append(_token_ends(tokenizer, bases, text, own)[:-2])  # of the one before
    row = np.repeat(np.arange(len(windows)), [len(own) for own in ids])
    return token_spans(
        windows, row, np.concatenate(starts), np.concatenate(ids), first=CLS, last=SEP
    )


def _token_ends(tokenizer: Tokenizer, bases: np.ndarray, text: str, ids: np.ndarray) -> np.ndarray:
    """Where each token of `text` ends, in bp, special tokens where the one before does: (tokens,).

    By the spelling of the tokens, and by the tokenizer's offsets where that does not tell.
    """
    ends = np.cumsum(bases[ids])
    if ends[-1] != len(text):
        ends = np.maximum.accumulate([end for _, end in tokenizer.encode(text).offsets])
    return ends


@lru_cache(maxsize=4)  # pretraining asks at every step; nothing here adds tokens to a tokenizer
def _bases_of_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """Bases that each token stands for, by its id: int64 (ids,).

    [UNK] stands for one, as DNABERT-2's does; other special tokens stand for none. Tokens that are
    not spelt in A, C, G, T and N (a prefix, say) count more than any window has, so that a window
    with them is noticed: its sum is not its length.
    """
    vocabulary = tokenizer.get_vocab()
    bases = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for token, number in vocabulary.items():
        bases[number] = len(token) if set(token) <= set("ACGTN") else NOT_SPELT
    bases[: len(SPECIAL_TOKENS)] = 0
    bases[UNK] = 1
    return bases
