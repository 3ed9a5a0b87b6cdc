"""Fill the tables of docs/released.md from a study of config/released.yaml.

    python benchmarks/released_choices.py results/released docs/released.md

`readout_distance.py` has been run on the same study. Where the tables stand: pages.py.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "workflow/scripts"))

import pandas as pd
from pages import fill_page

from longscale.evaluation.compare import read_auroc_table

PROTOCOLS = ["paired", "random-dev", "alternative-only", "at-cls", "alternative-at-cls", "released"]
RULES = ["-released-d", "-released-ntrain", "-released-bias", "-released"]


def read_study(results: Path) -> pd.DataFrame:
    """Every row of the study, released arms too."""
    names = ("auroc", "auroc_released")
    return pd.concat(read_auroc_table(results / f"tables/{name}.tsv") for name in names)


def interval(row: pd.Series, name: str, sign: str = "") -> str:
    """A value with its interval; bold where an interval of a difference excludes zero."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_lo", "_hi"))
    text = f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
    return f"**{text}**" if sign and low * high > 0 else text


def cost(row: pd.Series) -> str:
    """What the choices of a row cost, or its AUROC where it has none."""
    own = interval(row, "auroc")
    if row["choice_verdict"] == "baseline":
        return own
    return interval(row, "choice_delta", "+")


def by_length(rows: pd.DataFrame) -> dict[str, str]:
    """`cost` at each length."""
    return {
        f"{row['eval_bp']:,} bp": cost(row) for _, row in rows.sort_values("eval_bp").iterrows()
    }


def protocols_table(study: pd.DataFrame, task: str) -> pd.DataFrame:
    """`dot` without a rule under every protocol."""
    rows = study[
        (study["task"] == task) & (study["attention"] == "dot") & (study["rule"] == "none")
    ]
    of = rows.groupby("protocol").get_group
    return pd.DataFrame({"protocol": name} | by_length(of(name)) for name in PROTOCOLS)


def rules_table(study: pd.DataFrame, task: str) -> pd.DataFrame:
    """InfoScale with each defect of the released one."""
    rows = study[(study["task"] == task) & (study["protocol"] == "paired")]
    lines = []
    for attention in ("dot", "cos-matched", "cos16"):
        own = rows[rows["attention"] == attention].groupby("rule").get_group
        for rule in ("infoscale", *(f"infoscale{ending}" for ending in RULES)):
            lines.append({"attention": attention, "rule": rule} | by_length(own(rule)))
    return pd.DataFrame(lines)


def keys_table(study: pd.DataFrame) -> pd.DataFrame:
    """Cosine attention with keys normalised along the head dimension, and along the sequence."""
    rows = study[(study["protocol"] == "paired") & (study["rule"] == "none")]
    lines = []
    for task, own in rows.groupby("task", sort=False):
        for attention in ("cos16", "cos16-released"):
            at = by_length(own[own["attention"] == attention])
            lines.append({"task": task, "attention": attention} | at)
    return pd.DataFrame(lines)


def distance_table(results: Path, protocol: str) -> pd.DataFrame:
    """AUROC by window length (down) and bases on the left of the variant (across), and what is
    lost against the windows of the training."""
    rows = pd.read_csv(results / "tables/readout_distance.tsv", sep="\t")
    rows = rows[rows["protocol"] == protocol]
    lines = []
    for (window_bp, rule), own in rows.groupby(["window_bp", "rule"], sort=False):
        line = {"window": f"{window_bp:,} bp", "rule": rule}
        line |= {f"{left:,} bp on the left": "" for left in sorted(set(rows["left_bp"]))}
        for _, row in own.iterrows():
            is_start = row["delta_lo"] == row["delta_hi"] == 0
            text = interval(row, "auroc") if is_start else interval(row, "delta", "+")
            line[f"{row['left_bp']:,} bp on the left"] = text
        lines.append(line)
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    study = read_study(options.results)
    tables = {
        "protocols": partial(protocols_table, study),
        "rules": partial(rules_table, study),
        "keys": partial(keys_table, study),
        "distance": partial(distance_table, options.results),
    }
    fill_page(options.page, tables)


if __name__ == "__main__":
    main()
