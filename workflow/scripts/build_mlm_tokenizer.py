"""Put a masked-LM model's tokenizer in its place: a given one, the checkpoint's, or one of the
corpus's characters or bases.
"""

import shutil
from pathlib import Path

from job import model_job
from longscale.files import atomic_path
from longscale.genome.sequence import Genome
from longscale.models.characters import train_bases, train_characters
from longscale.models.tokenizer import read_tokenizer, train_tokenizer
from longscale.tasks.corpora import read_documents

with model_job(snakemake, threads=1) as report:
    model, tokens = snakemake.params.model, snakemake.params.corpus["tokens"]
    target = Path(snakemake.output[0])
    published = snakemake.input.checkpoint
    given = model["tokenizer"] or (Path(published).parent if published else None)
    if given:
        read_tokenizer(given)
        with atomic_path(target) as part:
            shutil.copyfile(Path(given) / "tokenizer.json", part)
    elif tokens == "bpe":
        train_tokenizer(
            Genome(snakemake.input.genome),
            target,
            vocab_size=model["vocab_size"],
            seed=1,
            exclude=tuple(
                snakemake.params.corpus["test_contigs"] + snakemake.params.corpus["dev_contigs"]
            ),
        )
    else:
        documents = read_documents(Path(snakemake.input.documents).parent, "train")
        tokenizer = (
            train_bases() if tokens == "bases" else train_characters(d.text for d in documents)
        )
        with atomic_path(target) as part:
            tokenizer.save(str(part))
    report(f"{read_tokenizer(target.parent).get_vocab_size()} tokens")
