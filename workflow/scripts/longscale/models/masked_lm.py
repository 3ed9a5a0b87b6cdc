"""What the masked language models share."""

from torch import nn
from transformers import PreTrainedModel

IGNORED_LABEL = -100  # of tokens that no loss is computed on


class MaskedLMHead(nn.Module):
    """Holds a head under the name of the published checkpoints, `cls.predictions`."""

    def __init__(self, predictions: nn.Module) -> None:
        super().__init__()
        self.predictions = predictions


class TiedMaskedLM(PreTrainedModel):
    """A model with a `MaskedLMHead` as `cls`, whose decoder is the word embeddings."""

    def get_output_embeddings(self) -> nn.Linear:
        return self.cls.predictions.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.cls.predictions.decoder = value
