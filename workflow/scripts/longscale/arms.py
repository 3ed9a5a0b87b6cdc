"""Which arms a checkpoint of the masked-LM branch is scored with."""

from longscale.attention.positions import POSITION_SCHEMES

Arm = tuple[str, str]  # scheme, rule


def applies(scheme: str, trained_scheme: str) -> bool:
    """Whether a checkpoint can be scored with a scheme: its own, or a training-free one on RoPE."""
    trained_in = POSITION_SCHEMES[scheme].trained
    return scheme == trained_scheme or (trained_scheme == "rope" and not trained_in)


def mlm_arms(
    mlm: dict, attention: str, trained_scheme: str, seed: int, protocol: str, length: int
) -> list[Arm]:
    """Scheme and rule of every arm that a checkpoint is scored with in a cell, in order.

    `mlm`: the section of the configuration; `length` in tokens.
    """
    cell = {"attentions": attention, "seeds": seed, "protocols": protocol, "lengths": length}
    rows = [
        row for row in mlm["arms"] if all(row[k] is None or v in row[k] for k, v in cell.items())
    ]
    arms = [(scheme, rule) for row in rows for scheme in row["schemes"] for rule in row["rules"]]
    return list(dict.fromkeys(arm for arm in arms if applies(arm[0], trained_scheme)))


def asked_arms(mlm: dict, attention: str, trained_scheme: str) -> list[Arm]:
    """Every arm that checkpoints of a kind are scored with, in any cell."""
    arms = [
        arm
        for seed in sorted({seed for row in mlm["trainings"] for seed in row["seeds"]})
        for protocol in mlm["protocols"]
        for length in mlm["lengths"]
        for arm in mlm_arms(mlm, attention, trained_scheme, seed, protocol, length)
    ]
    return list(dict.fromkeys(arms))
