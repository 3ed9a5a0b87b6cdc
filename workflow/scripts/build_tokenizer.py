"""Put a model's tokenizer in its place: a given one, the checkpoint's, or one trained on the
genome.
"""

import shutil
from pathlib import Path

from job import model_job
from longscale.files import atomic_path
from longscale.genome.sequence import Genome
from longscale.models.tokenizer import load_tokenizer, train_tokenizer

with model_job(snakemake, threads=1) as report:
    model, target = snakemake.params.model, Path(snakemake.output[0])
    given = model["tokenizer"] or (
        Path(snakemake.input.checkpoint).parent if snakemake.input.checkpoint else None
    )
    if given:
        load_tokenizer(given)
        with atomic_path(target) as part:
            shutil.copyfile(Path(given) / "tokenizer.json", part)
        report(f"copied from {given}")
    else:
        train_tokenizer(
            Genome(snakemake.input.fasta),
            target,
            vocab_size=model["vocab_size"],
            seed=1,
            exclude=tuple(snakemake.params.exclude),
        )
        report(f"trained on the genome: {load_tokenizer(target.parent).get_vocab_size()} tokens")
