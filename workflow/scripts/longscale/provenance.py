"""Where a result comes from: versions of longscale, of its code and of the packages that make
numbers.
"""

import functools
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


def digest(config: Any) -> str:
    """SHA-256 of a configuration (or a part of it), independent of the order of keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
