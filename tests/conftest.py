"""What all tests share: where the real data lie, and skips that CI does not forgive."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch is imported: tiny tensors gain nothing from more threads, and lose much where the
# cores are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no failure. Examples are new ones in each run by hand, where a find can be
# mended; where a change is judged (.ci/run), they are the same ones, so that it is the change.
settings.register_profile(
    "longscale",
    deadline=None,
    derandomize=os.environ.get("LONGSCALE_REQUIRE_ORACLES") == "1",
)
settings.load_profile("longscale")

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LONGSCALE_SHARED", ROOT.parent / "shared"))


def skip(reason: str) -> None:
    """Skip with a reason; where every oracle must be present (.ci/run) fail instead."""
    if os.environ.get("LONGSCALE_REQUIRE_ORACLES") == "1":
        pytest.fail(f"an oracle is missing where all are required: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real sequence, real variants and parity vectors (not part of the project)."""
    if not SHARED.is_dir():
        skip(f"the folder with real data and parity vectors is absent: {SHARED}")
    return SHARED


@pytest.fixture
def tool():
    """tool("bcftools") -> its path, or a skip with a reason."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            package = {"bgzip": "tabix"}.get(name, name)
            skip(f"{name} is not installed (Debian: apt-get install {package})")
        return path

    return find
