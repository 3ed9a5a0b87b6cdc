"""Activations kept for the gradient, and seconds of an update, with and without
`gradient_checkpointing`: DNABERT-2 of the published size, both sides in turn on the same batch.

python benchmarks/activation_memory.py --tokens 500 --rows 4 --repeats 3
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from longscale.models.dnabert2 import DNABERT2Config, DNABERT2ForSequenceClassification

MIB = 2**20


def update(model: torch.nn.Module, ids: torch.Tensor) -> tuple[float, float]:
    """MiB kept between forward and backward pass, parameters aside, and seconds of both passes."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def keep_input(_block: torch.nn.Module, inputs: tuple) -> None:
        keep(inputs[0])  # torch's checkpoint holds it, and the hooks on saved tensors do not see it

    hooks = [block.register_forward_pre_hook(keep_input) for block in model.bert.encoder.layer]
    started = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(ids, labels=torch.zeros(len(ids), dtype=torch.long)).loss
    loss.backward()
    seconds = time.perf_counter() - started
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return sum(kept.values()) / MIB, seconds


def main() -> None:
    """Print MiB and the shortest time of each side."""
    parser = argparse.ArgumentParser()
    for name, default in (("tokens", 500), ("rows", 4), ("repeats", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    model = DNABERT2ForSequenceClassification(DNABERT2Config(num_labels=2)).train()
    ids = torch.randint(5, 4096, (options.rows, options.tokens))
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(options.repeats):
        for again in found:
            (
                model.activation_checkpointing_enable
                if again
                else model.activation_checkpointing_disable
            )()
            found[again].append(update(model, ids))
    for again, runs in found.items():
        seconds = min(seconds for _, seconds in runs)
        print(
            f"gradient_checkpointing {str(again).lower()}: {runs[0][0]:,.0f} MiB, {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
