"""A script of the workflow, run as a rule runs it, in this process."""

import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from snakemake.iocontainers import InputFiles, OutputFiles, Params, Wildcards

SCRIPTS = Path(__file__).resolve().parents[2] / "workflow" / "scripts"
OLD = b"what was here before\n"


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong with what a user gives.

    `content`: what the kind's `use` makes files of. `says`: patterns that the sentence has, for
    the place, what is wrong and what would be right. `line`: of a row that must be in the ledger
    under `reason`; the run then goes on. `of`: for `use`, which of its inputs is meant.
    """

    name: str
    content: Any
    says: tuple[str, ...]
    line: int | None = None
    reason: str = ""
    of: str = ""


@dataclass
class Told:
    """What a user gets to see: the exit code, the sentences, and the ledger of the run."""

    code: int
    sentence: str = ""
    ledger: list[dict] = field(default_factory=list)


def run_script(
    name: str,
    *,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Path],
    params: Mapping[str, Any] = {},
    wildcards: Mapping[str, str] = {},
) -> int:
    """Exit code of workflow/scripts/{name}.py; every output is there before, as `OLD`."""
    for path in outputs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(OLD)
    log = next(iter(outputs.values())).parent / "script.log"
    job = SimpleNamespace(
        input=InputFiles(fromdict=dict(inputs)),
        output=OutputFiles(fromdict={key: str(path) for key, path in outputs.items()}),
        params=Params(fromdict=dict(params)),
        wildcards=Wildcards(fromdict=dict(wildcards)),
        log=log,
        rule=name,
        config={},
    )
    try:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), init_globals={"snakemake": job})
    except SystemExit as stopped:
        return int(stopped.code)
    finally:
        torch.set_flush_denormal(False)  # what jobs that compute with torch leave behind
    return 0


def told_by(name: str, capture: Callable[[], str], outputs: Mapping[str, Path], **job: Any) -> Told:
    """Run a script; where it fails, its one sentence, and nothing existing was touched."""
    code = run_script(name, outputs=outputs, **job)
    shown = capture()
    if code == 0:
        return Told(0)
    for path in outputs.values():
        assert path.read_bytes() == OLD, f"{path.name} was overwritten"
    parts = {path.name for path in outputs.values()} | {"script.log"}
    folder = next(iter(outputs.values())).parent
    assert {path.name for path in folder.iterdir()} == parts, "something half-written was left"
    sentences = [line for line in shown.splitlines() if line.startswith(f"{name}: error: ")]
    assert len(sentences) == 1, shown
    assert "Traceback" not in shown
    assert sentences[0].removeprefix(f"{name}: ") in (folder / "script.log").read_text()
    return Told(code, sentences[0].removeprefix(f"{name}: error: "))
