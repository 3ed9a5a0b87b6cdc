"""Published checkpoints: what lies in the folder that `checkpoint` names."""

import functools
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from defects import tokenizers
from defects.harness import Defect, Told, told_by
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForMaskedLM

SHAPE = {
    "vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8, "pad_token_id": 3,
}  # fmt: skip
KEY = "bert.encoder.layer.0.attention.self.Wqkv.weight"


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return DNABERT2ForMaskedLM(DNABERT2Config(**SHAPE)).state_dict()


def pickled(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def safe(**changes: torch.Tensor | None) -> Callable[[], bytes]:
    """The weights as safetensors, some keys replaced, added or (None) left out."""

    def write() -> bytes:
        # A tied weight stands twice in a state dict, and once in a file.
        changed = {**weights(), **changes}
        kept = {key: value.clone() for key, value in changed.items() if value is not None}
        return safetensors.torch.save(kept)

    return write


class Code:
    """An object whose unpickling runs a command."""

    def __reduce__(self):
        return Path.touch, (Path(tempfile.gettempdir()) / "longscale-code-has-run",)


RAN = Path(tempfile.gettempdir()) / "longscale-code-has-run"


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """What `fetch_checkpoint` does with the folder; `of` is the file that is at fault."""
    given = folder / "given"
    given.mkdir()
    files = {
        "config.json": json.dumps(SHAPE),
        "model.safetensors": safe(),
        "tokenizer.json": tokenizers.tokenizer(),
    }
    if defect.of == "pytorch_model.bin":
        del files["model.safetensors"]
    files[defect.of] = defect.content
    for name, content in files.items():
        content = content() if callable(content) else content
        if content is not None:
            (given / name).write_bytes(content.encode() if isinstance(content, str) else content)
    RAN.unlink(missing_ok=True)
    names = ("config.json", "model.safetensors", "tokenizer.json")
    told = told_by(
        "fetch_checkpoint",
        capture,
        {name: folder / "out" / name for name in names},
        inputs={},
        params={"model": {"checkpoint": str(given), "revision": "main", "tokenizer": None}},
    )
    assert not RAN.exists(), "code in a checkpoint has run"
    shutil.rmtree(given)
    return told


def config(**changes: object) -> str:
    return json.dumps(SHAPE | changes)


SAFE, PICKLE, CONFIG = "model.safetensors", "pytorch_model.bin", "config.json"
DEFECTS = [
    # --- weights
    Defect(
        "no weights", None, ("given", "neither model.safetensors", "pytorch_model.bin"), of=SAFE
    ),
    Defect("weights without bytes", b"", (SAFE, "not a readable safetensors", ""), of=SAFE),
    Defect(
        "weights cut in half",
        lambda: safe()()[:900],
        (SAFE, "not a readable safetensors", ""),
        of=SAFE,
    ),
    Defect(
        "weights that are a page",
        b"<!DOCTYPE html><html>",
        (SAFE, "not a readable safetensors", ""),
        of=SAFE,
    ),
    Defect(
        "a header beyond the file",
        b"\xff" * 8 + b"{}",
        (SAFE, "not a readable safetensors", ""),
        of=SAFE,
    ),
    Defect(
        "a key that is missing",
        safe(**{KEY: None}),
        (SAFE, f"keys are missing: {KEY}", "DNABERT-2 checkpoint"),
        of=SAFE,
    ),
    Defect(
        "a key too many",
        safe(**{"bert.extra": torch.zeros(2)}),
        (SAFE, "keys are unexpected: bert.extra", "no place"),
        of=SAFE,
    ),
    Defect(
        "a wrong shape",
        safe(**{KEY: torch.zeros(3, 3)}),
        (SAFE, r"shapes do not fit: .*Wqkv.weight is \(3, 3\)", "config.json"),
        of=SAFE,
    ),
    Defect(
        "NaN",
        safe(**{KEY: torch.full((24, 8), torch.nan)}),
        (SAFE, f"NaN or infinite: {KEY}", "intact"),
        of=SAFE,
    ),
    Defect(
        "infinity",
        safe(**{KEY: torch.full((24, 8), torch.inf)}),
        (SAFE, f"NaN or infinite: {KEY}", "intact"),
        of=SAFE,
    ),
    Defect(
        "a model of another kind",
        lambda: safetensors.torch.save({"gpt2.wte": torch.zeros(2)}),
        (SAFE, "no key begins with", "must be a checkpoint of"),
        of=SAFE,
    ),
    Defect(
        "no tensor at all",
        lambda: safetensors.torch.save({}),
        (SAFE, "no key begins with", "must be a checkpoint of"),
        of=SAFE,
    ),
    Defect(
        "a pickle with code",
        lambda: pickled({KEY: Code()}),
        (PICKLE, "not a file of weights alone", "code in it, is not read"),
        of=PICKLE,
    ),
    Defect(
        "a plain pickle with code",
        lambda: pickle.dumps(Code()),
        (PICKLE, "not a file of weights alone", "code in it, is not read"),
        of=PICKLE,
    ),
    Defect(
        "a pickled model",
        lambda: pickled(torch.nn.Linear(2, 2)),
        (PICKLE, "not a file of weights alone", "objects"),
        of=PICKLE,
    ),
    Defect(
        "a pickle cut in half",
        lambda: pickled(weights())[:900],
        (PICKLE, "not a file of weights alone", "truncated"),
        of=PICKLE,
    ),
    Defect(
        "a pickle without bytes",
        b"",
        (PICKLE, "not a file of weights alone", "truncated"),
        of=PICKLE,
    ),
    Defect(
        "a pickled list",
        lambda: pickled([torch.zeros(2)]),
        (PICKLE, "not a state dict", "map key names to tensors"),
        of=PICKLE,
    ),
    Defect(
        "a pickled number among tensors",
        lambda: pickled({**weights(), "epoch": 3}),
        (PICKLE, "not a state dict", "map key names to tensors"),
        of=PICKLE,
    ),
    # --- config.json
    Defect("no config", None, (CONFIG, "no such file", "needs one"), of=CONFIG),
    Defect("an empty config", "", (CONFIG, "not a JSON object", ""), of=CONFIG),
    Defect("a config cut in half", config()[:30], (CONFIG, "not a JSON object", ""), of=CONFIG),
    Defect(
        "a config in Latin-1",
        '{"name": "\xe9"}'.encode("latin-1"),
        (CONFIG, "not a JSON object", ""),
        of=CONFIG,
    ),
    Defect(
        "a config nested 100,000 deep", "[" * 100_000, (CONFIG, "not a JSON object", ""), of=CONFIG
    ),
    Defect("a config that is a list", "[]", (CONFIG, "not a JSON object", "object"), of=CONFIG),
    Defect("a width in words", config(hidden_size="wide"), (CONFIG, "hidden_size", ""), of=CONFIG),
    Defect("a width of zero", config(hidden_size=0), (CONFIG, "", ""), of=CONFIG),
    Defect("a width below zero", config(hidden_size=-8), (CONFIG, "", ""), of=CONFIG),
    Defect("no heads", config(num_attention_heads=0), (CONFIG, "", ""), of=CONFIG),
    Defect(
        "heads that do not divide the width",
        config(num_attention_heads=3),
        (CONFIG, "", ""),
        of=CONFIG,
    ),
    Defect(
        "more layers than the weights have",
        config(num_hidden_layers=2),
        (SAFE, "keys are missing: bert.encoder.layer.1", ""),
        of=CONFIG,
    ),
    Defect(
        "fewer layers than the weights have", config(num_hidden_layers=0), ("", "", ""), of=CONFIG
    ),
    Defect(
        "another vocabulary",
        config(vocab_size=17),
        (SAFE, "shapes do not fit", "config.json"),
        of=CONFIG,
    ),
    # --- the tokenizer beside them
    Defect(
        "no tokenizer", None, ("tokenizer.json", "no such file", "beside it"), of="tokenizer.json"
    ),
    Defect(
        "a tokenizer that is none",
        "{}",
        ("tokenizer.json", "not a tokenizer", ""),
        of="tokenizer.json",
    ),
]
