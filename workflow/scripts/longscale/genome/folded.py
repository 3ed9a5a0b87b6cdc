"""A genome as plain bases, beside its FASTA file: `g.bases` for `g.fa`.

One byte per base, without line ends, in upper case and N for everything but ACGT, contigs one after
the other in the order of the `.fai`; then 32 bytes that tell of which FASTA file it was made.
Windows are copied from it as they are, where FASTA lines must be joined and folded each time. It
holds nothing that the FASTA file does not, so nothing depends on it: where it is absent, or was
made of another file, the FASTA file is read.
"""

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from longscale.errors import LongscaleError
from longscale.files import atomic_path

STAMP_BYTES = hashlib.sha256().digest_size


def folded_path(fasta: str | Path) -> Path:
    """Where the plain bases of a FASTA file lie."""
    return Path(fasta).with_suffix(".bases")


def write_folded(fasta: str | Path, stretches: Iterable[np.ndarray]) -> None:
    """Write `stretches` (uint8 ASCII, folded) as the bases of `fasta`, whole or not at all.

    Raises LongscaleError where the FASTA file or its index cannot be read.
    """
    fasta = Path(fasta)
    try:
        stamp = _stamp(fasta)  # before it is read: a later change makes the result out of date
    except OSError as error:
        raise LongscaleError(
            f"{fasta}: it or its index cannot be read: {error.strerror}."
        ) from error
    with atomic_path(folded_path(fasta)) as part, part.open("wb") as handle:
        for stretch in stretches:
            handle.write(stretch.data)
        handle.write(stamp)


def open_folded(fasta: str | Path, bp: int) -> np.ndarray | None:
    """The plain bases of a genome of `bp` bases, mapped, read-only: uint8 (bp,).

    None where there is no such file, and, with a warning, where it is cut or not of this `fasta` as
    it is now (its size, its time and its index say so).
    """
    path = folded_path(fasta)
    if not path.is_file():
        return None
    try:
        mapped = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        whole = len(mapped) == bp + STAMP_BYTES
        if whole and mapped[bp:].tobytes() == _stamp(Path(fasta)):
            return mapped[:bp]
        problem = "was made of another FASTA file" if whole else "has the wrong size"
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        problem = f"cannot be used ({error})"
    warnings.warn(
        f"{path}: {problem}, so {fasta} is read in its place, which is slower; "
        f"`snakemake --force {path}` makes it again",
        stacklevel=2,
    )
    return None


def _stamp(fasta: Path) -> bytes:
    """What a FASTA file and its index are told by: size, time of the last change, the index."""
    stat = fasta.stat()
    index = Path(f"{fasta}.fai").read_bytes()
    return hashlib.sha256(b"%d %d\n" % (stat.st_size, stat.st_mtime_ns) + index).digest()
