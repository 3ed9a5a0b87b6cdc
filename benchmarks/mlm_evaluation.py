"""Masked-LM scoring of fixed targets against the obvious loop: python benchmarks/mlm_evaluation.py

Per document and length, for the same target tokens:

* ours: groups of targets, attention in blocks, only the target rows in the last layer and the head;
* obvious: the same groups, dense attention, all rows in every layer, all logits;
* one by one: as obvious, but one target per forward pass, as the released scripts do.

`small` is the model of config/config.yaml and config/mlm.yaml, with random weights and tokens;
`--checkpoint` takes a trained one (a folder of a study, as in
results/mlm/cpython-docs/gau-alpha-small/64/dot/rope/seed1) and the text that Python carries. That
differs: attention that has learned to ignore a token gives it a weight near e-90, and with such
denormal numbers a processor is many times slower. Ours flushes them, as every job does; the obvious
loop has torch's defaults. Schemes: `rope`, where every pair of tokens is attended, and `windowed`,
where the obvious loop masks the pairs that are not.

The two sides alternate in one process on the same inputs; the ratio is that of the medians. Peak
memory is measured apart, each side and length in a process of its own, less what the process held
before its first forward pass.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

from pydoc_data.topics import topics

import numpy as np
import torch
from side_by_side import flush_denormal, processor
from tokenizers import Tokenizer

from longscale.evaluation.mlm import Document, fixed_target_passes, score_pass
from longscale.models.characters import SpecialIds, encode_texts
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM

SPECIAL = SpecialIds(0, 1, 2, 3, 4)
LARGE = "gau-alpha, 6 layers"
MODELS = {
    "small": {
        "vocab_size": 120,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "intermediate_size": 192,
        "attention_key_size": 64,
    },
    LARGE: {"num_hidden_layers": 6},
}


def build(name: str) -> GAUAlphaForMaskedLM:
    """The model of a checkpoint's folder, or one of `MODELS` with random weights."""
    if name not in MODELS:
        return GAUAlphaForMaskedLM.from_pretrained(name).eval()
    torch.manual_seed(1)
    config = GAUAlphaConfig(**MODELS[name], normalization="softmax", n_train=64)
    return GAUAlphaForMaskedLM(config).eval()


def rotate(x: torch.Tensor) -> torch.Tensor:
    """RoPE, as the original code has it; angles of thousands of radians in float64, as ours."""
    n, d = x.shape[-2:]
    angles = torch.arange(n).double()[:, None] * 10000.0 ** (-2 * torch.arange(d // 2).double() / d)
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos().float(), angles.sin().float()
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)


@torch.no_grad()
def dense_logits(model: GAUAlphaForMaskedLM, ids: torch.Tensor) -> torch.Tensor:
    """All logits of the model by the equations, with the attention matrix written out."""
    x = model.gau_alpha.embeddings(ids)
    mask = torch.ones_like(ids)[:, None]
    if model.gau_alpha.scheme == "windowed":
        at = torch.arange(ids.shape[1])
        mask = ((at[:, None] - at).abs() <= model.config.n_train // 2).long()
    for layer in model.gau_alpha.encoder.layer:
        gau = layer.gau
        u, v, z = torch.nn.functional.silu(gau.i_dense(x)).split(gau.sizes, dim=-1)
        q, k = rotate(gau.q_scaleoffset(z)), rotate(gau.k_scaleoffset(z))
        logits = torch.einsum("bmd,bnd->bmn", q, k) / gau.sizes[-1] ** 0.5
        logits = logits.masked_fill(mask == 0, -1e4)
        weights = torch.softmax(logits, dim=-1)
        x = layer.norm(x + gau.o_dense(u * torch.einsum("bmn,bnd->bmd", weights, v)))
    return model.cls.predictions(x)


def tokens_of(name: str, length: int, vocab_size: int) -> np.ndarray:
    """A document: random tokens for random weights, else documentation."""
    if name in MODELS:
        return np.random.default_rng(1).integers(5, vocab_size, length)
    tokenizer = Tokenizer.from_file(str(Path(name).resolve().parents[3] / "tokenizer.json"))
    (ids,) = encode_texts(tokenizer, [" ".join(topics.values())])
    return ids[:length].astype(np.int64)


def ours(model: GAUAlphaForMaskedLM, passes: list) -> np.ndarray:
    """Losses of the targets."""
    flush_denormal(True)
    return np.concatenate([score_pass(model, one, SPECIAL.mask)[0].ravel() for one in passes])


def obvious(model: GAUAlphaForMaskedLM, passes: list) -> np.ndarray:
    """Losses of the targets."""
    flush_denormal(False)
    losses = []
    for one in passes:
        true = torch.from_numpy(one.ids[:, one.rows])
        masked = torch.from_numpy(one.ids.copy())
        masked[:, one.rows] = SPECIAL.mask
        log_p = dense_logits(model, masked).log_softmax(-1)[:, one.rows]
        losses.append(-log_p.gather(-1, true[..., None]).numpy().ravel())
    return np.concatenate(losses)


def passes_of(name: str, model: GAUAlphaForMaskedLM, length: int, per_pass: int) -> list:
    """Two sets of nine targets of one document."""
    ids = tokens_of(name, length, model.config.vocab_size)
    return list(
        fixed_target_passes(
            [Document("d", ids)],
            length,
            span=64,
            longest=length,
            groups=2,
            special=SPECIAL,
            per_pass=per_pass,
        )
    )


def timed(function, *arguments) -> float:  # noqa: ANN001, ANN002
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def compare(name: str, scheme: str, length: int, repeats: int, with_single: bool) -> dict:
    """Seconds per side, their ratios, and the largest difference of a loss."""
    model = build(name)
    model.set_scheme(scheme)
    together, single = (passes_of(name, model, length, per_pass) for per_pass in (9, 1))
    error = float(np.abs(ours(model, together) - obvious(model, together)).max())
    seconds = {"ours": [], "obvious": []}
    for _ in range(repeats):
        seconds["ours"].append(timed(ours, model, together))
        seconds["obvious"].append(timed(obvious, model, together))
    medians = {side: statistics.median(values) for side, values in seconds.items()}
    row = {
        "model": name,
        "scheme": scheme,
        "length": length,
        **medians,
        "largest difference": error,
    }
    row["obvious / ours"] = medians["obvious"] / medians["ours"]
    if with_single:  # nine times the work of `obvious`, so once
        row["one by one / ours"] = timed(obvious, model, single) / medians["ours"]
    return row


def peak_mib(name: str, length: int, side: str) -> float:
    """Peak memory of one forward pass above what the process held before it, in MiB."""
    code = f"import mlm_evaluation as b; b.print_peak({name!r}, {length}, {side!r})"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, check=True
    )
    return json.loads(out.stdout)


def print_peak(name: str, length: int, side: str) -> None:
    """Child of `peak_mib`."""
    model = build(name)
    run = {"ours": ours, "obvious": obvious}[side]
    run(model, passes_of(name, model, 64, 9))
    before = high_water_mark()
    run(model, passes_of(name, model, length, 9)[:1])
    print(high_water_mark() - before)


def high_water_mark() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--checkpoint", type=Path, help="a trained model's folder, not --models")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{processor()}, {options.threads} threads")
    for name in [str(options.checkpoint.resolve())] if options.checkpoint else options.models:
        for length in options.lengths:
            for scheme in ("rope", "windowed"):
                row = compare(name, scheme, length, options.repeats, with_single=name != LARGE)
                print({k: round(v, 7) if isinstance(v, float) else v for k, v in row.items()})
        for side in ("ours", "obvious"):
            lengths = [*options.lengths, 2 * max(options.lengths)]
            peaks = [peak_mib(name, length, side) for length in lengths]
            print(
                name,
                side,
                "MiB above the start:",
                dict(zip(lengths, map(round, peaks), strict=True)),
            )


if __name__ == "__main__":
    main()
