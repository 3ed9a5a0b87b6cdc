"""What attention does inside a masked-LM checkpoint: entropies, multipliers, cosines, maps."""

from pathlib import Path

import numpy as np

from job import model_job

with model_job(snakemake, snakemake.params.threads) as report:
    import torch

    from longscale.evaluation.compare import write_table
    from longscale.evaluation.mlm_attention import (
        attention_maps,
        long_enough,
        match_schemes,
        measure_cosines,
        measure_entropies,
        middle_windows,
    )
    from longscale.evaluation.multipliers import digest_tokens, write_measured
    from longscale.files import atomic_path
    from longscale.models.characters import encode_texts
    from longscale.models.checkpoint import load_checkpoint
    from longscale.models.gau_alpha import GAUAlphaForMaskedLM
    from longscale.models.tokenizer import read_tokenizer
    from longscale.tasks.corpora import read_documents

    params, output = snakemake.params, snakemake.output
    train_length = int(params.train_length)
    folder = Path(snakemake.input.model[0]).parent
    model = load_checkpoint(GAUAlphaForMaskedLM, folder, complete=True, n_train=train_length)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    lengths = sorted({train_length, *params.lengths})
    texts = [
        document.text for document in read_documents(Path(snakemake.input.corpus).parent, "dev")
    ]
    tokenizer = read_tokenizer(Path(snakemake.input.tokenizer).parent)
    documents = long_enough(encode_texts(tokenizer, texts), lengths[-1])
    report(f"{len(documents)} of {len(texts)} documents have {lengths[-1]:,} tokens")

    trained = model.config.scheme
    schemes = dict.fromkeys([trained, *params.schemes])
    matches = match_schemes(model, documents, list(schemes), lengths, report)
    write_measured(
        matches,
        output.matched,
        n_train=train_length,
        unit="tokens",
        facts={"documents": len(documents), "sha256": digest_tokens(documents)},
    )
    if output.get("entropy"):  # a single length that is asked for by its path has no curves
        entropies = measure_entropies(model, documents, params.rules, lengths, matches[trained])
        write_table(entropies, output.entropy)
        windows = middle_windows(documents, train_length)
        write_table(measure_cosines(model, windows), output.cosine)
        with atomic_path(output.maps) as part, part.open("wb") as handle:
            np.savez_compressed(handle, **attention_maps(model, windows[0]))
