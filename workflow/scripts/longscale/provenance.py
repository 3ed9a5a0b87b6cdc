"""Where a result comes from: versions of longscale, of its code and of the packages that make
numbers.
"""

import functools
import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import longscale

PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "scikit-learn", "pysam")


@functools.cache
def code_digest() -> str:
    """SHA-256 of the library's source files, by name and content."""
    root = Path(longscale.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def collect_provenance() -> dict:
    """Versions, as JSON can hold them."""
    return {
        "longscale": longscale.__version__,
        "code_sha256": code_digest(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": {name: version(name) for name in PACKAGES},
    }
