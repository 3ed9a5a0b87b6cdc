"""Tokenizers for text: one token per character, or BERT's word pieces from a `vocab.txt`.

All are `tokenizers.Tokenizer` objects, which serialise to tokenizer.json.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from longscale.errors import LongscaleError

CHARACTER_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of the character tokenizers, in the order of their ids. (DNABERT-2's order is
another; `special_ids` looks them up by name.)"""

BASES = "ACGTN"


@dataclass(frozen=True)
class SpecialIds:
    """Ids of a tokenizer's special tokens."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int

    @property
    def all(self) -> list[int]:
        """Every special id."""
        return [self.pad, self.unk, self.cls, self.sep, self.mask]

    @property
    def never_predicted(self) -> list[int]:
        """What is never a target of masked language modelling."""
        return [self.pad, self.unk, self.cls, self.sep]


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK]; LongscaleError where one is missing."""
    found = {name: tokenizer.token_to_id(name) for name in CHARACTER_SPECIALS}
    for name, number in found.items():
        if number is None:
            raise LongscaleError(
                f"the tokenizer has no token {name}; masked language modelling needs all of "
                f"{', '.join(CHARACTER_SPECIALS)}"
            )
    return SpecialIds(*found.values())


def train_characters(texts: Iterable[str], min_count: int = 1) -> Tokenizer:
    """A token for every character that occurs at least `min_count` times, the most frequent first.

    Spaces and line ends are characters as any other; nothing is normalised. Raises LongscaleError
    where no character is frequent enough.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    characters = [character for character, count in counts.items() if count >= min_count]
    if not characters:
        raise LongscaleError(
            f"no character occurs {min_count} times in the training documents; a tokenizer needs "
            "some"
        )
    return _character_tokenizer(sorted(characters, key=lambda c: (-counts[c], c)))


def train_bases() -> Tokenizer:
    """A token for each of A, C, G, T and N."""
    return _character_tokenizer(BASES)


def _character_tokenizer(characters: Sequence[str]) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate((*CHARACTER_SPECIALS, *characters))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = _every_character()
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(CHARACTER_SPECIALS))
    return tokenizer


def _every_character() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")


def read_vocab(path: str | Path) -> Tokenizer:
    """BERT's tokenizer from a checkpoint's `vocab.txt`: a token per line, its id the line's place.

    Text is lower-cased, accents are stripped, CJK characters are words of their own, and words are
    divided greedily into pieces (`##` marks those that continue a word), as BertTokenizer does.
    Raises LongscaleError where the file is empty, has a line twice or lacks a special token.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LongscaleError(f"{path}: cannot be read as a vocabulary in UTF-8: {error}") from error
    # Not splitlines: some vocabularies hold characters that it takes for line ends.
    tokens = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if tokens == [""]:
        raise LongscaleError(f"{path}: is empty; a vocabulary has a token on every line")
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(tokens):
        if token in vocabulary:
            raise LongscaleError(
                f"{path}, line {number + 1}: the token {token!r} stands on line "
                f"{vocabulary[token] + 1} already; every token has one line"
            )
        vocabulary[token] = number
    for name in CHARACTER_SPECIALS:
        if name not in vocabulary:
            raise LongscaleError(
                f"{path}: has no token {name}; BERT's vocabularies have all of "
                f"{', '.join(CHARACTER_SPECIALS)}"
            )
    return _word_piece_tokenizer(vocabulary)


def _word_piece_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(list(CHARACTER_SPECIALS))
    return tokenizer


def encode_text(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Token ids of a text: (tokens,) int32; see `encode_texts`, which is faster for many."""
    return encode_texts(tokenizer, [text])[0]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Token ids of each text: (tokens,) int32, whole, with no special token.

    A text that contains `[MASK]` or the like is spelt out: nothing written in a document can pass
    for a mask. Any `tokenizers.Tokenizer` will do.
    """
    table = _character_table(tokenizer)
    if table is not None:
        return [table[np.minimum(_code_points(text), len(table) - 1)] for text in texts]
    plain = Tokenizer.from_str(tokenizer.to_str())  # the caller's own keeps its settings
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    encodings = plain.encode_batch(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, np.int32) for encoding in encodings]


def _character_table(tokenizer: Tokenizer) -> np.ndarray | None:
    """Id of every code point of a character tokenizer, the last one for all beyond; else None.

    The tokenizers library takes two seconds for a million characters; a look into a table takes
    some milliseconds.
    """
    is_ours = (
        isinstance(tokenizer.model, models.WordLevel)
        and tokenizer.normalizer is None
        and tokenizer.pre_tokenizer is not None
        and tokenizer.pre_tokenizer.__getstate__() == _every_character().__getstate__()
    )
    if not is_ours:
        return None
    ids = {ord(token): number for token, number in tokenizer.get_vocab().items() if len(token) == 1}
    table = np.full(max(ids, default=0) + 2, tokenizer.token_to_id("[UNK]"), np.int32)
    table[list(ids)] = list(ids.values())
    return table


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
