"""The constants of `windowed-recall`, chosen on development documents.

    python benchmarks/recall_constants.py results/mlm_study --lengths 1024 4096

Reads every dot-product checkpoint trained with RoPE below a results folder, and scores the targets
that protocol `selection` scores (no test document is opened) under `windowed` attention with every
triple of the grid. Prints the mean loss in nats and the accuracy, corpora, seeds and lengths
weighing the same. What it prints first stands in `attention/positions.py`.
"""

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import pandas as pd
import torch
import torch.nn.functional as F

from longscale.attention.recall import Recall, recall
from longscale.evaluation.mlm import encode_documents, fixed_target_passes
from longscale.models.characters import special_ids
from longscale.models.checkpoint import load_checkpoint
from longscale.models.gau_alpha import GAUAlphaForMaskedLM
from longscale.models.tokenizer import read_tokenizer
from longscale.tasks.corpora import read_documents

STRENGTHS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
NULLS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
REACHES = (3, 5, 8, 12)


@torch.no_grad()
def grid(results: Path, folder: Path, length: int, longest: int, groups: int) -> list[dict]:
    """One row per triple, and one without recall: `loss` and `accuracy` of a checkpoint."""
    corpus, _, train_length = folder.parts[-6:-3]
    tokenizer = read_tokenizer(folder.parents[3])
    special = special_ids(tokenizer)
    texts = read_documents(results / "corpora" / corpus, "dev")
    model = load_checkpoint(GAUAlphaForMaskedLM, folder, complete=True)
    model.set_scheme("windowed")
    answers = []
    for one in fixed_target_passes(
        encode_documents(tokenizer, texts),
        length,
        span=int(train_length),
        longest=longest,
        groups=groups,
        special=special,
    ):
        ids, rows = torch.from_numpy(one.ids), torch.from_numpy(one.rows)
        masked = ids.clone()
        masked[:, rows] = special.mask
        keep = torch.from_numpy(one.scored).flatten()
        answers.append((model(masked, rows=rows).logits, masked, rows, ids[:, rows], keep))

    def row(settings: Recall | None) -> dict:
        loss, correct = [], []
        for logits, masked, rows, true, keep in answers:
            if settings is not None:
                logits = recall(logits, masked, rows, special.mask, settings)
            loss.append(
                F.cross_entropy(logits.flatten(0, 1)[keep], true.flatten()[keep], reduction="none")
            )
            correct.append((logits.argmax(-1) == true).flatten()[keep])
        key = {"strength": 0.0, "null": 0.0, "reach": 0} if settings is None else vars(settings)
        score = {
            "loss": torch.cat(loss).mean().item(),
            "accuracy": torch.cat(correct).float().mean().item(),
        }
        return {"corpus": corpus, "seed": folder.name, "length": length, **key, **score}

    triples = itertools.product(STRENGTHS, NULLS, REACHES)
    return [row(None), *(row(Recall(*triple)) for triple in triples)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--longest", type=int, default=4096, help="the study's longest length")
    parser.add_argument("--groups", type=int, default=2)
    options = parser.parse_args()
    rows = []
    for file in sorted(options.results.glob("mlm/*/*/*/dot/rope/seed*/model.safetensors")):
        for length in options.lengths:
            rows += grid(options.results, file.parent, length, options.longest, options.groups)
    table = pd.DataFrame(rows)
    keys = ["strength", "null", "reach"]
    means = table.groupby(keys)[["loss", "accuracy"]].mean().sort_values("loss")
    print(f"{table['corpus'].nunique()} corpora, {table['seed'].nunique()} seeds, all lengths:")
    print(means.head(8).round(4).to_string())
    print("without recall:", means.loc[(0.0, 0.0, 0)].round(4).to_dict())
    best = means.index[0]
    of_best = table.set_index(keys).loc[[best, (0.0, 0.0, 0)]]
    print(of_best.groupby(["corpus", "length", *keys])[["loss", "accuracy"]].mean().round(4))
    each = table.groupby(["corpus", *keys])["loss"].mean().reset_index()
    print("best of each corpus:")
    print(each.loc[each.groupby("corpus")["loss"].idxmin()].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
