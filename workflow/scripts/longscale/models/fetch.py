"""A published checkpoint, from a folder or from the Hugging Face hub, as safetensors in the run."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from longscale.errors import LongscaleError
from longscale.files import atomic_path
from longscale.genome.hub import hub_file
from longscale.models.checkpoint import convert_checkpoint

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


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
    `tokenizer` is a folder whose tokenizer.json replaces the checkpoint's own. An original
    pytorch_model.bin is converted, reading tensors only. Raises LongscaleError naming the source.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        if Path(source).is_dir():
            local = Path(source)
        else:
            local = Path(scratch)
            download_checkpoint(source, local, revision, own_tokenizer=tokenizer is None)
        path = Path(tokenizer or local) / "tokenizer.json"
        if not path.is_file():
            raise LongscaleError(
                f"{path}: no such file; a checkpoint needs its tokenizer beside it"
            )
        convert_checkpoint(local, folder)
        with atomic_path(folder / "tokenizer.json") as part:
            shutil.copyfile(path, part)
    report(f"{source} at revision {revision} is in {folder}")


def download_checkpoint(repo: str, folder: Path, revision: str, *, own_tokenizer: bool) -> None:
    """The files of a checkpoint from the hub into `folder`; safetensors if it has them."""
    names = ["config.json"] + (["tokenizer.json"] if own_tokenizer else [])
    for name in names:
        shutil.copyfile(hub_file(repo, name, revision=revision), folder / name)
    for name in WEIGHTS:
        cached = hub_file(repo, name, revision=revision, optional=name != WEIGHTS[-1])
        if cached is not None:
            shutil.copyfile(cached, folder / name)
            return
