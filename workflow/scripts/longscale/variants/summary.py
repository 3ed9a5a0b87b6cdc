"""What became of the alleles of a task, for a person: lines for a log, facts for a file, tables."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from longscale.variants.accept import REASONS, Accepted, shorten

COUNTS = ("rows", "alleles", "accepted", "swapped", "rejected")


def summary_facts(found: Accepted) -> dict[str, Any]:
    """What `summary.json` holds.

    COUNTS (alleles == accepted + rejected; swapped: accepted, with REF and ALT exchanged); reasons:
    reason -> alleles; examples: reason -> the first of them, as a line of the ledger without its
    reason.
    """
    accepted, rejected, counts = found
    facts = {**counts, "swapped": int(accepted["swapped"].sum())}
    firsts = rejected.drop_duplicates("reason").set_index("reason")
    counted = rejected["reason"].value_counts()
    in_order = [reason for reason in REASONS if reason in counted.index]
    return {
        **{name: facts[name] for name in COUNTS},
        "reasons": {reason: int(counted[reason]) for reason in in_order},
        "examples": {
            reason: {**firsts.loc[reason].to_dict(), "line": int(firsts.loc[reason, "line"])}
            for reason in in_order
        },
    }


def summarise(found: Accepted) -> str:
    """A few lines for a person: what was read, what was kept per split and class, what was not."""
    facts = summary_facts(found)
    lines = [
        f"{facts['rows']:,} rows, {facts['alleles']:,} alleles: "
        f"{facts['accepted']:,} accepted, {facts['rejected']:,} rejected"
    ]
    if facts["swapped"]:
        lines.append(f"  REF and ALT exchanged: {facts['swapped']:,}, marked in the column swapped")
    for split, rows in found.accepted.groupby("split", sort=True):
        positives = int(rows["label"].sum())
        lines.append(
            f"  {split or 'no split'}: {len(rows):,} variants, {positives:,} with label 1, "
            f"{len(rows) - positives:,} with label 0"
        )
    for reason, count in sorted(facts["reasons"].items(), key=lambda item: (-item[1], item[0])):
        first = facts["examples"][reason]
        lines.append(f"  {reason}: {count:,}, e.g. line {first['line']}: {first['sentence']}")
    return "\n".join(lines)


def variants_table(facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per task (task -> `summary_facts`): COUNTS, and the alleles rejected by reason."""
    rows = [
        {
            "task": task,
            **{name: of_task[name] for name in COUNTS},
            **{reason: of_task["reasons"].get(reason, 0) for reason in REASONS},
        }
        for task, of_task in facts.items()
    ]
    return pd.DataFrame(rows, columns=["task", *COUNTS, *REASONS])


def outcomes_table(facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The same for a reader: one row per task and outcome, with the first allele it befell.

    Columns task, outcome, alleles, share (of the task's alleles), line, example, sentence, flags
    (the reason of what is rejected).
    """
    rows = []
    for task, of_task in facts.items():
        swapped = of_task["swapped"]
        kept = {"accepted": of_task["accepted"] - swapped, "accepted, swapped": swapped}
        rows += [_outcome(task, of_task, name, kept[name]) for name in kept if kept[name]]
        for reason, count in of_task["reasons"].items():
            # Facts from before there were examples have none.
            first = of_task.get("examples", {}).get(reason)
            rows.append(_outcome(task, of_task, "rejected", count, reason, first))
    columns = ["task", "outcome", "alleles", "share", "line", "example", "sentence", "flags"]
    return pd.DataFrame(rows, columns=columns)


def _outcome(
    task: str,
    facts: Mapping[str, Any],
    outcome: str,
    alleles: int,
    reason: str = "",
    first: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    share = alleles / facts["alleles"]
    row = {"task": task, "outcome": outcome, "alleles": alleles, "share": share, "flags": reason}
    if first is None:
        return {**row, "line": "", "example": "", "sentence": ""}
    alleles_shown = f"{shorten(first['ref'])}>{shorten(first['alt'])}"
    example = f"{first['contig']}:{first['pos']} {alleles_shown}"
    return {**row, "line": first["line"], "example": example, "sentence": first["sentence"]}
