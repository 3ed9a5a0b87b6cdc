"""Read and convert checkpoints under their original key names.

A checkpoint is a folder with `config.json` and `model.safetensors`, or the original
`pytorch_model.bin`, which is read with `weights_only=True`: code in a pickle never runs. To write
one, use `save_pretrained`. Nothing is left random in silence: every key that does not fit is an
error, except the parts that `FAMILIES` names. To add an architecture, write one row there.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from transformers import PreTrainedModel

from longscale.errors import LongscaleError
from longscale.files import atomic_folder
from longscale.models.dnabert2 import DNABERT2ForMaskedLM, DNABERT2ForSequenceClassification
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.models.hyenadna import HyenaDNAForCausalLM
from longscale.models.nucleotide_transformer import (
    NucleotideTransformerConfig,
    NucleotideTransformerForMaskedLM,
)

Model = TypeVar("Model", bound=PreTrainedModel)
Weights = dict[str, torch.Tensor]

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"

# Written by transformers about the run that saved the file, not about the architecture.
_FOREIGN_CONFIG_KEYS = {"architectures", "dtype", "transformers_version"}


@dataclass(frozen=True)
class Family:
    """What the checkpoints of one architecture have in common: a row of `FAMILIES`.

    `prefix`: of the encoder's keys. `language_model`, `classifier`: the classes that a whole
    checkpoint is one of. `new`: parts that a model may have beyond its checkpoint (they are trained
    or set afterwards). `dropped`: parts that a checkpoint may have beyond a model, which has none
    of them. `buffers`: constants that some files store, never read. All three are patterns of keys,
    and none holds a weight that the encoder uses. `tokenizer_files`: globs of what a conversion
    takes along. `config`: config.json in the words of this project. `renamed`: patterns of keys as
    other published files have them, and what stands for them here.
    """

    name: str
    prefix: str
    language_model: type[PreTrainedModel]
    classifier: type[PreTrainedModel] | None
    new: str
    dropped: str
    buffers: str | None
    tokenizer_files: tuple[str, ...]
    config: Callable[[dict[str, object]], dict[str, object]]
    renamed: tuple[tuple[str, str], ...] = ()


def _gau_alpha_config(stored: dict[str, object]) -> dict[str, object]:
    """A GAU-alpha config.json, where it is a published one, in the words of this project.

    The training length is `max_position_embeddings`, as long as the rotary positions of a published
    file reach. The released training of HT-NEKO (model/train.py) writes down in `my_info_dict` what
    it did; the attention it trained with stands nowhere else.
    """
    own = {"n_train": stored.get("max_position_embeddings", GAUAlphaConfig.max_position_embeddings)}
    info = stored.get("my_info_dict")
    if info:
        own |= _released_training(info)
        stored = {key: value for key, value in stored.items() if key != "normalization"}
    return own | stored


def _released_training(info: object) -> dict[str, object]:
    """Attention, normalization and n_train of `my_info_dict`; raises where they are not known."""
    match info:
        case {"algorithm": str(algorithm)}:
            raise LongscaleError(
                f"my_info_dict: the checkpoint was trained with algorithm {algorithm}; only plain "
                "rotary positions (no algorithm) can be read."
            )
        case {"train_norm_method": {"name": "noCosScale"}}:
            attention = "dot"
        case {
            "train_norm_method": {"name": "CosScale", "CosScale_value": int() | float() as alpha}
        }:
            attention = f"cos{alpha:g}"
        case _:
            raise LongscaleError(
                "my_info_dict: train_norm_method is not known; its name must be noCosScale, or "
                "CosScale with a number as CosScale_value."
            )
    match info:
        case {"train_len": int(n_train), "train_normalization": {"name": str(normalization)}}:
            return {"attention": attention, "normalization": normalization, "n_train": n_train}
    raise LongscaleError(
        "my_info_dict: train_len must be a number of tokens, and train_normalization have a name."
    )


def _nucleotide_transformer_config(stored: dict[str, object]) -> dict[str, object]:
    """A config.json of Nucleotide Transformer v2, with the training length.

    ESM counts positions from pad_token_id + 1, so `max_position_embeddings` is two more than the
    2048 tokens of training.
    """
    longest = stored.get(
        "max_position_embeddings", NucleotideTransformerConfig.max_position_embeddings
    )
    return stored | {"n_train": stored.get("n_train") or longest - 2}


# Words of the original HyenaDNA code's `layer` -> those of the hub's repositories.
_HYENADNA_LAYER = {
    "l_max": "max_seq_len",
    "emb_dim": "emb_dim",
    "filter_order": "filter_order",
    "order": "hyena_order",
    "local_order": "short_filter_order",
    "w": "activation_freq",
}


def _hyenadna_config(stored: dict[str, object]) -> dict[str, object]:
    """A HyenaDNA config.json of the hub's -hf repositories, or of the original code, in the words
    of the former.
    """
    layer = stored.get("layer", {})
    if not isinstance(layer, dict) or not layer.get("modulate", True):
        raise LongscaleError("layer: must be an object, and its modulate true.")
    own = {name: layer[key] for key, name in _HYENADNA_LAYER.items() if key in layer}
    return own | stored


FAMILIES = (
    Family(
        name="DNABERT-2",
        prefix="bert.",
        language_model=DNABERT2ForMaskedLM,
        classifier=DNABERT2ForSequenceClassification,
        new=r"(bert\.pooler|classifier|head)\..*|.*\.attention\.self\.alpha",
        dropped=r"(cls|bert\.pooler)\.",
        buffers=None,
        tokenizer_files=("tokenizer*.json", "special_tokens_map.json"),
        config=dict,
    ),
    Family(
        name="GAU-alpha",
        prefix="gau_alpha.",
        language_model=GAUAlphaForMaskedLM,
        classifier=None,
        new=r".*\.gau\.alpha",
        dropped=r"cls\.",
        buffers=r"gau_alpha\.encoder\.(sin_pos|cos_pos|inv_freq)",
        tokenizer_files=("tokenizer*.json", "special_tokens_map.json", "vocab.txt"),
        config=_gau_alpha_config,
    ),
    Family(
        name="Nucleotide Transformer v2",
        prefix="esm.",
        language_model=NucleotideTransformerForMaskedLM,
        classifier=None,
        new="",
        dropped=r"(lm_head|classifier|esm\.contact_head|esm\.embeddings\.position_embeddings)\.",
        buffers=r"esm\.embeddings\.position_ids|.*\.rotary_embeddings\.inv_freq",
        tokenizer_files=("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"),
        config=_nucleotide_transformer_config,
    ),
    Family(
        name="HyenaDNA",
        prefix="hyena.",
        language_model=HyenaDNAForCausalLM,
        classifier=None,
        new="",
        dropped=r"(lm_head|head|score)\.",
        buffers=None,
        tokenizer_files=("tokenizer_config.json", "special_tokens_map.json"),
        config=_hyenadna_config,
        renamed=(
            (r"^(model\.)?(?=backbone\.)", "hyena."),
            (r"^model\.(?=lm_head\.)", ""),
            (r"\.(mixer|mlp)\.layer\.", r".\1."),
            (r"\.implicit_filter\.\d+\.freq$", ".implicit_filter.1.freq"),  # one, stored often
        ),
    ),
)


def load_checkpoint(
    model_class: type[Model],
    folder: str | Path,
    *,
    complete: bool = False,
    **config_overrides: object,
) -> Model:
    """A `model_class` in evaluation mode with the weights of the checkpoint in `folder`.

    `config_overrides` replace keys of its config.json (`attention`, `n_train`, `num_labels`, ...);
    `num_hidden_layers` below the checkpoint's own takes that many of its lowest layers. Pooler,
    classifier, variant head and alpha may be missing and are then initialised at random (alpha:
    sqrt(d)), unless `complete` asks for a model that is ready to be used. A masked-LM head or
    pooler that the model does not have is dropped. Raises `LongscaleError` for files that are
    absent or unreadable, an unknown config key, any other key that is missing or unexpected, a
    wrong shape, and weights that are not finite.
    """
    folder = Path(folder)
    family = _family_of(model_class)
    config = _read_config(model_class, folder, config_overrides)
    weights, source = _read_weights(folder)
    if "num_hidden_layers" in config_overrides:
        stored = _read_config(model_class, folder, {}).num_hidden_layers
        weights = _without_layers(family, weights, range(config.num_hidden_layers, stored))
    try:
        model = model_class(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(
            f"{folder / 'config.json'}: no model can be built with its sizes: {reason}"
        ) from error
    assign_weights(model, weights, source, complete=complete)
    return model.eval()


def new_parameters(model: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that a pretrained checkpoint need not have, by name (see `Family.new`)."""
    new = _family_of(type(model)).new
    return {name: value for name, value in model.named_parameters() if re.fullmatch(new, name)}


def assign_weights(
    model: PreTrainedModel, weights: Weights, source: str | Path, *, complete: bool = False
) -> None:
    """Copy `weights`, under original key names, into `model`; `source` names them in errors.

    What may be missing or dropped, and what raises, is as in `load_checkpoint`.
    """
    family = _family_of(type(model))
    expected = {_original_name(family, model, key): key for key in model.state_dict()}
    kept = _kept(family, expected, _renamed(family, weights, source))
    _check_tie(model, kept, source)
    tied = model.all_tied_weights_keys
    absent = [key for key in expected if key not in kept and key not in tied]
    missing = [key for key in absent if complete or not re.fullmatch(family.new, key)]
    _complain(source, "keys are missing", missing, f"is this a {family.name} checkpoint?")
    unexpected = [key for key in kept if key not in expected]
    _complain(
        source, "keys are unexpected", unexpected, f"{type(model).__name__} has no place for them."
    )
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    wrong = [
        f"{key} is {tuple(value.shape)} but {tuple(shapes[expected[key]])} in the model"
        for key, value in kept.items()
        if value.shape != shapes[expected[key]]
    ]
    _complain(source, "shapes do not fit", wrong, "does config.json belong to these weights?")
    broken = [key for key, value in kept.items() if not value.isfinite().all()]
    _complain(source, "weights are NaN or infinite", broken, "take an intact checkpoint.")
    model.load_state_dict({expected[key]: value for key, value in kept.items()}, strict=False)


def convert_checkpoint(folder_in: str | Path, folder_out: str | Path) -> None:
    """Write the checkpoint in `folder_in` as model.safetensors and config.json into `folder_out`.

    `folder_out` appears whole or not at all; the tokenizer's files come along. The checkpoint must
    be a masked language model or a sequence classifier of one of `FAMILIES`, and raises as in
    `load_checkpoint`.
    """
    folder_in = Path(folder_in)
    weights, source = _read_weights(folder_in)
    family = _family_of_weights(weights, source)
    classifier = weights.get("classifier.weight")
    if classifier is None or family.classifier is None:
        model = load_checkpoint(family.language_model, folder_in)
    else:
        model = load_checkpoint(family.classifier, folder_in, num_labels=len(classifier))
    with atomic_folder(folder_out) as part:
        model.save_pretrained(part)
        for pattern in family.tokenizer_files:
            for path in folder_in.glob(pattern):
                shutil.copyfile(path, part / path.name)


def copy_weights(folder_in: str | Path, folder_out: str | Path) -> None:
    """Write the weights of `folder_in`, of any architecture, as model.safetensors into
    `folder_out`; raises as in `load_checkpoint` where they cannot be read.
    """
    folder_in = Path(folder_in)
    if (folder_in / SAFETENSORS).is_file():
        shutil.copyfile(folder_in / SAFETENSORS, Path(folder_out, SAFETENSORS))
        return
    weights, _ = _read_weights(folder_in)
    # What is stored twice under two names is written twice: safetensors know no shared memory.
    own = {
        key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()
    }
    safetensors.torch.save_file(own, Path(folder_out, SAFETENSORS), {"format": "pt"})


def _family_of(model_class: type[PreTrainedModel]) -> Family:
    return next(
        family
        for family in FAMILIES
        if family.prefix == f"{model_class.base_model_prefix}."  # what PreTrainedModel calls it
    )


def _family_of_weights(weights: Weights, source: Path) -> Family:
    for family in FAMILIES:
        if any(_new_name(family, key).startswith(family.prefix) for key in weights):
            return family
    raise LongscaleError(
        f"{source}: no key begins with {' or '.join(family.prefix for family in FAMILIES)}; it must"
        f" be a checkpoint of {' or '.join(family.name for family in FAMILIES)}."
    )


def _read_config(model_class: type[Model], folder: Path, overrides: dict[str, object]) -> object:
    """The model's config: keys of config.json that it knows, then `overrides`."""
    path = folder / "config.json"
    try:
        stored = json.loads(path.read_text("utf-8-sig"))
        if not isinstance(stored, dict):
            raise ValueError("it is not an object")
    except FileNotFoundError:
        raise LongscaleError(f"{path}: there is no such file; a checkpoint needs one.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise LongscaleError(f"{path}: not a JSON object ({error}).") from error
    config_class = model_class.config_class
    known = {*config_class.__dataclass_fields__, "num_labels"} - _FOREIGN_CONFIG_KEYS
    unknown = sorted(set(overrides) - known)
    _complain("config overrides", "keys are unknown", unknown, "use keys of the model's config.")
    if "num_labels" in overrides:  # the stored names of the labels would win over their number
        known -= {"id2label", "label2id"}
    try:
        stored = _family_of(model_class).config(stored)
        stored = {key: value for key, value in stored.items() if key in known}
        _check_numbers(config_class, stored)
        return config_class(**(stored | overrides))
    except LongscaleError as error:
        raise LongscaleError(f"{path}: {error}") from error
    except Exception as error:  # transformers' checks raise classes of huggingface_hub, too
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: a value does not fit: {reason}") from error


def _check_numbers(config_class: type, stored: dict[str, object]) -> None:
    """Raise where a key whose default is a number has something else (transformers' own check
    fails to say so).
    """
    for key, value in stored.items():
        field = config_class.__dataclass_fields__.get(key)
        wants_number = field is not None and type(field.default) in (int, float)
        if wants_number and value is not None and type(value) not in (int, float):
            raise LongscaleError(f"{key} is {str(value)[:80]!r}, but must be a number.")


def _read_weights(folder: Path) -> tuple[Weights, Path]:
    """All tensors of the folder's checkpoint, on the CPU, and the file they come from."""
    path = folder / SAFETENSORS
    if path.is_file():
        try:
            return safetensors.torch.load_file(path), path
        except Exception as error:  # of a broken file: SafetensorError, KeyError, OSError, ...
            raise LongscaleError(f"{path}: not a readable safetensors file ({error}).") from error
    path = folder / PICKLE
    if not path.is_file():
        raise LongscaleError(f"{folder}: there is neither {SAFETENSORS} nor {PICKLE}.")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a broken file: any that an unpickler or zipfile can raise
        raise LongscaleError(
            f"{path}: not a file of weights alone; a truncated file, or a pickle with objects "
            "or code in it, is not read."
        ) from error
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise LongscaleError(f"{path}: not a state dict; it must map key names to tensors.")
    return weights, path


def _original_name(family: Family, model: PreTrainedModel, key: str) -> str:
    """A model's key under the original names, in which the encoder has the family's prefix."""
    return family.prefix + key if model.base_model is model else key


def _new_name(family: Family, key: str) -> str:
    for pattern, replacement in family.renamed:
        key = re.sub(pattern, replacement, key)
    return key


def _renamed(family: Family, weights: Weights, source: str | Path) -> Weights:
    """`weights` under the names of this project; what is stored twice must be the same."""
    renamed: Weights = {}
    for key, value in weights.items():
        name = _new_name(family, key)
        if name in renamed and not torch.equal(renamed[name], value):
            raise LongscaleError(f"{source}: {key} differs from {name}, which it must equal.")
        renamed[name] = value
    return renamed


def _with_prefix(family: Family, weights: Weights) -> Weights:
    """`weights` as they are, or those of a base model saved by itself under original names."""
    if any(key.startswith(family.prefix) for key in weights):
        return weights
    return {family.prefix + key: value for key, value in weights.items()}


def _without_layers(family: Family, weights: Weights, layers: Iterable[int]) -> Weights:
    """`weights` less those of the encoder's `layers`."""
    gone = tuple(f"{family.prefix}encoder.layer.{layer}." for layer in layers)
    return {
        key: value
        for key, value in _with_prefix(family, weights).items()
        if not key.startswith(gone)
    }


def _kept(family: Family, expected: Iterable[str], weights: Weights) -> Weights:
    """`weights` less buffers and the parts that the model (keys `expected`) has nothing of."""
    parts = {match[0] for key in expected if (match := re.match(family.dropped, key))}

    def is_kept(key: str) -> bool:
        if family.buffers and re.fullmatch(family.buffers, key):
            return False
        match = re.match(family.dropped, key)
        return match is None or match[0] in parts

    return {key: value for key, value in _with_prefix(family, weights).items() if is_kept(key)}


def _check_tie(model: PreTrainedModel, weights: Weights, source: str | Path) -> None:
    """A tied weight that is stored twice must be the same both times."""
    for tied, origin in model.all_tied_weights_keys.items():
        if (
            tied in weights
            and origin in weights
            and not torch.equal(weights[tied], weights[origin])
        ):
            raise LongscaleError(
                f"{source}: {tied} differs from {origin}; they are tied, so they must be equal."
            )


def _complain(source: str | Path, what: str, keys: Iterable[str], hint: str) -> None:
    """`LongscaleError` listing `keys` (the first eight of them) if there are any."""
    keys = list(keys)
    if keys:
        more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        raise LongscaleError(f"{source}: {what}: {', '.join(keys[:8])}{more}; {hint}")
