"""How a process computes with torch: threads, products, denormal numbers, quiet libraries."""

import os
from contextlib import suppress
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
EXACT = 1e-5  # largest relative error of a float32 product of 512 x 512 matrices


def use_threads(threads: int) -> None:
    """Compute with `threads` threads, whatever the machine has; before anything is computed.

    The count comes from the configuration, not from the cores that there happen to be, so that a
    result does not depend on them.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    import torch
    from transformers.utils import logging

    # Weights below e-87 would be computed with at a fiftieth of the speed, and add nothing. Set
    # before any thread is started, because threads inherit it.
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    use_onednn()
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def use_onednn(cpuinfo: Path = CPUINFO) -> bool:
    """Hand float32 matrix products to oneDNN on AMD's processors, where MKL has half its speed;
    returns whether that was done.

    torch's precision "medium" is the switch. Where a processor has fast bfloat16, it would mean
    that instead, so a product is held against float64 first. The vendor decides, not a clock: a
    machine computes in the same way every time.
    """
    import torch

    text = ""
    with suppress(OSError):
        text = cpuinfo.read_text()
    if "AuthenticAMD" not in text:
        return False
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 512, 512, generator=generator)
    exact = a.double() @ b.double()
    if ((a @ b).double() - exact).abs().max() < EXACT * exact.abs().max():
        return True
    torch.set_float32_matmul_precision(before)
    return False
