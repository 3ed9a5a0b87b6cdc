"""The length rule of a model with several attention heads that runs on packed tokens."""

import torch

from longscale.attention.kernel import Packing
from longscale.attention.rules import (
    check_measured,
    check_n_train,
    length_multiplier,
    length_rule,
)
from longscale.errors import LongscaleError


class HeadRules:
    """A `PreTrainedModel` whose base model has `rule` and `measured`, and beta for its layers."""

    def set_rule(self, name: str, measured: torch.Tensor | None = None) -> None:
        """Use the length rule `name` in every layer from now on; it is not saved.

        `measured` (layers, heads): the multipliers of a measured rule, for sequences of more than
        `config.n_train` tokens. Raises `LongscaleError` for an unknown rule, if what it needs
        (`config.n_train`, `measured`) is not there, and if `measured` has another shape.
        """
        check_n_train(name, self.config.n_train)
        check_measured(name, measured)
        shape = (self.config.num_hidden_layers, self.config.num_attention_heads)
        if measured is not None and tuple(measured.shape) != shape:
            raise LongscaleError(
                f"rule: {name!r} was given multipliers of shape {tuple(measured.shape)}; the model "
                f"has {shape[0]} layers of {shape[1]} heads."
            )
        self.base_model.rule, self.base_model.measured = name, measured

    def multipliers(self, packing: Packing, d: int) -> list[torch.Tensor]:
        """beta of each token, layer by layer: (T, 1, 1), or measured for each head (T, H, 1).

        `d`: that of the rule's equation.
        """
        config, device = self.config, packing.tokens.device
        if length_rule(self.rule).measured:
            beyond = (packing.lengths > config.n_train).to(device)[packing.sequence, None, None]
            measured = self.measured.to(device, torch.float32)[:, None, :, None]
            return list(torch.where(beyond, measured, 1.0))
        beta = length_multiplier(self.rule, packing.lengths, config.n_train, d)
        beta = beta.to(device, torch.float32)[packing.sequence, None, None]
        return [beta] * config.num_hidden_layers
