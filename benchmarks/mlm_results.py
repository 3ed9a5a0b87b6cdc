"""Fill the tables of a page from a masked-LM study's results.

    python benchmarks/mlm_results.py results/mlm_study docs/mlm-results.md

Where the tables stand: pages.py. Behind the colon of a name is the corpus that the table is of.
"""

import argparse
import sys
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import pandas as pd
from pages import fill_page

from longscale.evaluation.compare import natural_order
from longscale.evaluation.mlm_records import (
    COSINE_COLUMNS,
    ENTROPY_COLUMNS,
    read_histories,
    read_measurements,
)
from longscale.evaluation.mlm_table import (
    MLM_ARM_FLAGS,
    is_trained_in,
    read_mlm_table,
    sort_mlm_arms,
)
from longscale.report.plots import is_hollow
from longscale.training.loop import NOT_LEARNED

SHOWN_LENGTHS = [64, 256, 1024, 4096]


class Study:
    """The files of a study."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def table(self) -> pd.DataFrame:
        return sort_mlm_arms(read_mlm_table(self.folder / "tables/mlm.tsv"))

    def beside_checkpoints(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"mlm/*/*/*/*/*/seed*/{name}"))


def cell(row: pd.Series) -> str:
    """Accuracy in %, with a star where a flag concerns the arm itself."""
    star = "*" if is_hollow(row["flags"], MLM_ARM_FLAGS) else ""
    return "-" if row["n"] == 0 else f"{100 * row['accuracy']:.1f}{star}"


def kept(row: pd.Series) -> str:
    """What is retained in %, with its interval."""
    if pd.isna(row["retained"]):
        return "-"
    interval = f" [{100 * row['retained_lo']:.0f}, {100 * row['retained_hi']:.0f}]"
    return f"{100 * row['retained']:.0f}{'' if pd.isna(row['retained_lo']) else interval}"


def lengths_table(study: Study, corpus: str) -> pd.DataFrame:
    """Every attention and rule on RoPE at some lengths, and what is retained at the longest."""
    rows = study.table
    rows = rows[
        (rows["corpus"] == corpus) & (rows["scheme"] == "rope") & (rows["trained_scheme"] == "rope")
    ]
    lines = []
    for (attention, rule), own in rows.groupby(["attention", "rule"], sort=False):
        at = own.set_index("length")
        line = {"attention": attention, "rule": rule, "seeds": at["seeds"].max()}
        line |= {f"{length:,}": cell(at.loc[length]) for length in SHOWN_LENGTHS}
        longest = at.loc[at.index.max()]
        verdict = "-" if NOT_LEARNED in longest["flags"] else longest["verdict"]
        lines.append(line | {"retained [95%]": kept(longest), "verdict at the longest": verdict})
    return pd.DataFrame(lines)


def schemes_table(study: Study, corpus: str) -> pd.DataFrame:
    """Every scheme of the dot product with some rules, at two lengths."""
    rows = study.table
    rows = rows[(rows["corpus"] == corpus) & (rows["attention"] == "dot")]
    rows = rows.assign(trained_in=is_trained_in(rows))
    lines = []
    for (trained_in, scheme), own in rows.groupby(["trained_in", "scheme"], sort=False):
        line = {
            "scheme": scheme,
            "trained in": "yes" if trained_in else "no",
            "seeds": own.loc[own["rule"] == "none", "seeds"].max(),
        }
        for length in (1024, 4096):
            at = own[own["length"] == length].set_index("rule")
            line |= {
                f"{length:,}: {rule}": cell(at.loc[rule])
                for rule in ("none", "infoscale", "entropy-matched")
            }
            # Among rules of as many seeds: a mean of one and a mean of three do not compare.
            alike = at[at["seeds"] == at["seeds"].max()]
            best = alike.loc[alike["accuracy"].fillna(-1).idxmax()]
            line[f"{length:,}: best"] = f"{cell(best)} ({best.name})"
        lines.append(line)
    return pd.DataFrame(lines)


def choice_table(study: Study) -> pd.DataFrame:
    """The arm chosen on development documents against the best listed scheme with InfoScale."""
    rows = pd.read_csv(study.folder / "tables/mlm_choice.tsv", sep="\t")
    lines = []
    for row in rows.to_dict("records"):
        line = {"corpus": row["corpus"], "tokens": f"{int(row['length']):,}"}
        line |= {
            "candidates": row["candidates"],
            "chosen": f"{row['scheme']} + {row['rule']}",
            "against": f"{row['against_scheme']} + {row['against_rule']}",
        }
        for name, prefix, scale, digits in (
            ("accuracy, %", "", 100, 1),
            ("loss, nats", "loss_", 1, 3),
        ):
            of = "loss" if prefix else "accuracy"
            values = (row[f"{prefix}delta{end}"] * scale for end in ("", "_lo", "_hi"))
            delta, low, high = (f"{value:+.{digits}f}" for value in values)
            own, other = (row[f"{of_which}{of}"] * scale for of_which in ("", "against_"))
            line[name] = f"{own:.{digits}f} against {other:.{digits}f}"
            line[f"difference [95%], {of}"] = f"{delta} [{low}, {high}]"
        lines.append(line | {"verdict": row["verdict"]})
    return pd.DataFrame(lines)


def entropy_table(study: Study, corpus: str) -> pd.DataFrame:
    """Entropy of each layer at the training length and at the longest, mean over seeds."""
    rows = read_measurements(study.beside_checkpoints("entropy.tsv"), ENTROPY_COLUMNS)
    rows = rows[(rows["corpus"] == corpus) & (rows["scheme"] == "rope")]
    order = ["attention", "rule", "layer", "length"]
    mean = rows.groupby(order)["entropy"].mean()
    lines = []
    for attention, rule in sorted(set(rows.set_index(order[:2]).index), key=by_names):
        of_arm = mean[attention, rule]
        line = {"attention": attention, "rule": rule}
        for layer in sorted(rows["layer"].unique()):
            own = of_arm[layer]
            change = own[own.index.max()] - own[own.index.min()]
            line[f"layer {layer}"] = (
                f"{own[own.index.min()]:.2f} → {own[own.index.max()]:.2f} ({change:+.2f})"
            )
        lines.append(line)
    return pd.DataFrame(lines)


def cosine_table(study: Study, corpus: str) -> pd.DataFrame:
    """Where the cosines peak against theory, mean over seeds."""
    rows = read_measurements(study.beside_checkpoints("cosine.tsv"), COSINE_COLUMNS)
    rows = rows[(rows["corpus"] == corpus) & (rows["scheme"] == "rope")].dropna(subset="alpha")
    values = COSINE_COLUMNS[2:]
    mean = rows.groupby(["alpha", "layer"])[values].mean()
    lines = []
    for alpha in sorted(rows["alpha"].unique()):
        own = mean.loc[alpha]
        line = {
            "alpha": f"{alpha:g}",
            "theory: mode, mean": f"{own['theory_mode'].iloc[0]:.3f}, "
            f"{own['theory_mean'].iloc[0]:.3f}",
        }
        for layer, row in own.iterrows():
            line[f"layer {layer}: all, weighted, mean"] = (
                f"{row['peak']:.2f}, {row['weighted_peak']:.2f}, {row['weighted_mean']:.2f}"
            )
        lines.append(line)
    return pd.DataFrame(lines)


def trainings_table(study: Study) -> pd.DataFrame:
    """The last losses of every training, seeds side by side."""
    rows = read_histories(study.beside_checkpoints("training.json"))
    last = (
        rows.sort_values("step")
        .groupby(["corpus", "attention", "scheme", "seed"])[["loss", "dev_loss"]]
        .last()  # of each column the last that is there
    )
    lines = []
    keys = sorted({index[:3] for index in last.index}, key=by_names)
    for corpus, attention, scheme in keys:
        own = last.loc[corpus, attention, scheme]
        shown = {
            name: ", ".join(f"{value:.2f}" for value in own[column])
            for name, column in (("training loss", "loss"), ("development loss", "dev_loss"))
        }
        lines.append({"corpus": corpus, "attention": attention, "trained with": scheme} | shown)
    return pd.DataFrame(lines)


def by_names(names: tuple[str, ...]) -> list:
    return [natural_order(name) for name in names]


TABLES: dict[str, Callable[..., pd.DataFrame]] = {
    "trainings": trainings_table,
    "lengths": lengths_table,
    "schemes": schemes_table,
    "choice": choice_table,
    "entropy": entropy_table,
    "cosines": cosine_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    study = Study(options.study)
    fill_page(options.page, {name: partial(table, study) for name, table in TABLES.items()})


if __name__ == "__main__":
    main()
