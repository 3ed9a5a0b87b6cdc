"""Read and convert checkpoints under DNABERT-2's original key names.

A checkpoint is a folder with `config.json` and `model.safetensors`, or the original
`pytorch_model.bin`, which is read with `weights_only=True`: code in a pickle never runs. To write
one, use `save_pretrained`. Nothing is left random in silence: every key that does not fit is an
error, except the new parts of a model that the checkpoint was not trained with.
"""

import json
import pickle
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError

from longscale.errors import LongscaleError
from longscale.files import atomic_folder
from longscale.models.dnabert2 import (
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
    DNABERT2PreTrainedModel,
)

Model = TypeVar("Model", bound=DNABERT2PreTrainedModel)

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"

# Parts that a model may have beyond its checkpoint (they are trained or set afterwards), and parts
# that a checkpoint may have beyond the model. Neither holds anything of the encoder.
_NEW_PREFIXES = ("bert.pooler.", "classifier.", "head.")
_NEW_SUFFIX = ".attention.self.alpha"
_DROPPED_PREFIXES = ("cls.", "bert.pooler.")

# Written by transformers about the run that saved the file, not about the architecture.
_FOREIGN_CONFIG_KEYS = {"architectures", "dtype", "transformers_version"}


def load_checkpoint(
    model_class: type[Model],
    folder: str | Path,
    *,
    complete: bool = False,
    **config_overrides: object,
) -> Model:
    """A `model_class` in evaluation mode with the weights of the checkpoint in `folder`.

    `config_overrides` replace keys of its config.json (`attention`, `n_train`, `num_labels`, ...).
    Pooler, classifier, variant head and alpha may be missing and are then initialised at random
    (alpha: sqrt(d)), unless `complete` asks for a model that is ready to be used. A masked-LM head
    or pooler that the model does not have is dropped. Raises
    `LongscaleError` for files that are absent or unreadable, an unknown config key, any other key
    that is missing or unexpected, a wrong shape, and weights that are not finite.
    """
    folder = Path(folder)
    config = _read_config(model_class, folder, config_overrides)
    weights, source = _read_weights(folder)
    model = model_class(config)
    assign_weights(model, weights, source, complete=complete)
    return model.eval()


def assign_weights(
    model: DNABERT2PreTrainedModel,
    weights: dict[str, torch.Tensor],
    source: str | Path,
    *,
    complete: bool = False,
) -> None:
    """Copy `weights`, under original key names, into `model`; `source` names them in errors.

    What may be missing or dropped, and what raises, is as in `load_checkpoint`.
    """
    expected = {_original_name(model, key): key for key in model.state_dict()}
    if not any(key.startswith("bert.") for key in weights):  # a base model saved by itself
        weights = {f"bert.{key}": value for key, value in weights.items()}
    _check_tie(model, weights, source)
    kept = {
        key: value
        for key, value in weights.items()
        if key in expected or not key.startswith(_DROPPED_PREFIXES)
    }
    tied = model.all_tied_weights_keys
    absent = [key for key in expected if key not in kept and key not in tied]
    missing = [key for key in absent if complete or not _is_new(key)]
    _complain(source, "keys are missing", missing, "is this a DNABERT-2 checkpoint?")
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
    be a masked language model or a sequence classifier, and raises as in `load_checkpoint`.
    """
    folder_in = Path(folder_in)
    weights, _ = _read_weights(folder_in)
    classifier = weights.get("classifier.weight")
    if classifier is None:
        model = load_checkpoint(DNABERT2ForMaskedLM, folder_in)
    else:
        model = load_checkpoint(
            DNABERT2ForSequenceClassification, folder_in, num_labels=len(classifier)
        )
    with atomic_folder(folder_out) as part:
        model.save_pretrained(part)
        for pattern in ("tokenizer*.json", "special_tokens_map.json"):
            for path in folder_in.glob(pattern):
                shutil.copyfile(path, part / path.name)


def _read_config(model_class: type[Model], folder: Path, overrides: dict[str, object]) -> object:
    """The model's config: keys of config.json that it knows, then `overrides`."""
    path = folder / "config.json"
    try:
        stored = json.loads(path.read_text())
        if not isinstance(stored, dict):
            raise ValueError("it is not an object")
    except FileNotFoundError:
        raise LongscaleError(f"{path}: there is no such file; a checkpoint needs one.") from None
    except ValueError as error:
        raise LongscaleError(f"{path}: not a JSON object ({error}).") from error
    config_class = model_class.config_class
    known = {*config_class.__dataclass_fields__, "num_labels"} - _FOREIGN_CONFIG_KEYS
    unknown = sorted(set(overrides) - known)
    _complain("config overrides", "keys are unknown", unknown, "use keys of the model's config.")
    if "num_labels" in overrides:  # the stored names of the labels would win over their number
        known -= {"id2label", "label2id"}
    stored = {key: value for key, value in stored.items() if key in known}
    try:
        return config_class(**(stored | overrides))
    except LongscaleError as error:
        raise LongscaleError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: a value does not fit: {reason}") from error


def _read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    """All tensors of the folder's checkpoint, on the CPU, and the file they come from."""
    path = folder / SAFETENSORS
    if path.is_file():
        try:
            return safetensors.torch.load_file(path), path
        except SafetensorError as error:
            raise LongscaleError(f"{path}: not a readable safetensors file ({error}).") from error
    path = folder / PICKLE
    if not path.is_file():
        raise LongscaleError(f"{folder}: there is neither {SAFETENSORS} nor {PICKLE}.")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise LongscaleError(
            f"{path}: not a file of weights alone; a truncated file, or a pickle with objects "
            "or code in it, is not read."
        ) from error
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise LongscaleError(f"{path}: not a state dict; it must map key names to tensors.")
    return weights, path


def _original_name(model: DNABERT2PreTrainedModel, key: str) -> str:
    """A model's key under the original names, in which the encoder is `bert.`."""
    return f"bert.{key}" if model.base_model is model else key


def _is_new(key: str) -> bool:
    return key.startswith(_NEW_PREFIXES) or key.endswith(_NEW_SUFFIX)


def _check_tie(
    model: DNABERT2PreTrainedModel, weights: dict[str, torch.Tensor], source: str | Path
) -> None:
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
