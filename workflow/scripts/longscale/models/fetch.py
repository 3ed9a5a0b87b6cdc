"""A published checkpoint, from a folder or from the Hugging Face hub, as safetensors in the run."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from longscale.errors import LongscaleError
from longscale.files import atomic_folder, atomic_path
from longscale.genome.hub import hub_file
from longscale.models.characters import read_vocab
from longscale.models.checkpoint import convert_checkpoint, copy_weights
from longscale.models.tokenizer import read_tokenizer

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt")

ENCODER_FILES = {
    "nucleotide-transformer": (),  # its k-mers need no file
    "hyenadna": (),
    "enformer": (),
    "huggingface": ("tokenizer.json",),
}
"""Further encoders (models.encoders) -> what their checkpoints must have beside the weights."""
OPTIONAL_FILES = ("tokenizer_config.json", "special_tokens_map.json")
NATIVE = ("nucleotide-transformer", "hyenadna")


def fetch_checkpoint(
    source: str,
    folder: str | Path,
    *,
    revision: str = "main",
    tokenizer: str | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Put config.json, model.safetensors and tokenizer.json of `source` into `folder`.

    `source` is a folder, or a repository of the Hugging Face hub (`owner/name`) at `revision`;
    `tokenizer` is a folder whose tokenizer replaces the checkpoint's own. An original
    pytorch_model.bin is converted, reading tensors only; where there is no tokenizer.json, it is
    made from BERT's vocab.txt. Raises LongscaleError naming the source.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        if Path(source).is_dir():
            local = Path(source)
        else:
            local = Path(scratch)
            download_checkpoint(source, local, revision, own_tokenizer=tokenizer is None)
        text = _tokenizer_json(Path(tokenizer or local))
        convert_checkpoint(local, folder)
        with atomic_path(folder / "tokenizer.json") as part:
            part.write_bytes(text)
    report(f"{source} at revision {revision} is in {folder}")


def fetch_encoder(
    source: str,
    folder: str | Path,
    architecture: str,
    *,
    revision: str = "main",
    report: Callable[[str], None] = print,
) -> None:
    """Put a checkpoint of a key of `ENCODER_FILES` into `folder`, as safetensors and whole or not
    at all: config.json, model.safetensors and what its tokenizer needs.

    `source` and errors as in `fetch_checkpoint`. Native architectures are read and written under
    the original key names; the others are taken as they are.
    """
    needed = ("config.json", *ENCODER_FILES[architecture])
    with tempfile.TemporaryDirectory() as scratch:
        if Path(source).is_dir():
            local = Path(source)
        else:
            local = Path(scratch)
            for name in needed:
                _download_first(source, local, revision, name)
            for name in OPTIONAL_FILES:
                cached = hub_file(source, name, revision=revision, optional=True)
                if cached is not None:
                    shutil.copyfile(cached, local / name)
            _download_first(source, local, revision, *WEIGHTS)
        if architecture in NATIVE:
            convert_checkpoint(local, folder)
        else:
            _copy_encoder(local, Path(folder), needed)
    report(f"{source} at revision {revision} is in {folder}")


def _copy_encoder(local: Path, folder: Path, needed: tuple[str, ...]) -> None:
    """The files as they are, the weights as safetensors."""
    for name in needed:
        if not (local / name).is_file():
            raise LongscaleError(f"{local / name}: no such file; a checkpoint needs it")
    with atomic_folder(folder) as part:
        copy_weights(local, part)
        for name in (*needed, *OPTIONAL_FILES):
            if (local / name).is_file():
                shutil.copyfile(local / name, part / name)


def download_checkpoint(repo: str, folder: Path, revision: str, *, own_tokenizer: bool) -> None:
    """The files of a checkpoint from the hub into `folder`; safetensors if it has them."""
    _download_first(repo, folder, revision, "config.json")
    if own_tokenizer:
        _download_first(repo, folder, revision, *TOKENIZERS)
    _download_first(repo, folder, revision, *WEIGHTS)


def _download_first(repo: str, folder: Path, revision: str, *names: str) -> None:
    """The first of `names` that the repository has; raises where it has none."""
    *others, last = names
    for name in others:
        cached = hub_file(repo, name, revision=revision, optional=True)
        if cached is not None:
            shutil.copyfile(cached, folder / name)
            return
    try:
        shutil.copyfile(hub_file(repo, last, revision=revision), folder / last)
    except LongscaleError as error:
        if not others:
            raise
        raise LongscaleError(f"{error} ({', '.join(others)} is not there either)") from error


def _tokenizer_json(folder: Path) -> bytes:
    """The content of the folder's tokenizer.json, or of one made from its vocab.txt."""
    path, vocabulary = (folder / name for name in TOKENIZERS)
    if path.is_file():
        read_tokenizer(folder)
        return path.read_bytes()
    if vocabulary.is_file():
        return read_vocab(vocabulary).to_str(pretty=True).encode()
    raise LongscaleError(
        f"{path}: no such file, nor {vocabulary.name}; a checkpoint needs its tokenizer beside it"
    )
