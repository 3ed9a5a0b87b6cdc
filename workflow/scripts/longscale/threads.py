"""How a process computes with torch: threads, denormal numbers, quiet libraries."""

import os


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
    logging.disable_progress_bar()
    logging.set_verbosity_error()
