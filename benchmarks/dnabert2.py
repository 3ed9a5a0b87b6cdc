"""DNABERT-2's speed and memory against the obvious dense code: python benchmarks/dnabert2.py

The model is DNABERT-2-117M (12 layers, hidden 768, 12 heads, intermediate 2 x 3072), with random
weights and tokens. Sides, which alternate in one process on the same inputs:

* ours: `longscale.models.dnabert2`, set up as every job sets it up (denormal numbers are flushed);
* dense: the same network by its equations and with torch's defaults: a padded batch, the ALiBi bias
  and the scores as matrices, softmax;
* products: the network's matrix products alone, into memory that is there already, each done in the
  fastest of several ways (MKL, oneDNN; the products of attention in blocks of several sizes). For
  training, three times the forward products, as backward needs two for each.

Modes: `forward`; `training` (forward, backward, AdamW; dropout as configured); `mixed` (forward of
sequences whose lengths are log-uniform from --mixed-from to the last of --lengths; dense pads them
to the longest); `memory` (peak of a forward pass and of a step at the last of --lengths, above what
the process held before, each side in a process of its own). Ratios are those of the medians, and
`share` is products / ours. Outputs must agree within 1e-4, and for training the gradients.

On a machine that others use, too, --clock cpu --threads 1 leaves out what they take.
With 12 layers each mode takes a few minutes, mostly dense code at 2,048 tokens; as all layers are
alike, --layers 4 measures the same in a third of the time and memory. On a GPU:

    python benchmarks/dnabert2.py --device cuda --dtype bf16 --lengths 512 1024 2048 4096 8192
"""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import torch
import torch.nn.functional as F
from side_by_side import flush_denormal, processor

from longscale.attention.alibi import alibi_slopes
from longscale.models.dnabert2 import DNABERT2Config, DNABERT2Model
from longscale.threads import use_onednn

Batch = tuple[torch.Tensor, torch.Tensor]  # tokens and attention mask, (B, L)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build(options: argparse.Namespace) -> DNABERT2Model:
    """The model with random weights, on its device, in float32 (bf16 is autocast)."""
    torch.manual_seed(1)
    config = DNABERT2Config(num_hidden_layers=options.layers)
    model = DNABERT2Model(config, add_pooling_layer=False)
    with torch.no_grad():  # as trained weights: logits of a few units, biases that matter
        for layer in model.encoder.layer:
            layer.attention.self.Wqkv.weight.mul_(2)
            layer.attention.self.Wqkv.bias.normal_(std=0.1)
            layer.attention.output.dense.bias.normal_(std=0.1)
            layer.mlp.wo.bias.normal_(std=0.1)
    return model.to(options.device).eval()


def batch_of(lengths: list[int], device: str) -> Batch:
    """Random tokens, padded on the right."""
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 4096, mask.shape, generator=generator)
    return (ids * mask + 3 * (1 - mask)).to(device), mask.to(device)


def mixed_lengths(count: int, low: int, high: int) -> list[int]:
    """Lengths at even steps of their logarithm, the first `low` and the last `high` tokens."""
    steps = [i / (count - 1) for i in range(count)]
    return [round(low * (high / low) ** step) for step in steps]


def ours(model: DNABERT2Model, batch: Batch) -> torch.Tensor:
    """Last hidden state (B, L, D)."""
    return model(*batch).last_hidden_state


def dense(model: DNABERT2Model, batch: Batch) -> torch.Tensor:
    """Last hidden state (B, L, D) by the equations."""
    ids, mask = batch
    config, training = model.config, model.training
    heads, p = config.num_attention_heads, config.hidden_dropout_prob
    length = ids.shape[1]
    at = torch.arange(length, device=ids.device)
    bias = -alibi_slopes(heads).to(ids.device)[:, None, None] * (at[:, None] - at).abs()
    padded = mask[:, None, None, :] == 0  # B 1 1 L
    if padded.any():
        bias = bias.masked_fill(padded, torch.finfo(bias.dtype).min)  # B H L L
    embeddings = model.embeddings
    x = embeddings.word_embeddings(ids) + embeddings.token_type_embeddings.weight[0]
    x = F.dropout(embeddings.LayerNorm(x), p, training)
    for layer in model.encoder.layer:
        attention, mlp = layer.attention, layer.mlp
        qkv = attention.self.Wqkv(x).unflatten(-1, (3, heads, -1))  # B L 3 H d
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # B H L d
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + bias
        mixed = (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        x = attention.output.LayerNorm(x + F.dropout(attention.output.dense(mixed), p, training))
        gate, up = mlp.gated_layers(x).chunk(2, -1)
        x = mlp.layernorm(x + mlp.wo(F.dropout(F.gelu(gate) * up, p, training)))
    return x * mask[..., None]


# --- the matrix products alone ----------------------------------------------------------------


def fastest(ways: list[Callable[[], object]], repeats: int = 3) -> Callable[[], object]:
    """The way with the shortest time of a few."""
    return min(ways, key=lambda way: min(timed(way) for _ in range(repeats)))


def linear_ways(tokens: int, into: int, out: int, options: argparse.Namespace) -> list[Callable]:
    """(tokens, into) times (into, out), in every way there is."""
    x = torch.randn(tokens, into, device=options.device, dtype=DTYPES[options.dtype])
    weight = torch.randn(out, into, device=options.device, dtype=DTYPES[options.dtype])
    result = x.new_empty(tokens, out)
    ways = [lambda: torch.mm(x, weight.t(), out=result)]
    if options.device == "cpu" and torch.backends.mkldnn.is_available():
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, tokens)
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], ""))
    return ways


def attention_ways(lengths: list[int], config: DNABERT2Config, options: argparse.Namespace) -> list:
    """q k^T and weights times v of all sequences, a block of query rows at a time."""
    heads, d = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    device, dtype = options.device, DTYPES[options.dtype]
    together = 1 if options.device == "cpu" else heads
    sequences = [torch.randn(3, heads, n, d, device=device, dtype=dtype) for n in lengths]
    room = torch.randn(together * max(lengths) ** 2, device=device, dtype=dtype)

    def run(block: int) -> None:
        for q, k, v in sequences:
            n = q.shape[1]
            for head in range(0, heads, together):
                at = slice(head, head + together)
                for start in range(0, n, block):
                    rows = q[at, start : start + block]
                    scores = room[: rows.shape[0] * rows.shape[1] * n].view(*rows.shape[:2], n)
                    torch.bmm(rows, k[at].transpose(1, 2), out=scores)
                    torch.bmm(scores, v[at])

    blocks = sorted({min(block, max(lengths)) for block in (128, 256, 512, 1 << 20)})
    return [lambda block=block: run(block) for block in blocks]


def matrix_products(model: DNABERT2Model, lengths: list[int], options: argparse.Namespace):  # noqa: ANN201
    """All matrix products of one forward pass as a function, and how many operations they are."""
    config, tokens = model.config, sum(lengths)
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes = [(hidden, 3 * hidden), (hidden, hidden), (hidden, 2 * inner), (inner, hidden)]
    parts = [fastest(linear_ways(tokens, into, out, options)) for into, out in shapes]
    parts.append(fastest(attention_ways(lengths, config, options)))
    of_linear = 2 * tokens * sum(into * out for into, out in shapes)
    of_attention = sum(4 * n * n * hidden for n in lengths)

    def run() -> None:
        for _ in range(config.num_hidden_layers):
            for part in parts:
                part()

    return run, config.num_hidden_layers * (of_linear + of_attention)


# --- time -------------------------------------------------------------------------------------


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(function: Callable[[], object], clock: str = "wall") -> float:
    """Seconds of one call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = CLOCKS[clock]()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return CLOCKS[clock]() - started


def autocast(options: argparse.Namespace) -> torch.autocast:
    return torch.autocast(options.device, DTYPES[options.dtype], enabled=options.dtype != "fp32")


def set_up(side: str) -> None:
    """Torch's defaults for `dense`; for ours what each job of the workflow sets."""
    flush_denormal(side == "ours")
    torch.set_float32_matmul_precision("highest")
    if side == "ours":
        use_onednn()


def forward_side(side: str, model: DNABERT2Model, batch: Batch, options: argparse.Namespace):  # noqa: ANN201
    """One forward pass as a function."""
    compute = {"ours": ours, "dense": dense}[side]

    def run() -> torch.Tensor:
        set_up(side)
        with torch.inference_mode(), autocast(options):
            return compute(model, batch)

    return run


def training_side(side: str, model: DNABERT2Model, batch: Batch, options: argparse.Namespace):  # noqa: ANN201
    """One step of training, of a model of its own, as a function."""
    compute = {"ours": ours, "dense": dense}[side]
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        set_up(side)
        with autocast(options):
            hidden = compute(model, batch)
        hidden.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


SIDES = {"forward": forward_side, "training": training_side}


def gradients(side: str, model: DNABERT2Model, batch: Batch) -> list[torch.Tensor]:
    """Gradients of all weights that both sides treat alike, without dropout.

    The loss is that of real tokens; embeddings are left out, as the padding token's has none.
    """
    compute = {"ours": ours, "dense": dense}[side]
    hidden = compute(model, batch)
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    weights = [p for layer in model.encoder.layer for p in layer.parameters()]
    loss = (hidden * weight.to(hidden.device) * batch[1][..., None]).sum()
    return list(torch.autograd.grad(loss, weights))


def largest_difference(mode: str, model: DNABERT2Model, batch: Batch, options) -> float:  # noqa: ANN001
    """Between outputs; for training, between gradients relative to the largest of their tensor."""
    if mode == "forward":
        mine, theirs = (forward_side(side, model, batch, options)() for side in ("ours", "dense"))
        return float((mine - theirs).abs().max())
    short = batch[0][:2, :256], batch[1][:2, :256]
    mine, theirs = (gradients(side, model, short) for side in ("ours", "dense"))
    return max(  # of each tensor, relative to its largest entry
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(mine, theirs, strict=True)
    )


def compare(mode: str, lengths: list[int], model: DNABERT2Model, options) -> dict:  # noqa: ANN001
    """Medians of both sides and of the products, their ratios, and how far the sides differ."""
    batch = batch_of(lengths, options.device)
    difference = largest_difference(mode, model, batch, options)
    limit = 1e-4 if options.dtype == "fp32" else 0.2
    if not difference <= limit:
        sys.exit(f"{mode}, {lengths}: the sides differ by {difference:.1e}, more than {limit}")
    flush_denormal(True)
    products, operations = matrix_products(model, lengths, options)
    factor = 3 if mode == "training" else 1
    sides = {side: SIDES[mode](side, model, batch, options) for side in ("ours", "dense")}
    sides["products"] = products
    if mode == "training":  # a forward pass was warmed up by the comparison
        for run in sides.values():
            run()
    seconds = {side: [] for side in sides}
    for _ in range(options.repeats):
        for side, run in sides.items():
            seconds[side].append(timed(run, options.clock))
    ours_s, dense_s, products_s = (statistics.median(seconds[side]) for side in sides)
    return {
        "mode": mode,
        "tokens": describe(lengths),
        "ours s": f"{ours_s:.3f}",
        "dense s": f"{dense_s:.3f}",
        "products s": f"{factor * products_s:.3f}",
        "dense / ours": f"{dense_s / ours_s:.2f}",
        "share": f"{factor * products_s / ours_s:.0%}",
        "ours GFLOP/s": f"{factor * operations / ours_s / 1e9:.0f}",
        "difference": f"{difference:.0e}",
    }


def describe(lengths: list[int]) -> str:
    if len(set(lengths)) == 1:
        return f"{len(lengths)} x {lengths[0]}"
    return f"{len(lengths)}, {min(lengths)} to {max(lengths)}"


# --- memory -----------------------------------------------------------------------------------


def compare_memory(mode: str, lengths: list[int], options: argparse.Namespace) -> dict:
    """Peak memory of both sides, each in a process of its own."""
    mine, theirs = (peak_mib(mode, side, lengths, options) for side in ("ours", "dense"))
    return {
        "mode": f"{mode}, memory",
        "tokens": describe(lengths),
        "ours MiB": f"{mine:.0f}",
        "dense MiB": f"{theirs:.0f}",
        "ours / dense": f"{mine / theirs:.2f}",
    }


def peak_mib(mode: str, side: str, lengths: list[int], options: argparse.Namespace) -> float:
    """Peak of one call above what was held before it, which a call on 16 tokens has warmed up."""
    given = json.dumps([mode, side, lengths, vars(options)])
    code = "import sys, dnabert2 as b; b.print_peak(*b.json.loads(sys.argv[1]))"
    out = subprocess.run(
        [sys.executable, "-c", code, given],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(out.stdout)


def print_peak(mode: str, side: str, lengths: list[int], options: dict) -> None:
    """Child of `peak_mib`."""
    options = argparse.Namespace(**options)
    torch.set_num_threads(options.threads)
    model = build(options)
    side_on = SIDES[mode]
    side_on(side, model, batch_of([16], options.device), options)()
    run = side_on(side, model, batch_of(lengths, options.device), options)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        print((torch.cuda.max_memory_allocated() - before) / 2**20)
    else:
        before = high_water_mark()
        run()
        print(high_water_mark() - before)


def high_water_mark() -> float:
    """MiB; not getrusage's, which a child inherits from its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# --- the table --------------------------------------------------------------------------------


def machine(options: argparse.Namespace) -> str:
    if options.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {os.cpu_count()} cores"


def show(rows: Iterable[dict]) -> None:
    """A Markdown table of rows with the same keys, each row as soon as it is measured."""
    for number, row in enumerate(rows):
        if not number:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
        print("| " + " | ".join(row.values()) + " |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = ["forward", "training", "mixed", "memory"]
    parser.add_argument("--modes", nargs="+", choices=modes, default=["forward"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--tokens", type=int, default=4096, help="of a batch of equal lengths")
    parser.add_argument("--mixed", type=int, default=4, help="sequences of mixed lengths")
    parser.add_argument("--mixed-from", type=int, default=128, help="the shortest of them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="cpu: processor time, on a busy machine",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32")
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    print(f"{machine(options)}, {options.threads} threads, torch {torch.__version__}")
    print(f"{date.today()}: python {' '.join(sys.argv)}\n")
    equal = [[n] * max(1, options.tokens // n) for n in options.lengths]
    mixed = mixed_lengths(options.mixed, options.mixed_from, options.lengths[-1])
    model = build(options)
    pairs = [(mode, lengths) for mode in SIDES if mode in options.modes for lengths in equal]
    if "mixed" in options.modes:
        pairs.append(("forward", mixed))
    if pairs:
        show(compare(mode, lengths, model, options) for mode, lengths in pairs)
        print()
    if "memory" in options.modes:
        show(compare_memory(mode, equal[-1], options) for mode in SIDES)


if __name__ == "__main__":
    main()
