"""The workflow on a real Slurm of two nodes, as a user runs it, with faults on purpose."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from slurm_cluster import CPUS, MEMORY_MB

pytestmark = [pytest.mark.e2e, pytest.mark.slurm]

CONFIG = {"short": "tests/configs/slurm.yaml", "demo": "config/config.yaml"}.get(
    os.environ.get("SLURM_TEST", ""), "config/test.yaml"
)
LOCAL_RULES = {
    "all", "download_md5checksums", "download_genome_file", "download_assembly_report",
    "download_task", "fetch_checkpoint", "tabulate_variants", "build_tables", "plot_auroc",
    "plot_documents", "build_mlm_table", "plot_mlm",
}  # fmt: skip
GPU_RULES = {
    "pretrain", "finetune", "measure_entropy", "score_variants", "train_mlm", "measure_attention",
    "score_mlm",
}  # fmt: skip
PROFILE = {
    "gpu_type": "fake", "memory_mb": MEMORY_MB, "hours": 2, "jobs": 16, "cores": CPUS,
}  # fmt: skip


def profile(folder: Path, **values) -> Path:
    """profiles/slurm with other values in its block, as a user edits it."""
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    for name, value in values.items():
        text, found = re.subn(rf"^(  {name}:) *\S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert found == 1, name
    path = folder / "profile" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("status-checks: 10", "status-checks: 2"))
    return path.parent


def command(folder: Path, *arguments, configs=(CONFIG,)) -> list[str]:
    """Snakemake in `folder` with a configuration of the repository."""
    given = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile"]
    given += ["--directory", folder, *arguments, "--configfile", *[ROOT / c for c in configs]]
    return list(map(str, given))


def run(folder: Path, *arguments, **options) -> str:
    """A run to its end; its output."""
    done = subprocess.run(
        command(folder, *arguments, **options), cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        env=os.environ | {"PWD": str(folder)},
    )  # fmt: skip
    if done.returncode:
        pytest.fail(done.stdout[-8000:])
    return done.stdout
