"""tokenizer.json as other hands leave it."""

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from defects.harness import Defect, Told, told_by
from longscale.models.tokenizer import SPECIAL_TOKENS


def tokenizer(
    specials=SPECIAL_TOKENS, *, letters="ACGT", template="[CLS] $A [SEP]", extra=0, lower=False
) -> str:
    """A byte-pair encoding without merges, in DNABERT-2's layout but for what is asked for."""
    words = [*specials, *letters, *(f"x{i}" for i in range(extra))]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if lower:
        made.normalizer = normalizers.Lowercase()
    if template:
        pairs = [(name, words.index(name)) for name in ("[CLS]", "[SEP]")]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=pairs)
    return made.to_str()


def without(*keys: str) -> str:
    """A good tokenizer.json with some keys gone."""
    content = json.loads(tokenizer())
    return json.dumps({key: value for key, value in content.items() if key not in keys})


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """What `build_tokenizer` does with a folder that holds it."""
    given = folder / "given"
    given.mkdir()
    if defect.content is not None:
        content = defect.content
        content = content.encode() if isinstance(content, str) else content
        (given / "tokenizer.json").write_bytes(content)
    return told_by(
        "build_tokenizer",
        capture,
        {"tokenizer": folder / "out" / "tokenizer.json"},
        inputs={"checkpoint": [], "fasta": []},
        params={"model": {"tokenizer": str(given)}, "exclude": []},
    )


WHERE = "tokenizer.json"
DEFECTS = [
    Defect("no file", None, (WHERE, "no such file", "expected")),
    Defect("an empty tokenizer", "", (WHERE, "not a tokenizer", "tokenizers library")),
    Defect(
        "a tokenizer cut in half",
        tokenizer()[:200],
        (WHERE, "not a tokenizer", "tokenizers library"),
    ),
    Defect("a list", "[]", (WHERE, "not a tokenizer", "tokenizers library")),
    Defect("binary", bytes(range(256)), (WHERE, "not a tokenizer", "tokenizers library")),
    Defect("a tokenizer without its model", without("model"), (WHERE, "not a tokenizer", "model")),
    Defect(
        "a model of unknown type",
        tokenizer().replace('"BPE"', '"ACGT"'),
        (WHERE, "not a tokenizer", "tokenizers library"),
    ),
    Defect(
        "BERT's order of special tokens",
        tokenizer(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")),
        (WHERE, "the ids of", "must be 0 to 4"),
    ),
    Defect("no mask token", tokenizer(SPECIAL_TOKENS[:-1]), (WHERE, "None", "must be 0 to 4")),
    Defect(
        "no [CLS] and [SEP]",
        tokenizer(template=None),
        (WHERE, r"does not put \[CLS\]", "post_processor"),
    ),
    Defect(
        "[SEP] in front",
        tokenizer(template="[SEP] $A [CLS]"),
        (WHERE, r"does not put \[CLS\]", "post_processor"),
    ),
    Defect(
        "a tokenizer of words",
        tokenizer(letters=["the", "of"]),
        (WHERE, "does not spell A, C, G and T", "upper case"),
    ),
    Defect(
        "lower case alone",
        tokenizer(letters="acgt"),
        (WHERE, "does not spell A, C, G and T", "upper case"),
    ),
    Defect(
        "text put into lower case",
        tokenizer(lower=True),
        (WHERE, "does not spell A, C, G and T", "upper case"),
    ),
    Defect(
        "more tokens than two bytes count",
        tokenizer(extra=66_000),
        (WHERE, "largest id is", "below 65,536"),
    ),
]
