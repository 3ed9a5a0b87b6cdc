"""Low-rank adapters (LoRA, Hu et al. 2022, arXiv 2106.09685) on the encoder's linear layers.

While it is trained, W x becomes W x + (alpha / r) B A x with W frozen; afterwards the product is
added to W, so that what is saved is a checkpoint like any other.
"""

from peft import LoraConfig, LoraModel

from longscale.models.checkpoint import new_parameters
from longscale.models.dnabert2 import DNABERT2PreTrainedModel


def add_lora(
    model: DNABERT2PreTrainedModel,
    *,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: list[str],
) -> LoraModel:
    """Put adapters of rank `r` on the linear layers of `model`'s blocks that `target_modules`
    names, in place; the rest is frozen, except for what is new to the pretrained model (head,
    pooler and the alpha of cos-matched), which is trained as without adapters.

    `merge_and_unload` of what is returned makes `model` a plain one again. B is zero at first, so
    the outputs are those of before.
    """
    layers = rf".*\.layer\.\d+\.(.*\.)?({'|'.join(target_modules)})"
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers)
    adapted = LoraModel(model, config, "default")
    for parameter in new_parameters(model).values():
        parameter.requires_grad_(True)
    return adapted
