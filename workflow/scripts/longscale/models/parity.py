"""Hold the models against numbers computed with the original implementations.

A fixture is a .npz file without pickle whose name begins with its family; `meta` is its
configuration as JSON. Files that belong to a family are found by name pattern alone, so that
further fixtures are checked by dropping them into the folder.
"""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from longscale.errors import LongscaleError
from longscale.models.checkpoint import assign_weights
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
)
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.models.masked_lm import IGNORED_LABEL

TOLERANCE = 1e-4
_BESIDE = "the weights beside it"

Arrays = dict[str, np.ndarray]
Known, Value = TypeVar("Known"), TypeVar("Value")


@dataclass(frozen=True)
class ParityResult:
    """One file: its largest absolute error and the array it occurs in, or why it has none."""

    file: str
    error: float | None = None
    where: str = ""
    skipped: str = ""

    @property
    def failed(self) -> bool:
        """Whether the error is above `TOLERANCE` (or not a number)."""
        return self.error is not None and not self.error <= TOLERANCE

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.file}: skipped ({self.skipped})"
        verdict = "FAILED" if self.failed else "ok"
        return f"{self.file}: {verdict}, largest error {self.error:.1e} in {self.where}"


def check_folder(folder: str | Path) -> list[ParityResult]:
    """Check every fixture in `folder`, one result per .npz file, by name.

    Raises `LongscaleError` if the folder has no fixture of a family with a model, or one of them
    cannot be read.
    """
    folder = Path(folder)
    results = [_check_file(path) for path in sorted(folder.glob("*.npz"))]
    if all(result.error is None for result in results):  # an empty folder, too
        raise LongscaleError(
            f"{folder}: there is no fixture to check; one is a file like "
            f"{next(iter(_FAMILIES))}_<name>.npz."
        )
    return results


def _check_file(path: Path) -> ParityResult:
    family = path.name.split("_")[0].removesuffix(".npz")
    if path.name.startswith(f"{family}_weights"):
        return ParityResult(path.name, skipped="weights of the fixtures of its family")
    if family not in _FAMILIES:
        return ParityResult(path.name, skipped=f"family {family} has no model yet")
    fixture = _read_arrays(path)
    weights: Arrays = {}
    for other in sorted(path.parent.glob(f"{family}_weights*.npz")):
        weights |= _read_arrays(other)
    inputs, compute = _FAMILIES[family]
    expected = {key: value for key, value in fixture.items() if key not in inputs}
    if not expected:
        raise LongscaleError(f"{path}: there are inputs, but no array to compare.")
    try:
        computed = compute(fixture, weights)
    except LongscaleError as error:
        raise LongscaleError(f"{path}: {error}") from error
    except (KeyError, json.JSONDecodeError) as error:
        raise LongscaleError(f"{path}: an input or a key of meta is missing: {error}.") from error
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: a value of meta does not fit: {reason}.") from error
    errors = {key: _error(path, key, computed, value) for key, value in expected.items()}
    where = max(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
    return ParityResult(path.name, error=errors[where], where=where)


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise LongscaleError(f"{path}: not a .npz file of plain arrays ({error}).") from error


def _error(path: Path, key: str, computed: Arrays, expected: np.ndarray) -> float:
    """Largest absolute difference; masked entries of `computed` are not compared."""
    if key not in computed:
        raise LongscaleError(f"{path}: array {key} is not known; it would stay unchecked.")
    if computed[key].shape != expected.shape:
        raise LongscaleError(
            f"{path}: array {key} is {expected.shape}, but the model's is {computed[key].shape}."
        )
    return float(np.abs(computed[key] - expected).max())


def _known(key: str, value: object, known: dict[Known, Value]) -> Value:
    """What a value of `meta` stands for; `LongscaleError` naming the known ones if nothing."""
    if value not in list(known):  # which may not even be hashable
        raise LongscaleError(
            f"meta {key} is {value!r}; the known ones are {', '.join(map(str, known))}."
        )
    return known[value]


# --- DNABERT-2 --------------------------------------------------------------------------------

_DNABERT2_INPUTS = {
    "meta",
    "input_ids",
    "attention_mask",
    "labels",
    "mlm_labels",
    "long_input_ids",
    "long_attention_mask",
}


def _dnabert2_outputs(fixture: Arrays, weights: Arrays) -> Arrays:
    """Everything that a DNABERT-2 fixture may hold, computed with this project's model."""
    config, rule = _dnabert2_config(json.loads(str(fixture["meta"])))
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    inputs = {
        key: torch.from_numpy(fixture[key]) for key in _DNABERT2_INPUTS - {"meta"} if key in fixture
    }
    classifier = DNABERT2ForSequenceClassification(config).eval()
    masked_lm = DNABERT2ForMaskedLM(config).eval()
    without_classifier = {
        key: value for key, value in tensors.items() if not key.startswith("classifier.")
    }
    assign_weights(classifier, tensors, _BESIDE)
    assign_weights(masked_lm, without_classifier, _BESIDE)
    classifier.set_rule(rule)
    masked_lm.set_rule(rule)
    computed = _gradients(classifier, inputs)
    with torch.no_grad():
        computed |= _base_outputs(classifier, inputs) | _classifier_outputs(classifier, inputs)
        computed |= _masked_lm_outputs(masked_lm, inputs)
    return {
        key: value.numpy() if torch.is_tensor(value) else value for key, value in computed.items()
    }


def _dnabert2_config(meta: dict[str, object]) -> tuple[DNABERT2Config, str]:
    """Config and length rule of the released code's run that `meta` describes."""
    methods = {"noCosScale": "dot", "CosScale": f"cos{meta['norm_scale'] or 0:g}-released"}
    rules = {"softmax": "none", "InfoScale": "infoscale-released"}
    attention = _known("norm_method", meta["norm_method"], methods)
    rule = _known("normalization", meta["normalization"], rules)
    keys = set(DNABERT2Config.__dataclass_fields__) | {"num_labels"}
    config = {key: value for key, value in meta.items() if key in keys and key != "n_train"}
    return DNABERT2Config(**config, attention=attention), rule


def _gradients(
    model: DNABERT2ForSequenceClassification, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Gradients of the classification loss, evaluation mode."""
    model.zero_grad()
    model(inputs["input_ids"], inputs["attention_mask"], labels=inputs["labels"]).loss.backward()
    return {f"grad/{name}": parameter.grad for name, parameter in model.named_parameters()}


def _base_outputs(
    model: DNABERT2ForSequenceClassification, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Hidden states; the reference, too, has zeros at padding."""
    mask = inputs["attention_mask"].bool()
    layer0: list[torch.Tensor] = []
    hook = model.bert.encoder.layer[0].register_forward_hook(
        lambda _module, _args, output: layer0.append(output)
    )
    short = model.bert(inputs["input_ids"], inputs["attention_mask"])
    hook.remove()
    _, packing = model.bert.encode(inputs["input_ids"], inputs["attention_mask"])
    computed = {
        "last_hidden": short.last_hidden_state,
        "pooled": short.pooler_output,
        "layer0_unpadded": packing.unpack(layer0[0])[mask],
    }
    if "long_input_ids" in inputs:
        long = model.bert(inputs["long_input_ids"], inputs["long_attention_mask"])
        computed["long_last_hidden_every50"] = long.last_hidden_state[:, ::50]
        computed["long_pooled"] = long.pooler_output
    return computed


def _classifier_outputs(
    model: DNABERT2ForSequenceClassification, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    output = model(ids, mask, labels=inputs["labels"])
    computed = {
        "logits": output.logits,
        "loss": output.loss,
        "single_logits_nomask": model(ids[:1]).logits,
        "tt1_logits": model(ids, mask, token_type_ids=torch.ones_like(ids)).logits,
    }
    if "long_input_ids" in inputs:
        long = model(inputs["long_input_ids"], inputs["long_attention_mask"])
        computed["long_logits"] = long.logits
    return computed


def _masked_lm_outputs(
    model: DNABERT2ForMaskedLM, inputs: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor | np.ndarray]:
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["mlm_labels"]
    logits = model(ids, mask).logits
    # The reference's logits at padding are those of a zero vector; nobody reads them.
    padding = np.broadcast_to((mask == 0).numpy()[..., None], logits.shape)
    output = model(ids, mask, labels=labels)
    labelled = torch.zeros_like(logits)
    labelled[labels != IGNORED_LABEL] = output.logits
    return {
        "mlm_logits_unlabelled": np.ma.masked_array(logits.numpy(), padding),
        "mlm_loss": output.loss,
        "mlm_logits_labelled": labelled,
    }


# --- GAU-alpha --------------------------------------------------------------------------------

_GAU_INPUTS = {"meta", "input_ids", "attention_mask"}

# The released code's evaluation (`normalization` of meta) -> the checkpoint's own, the length rule.
_GAU_NORMALIZATIONS = {
    "softmax": ("softmax", "none"),
    "softmax_plus": ("softmax_plus", "none"),
    "squared_relu": ("squared_relu", "none"),
    "InfoScale": ("softmax", "infoscale"),
}

# The released code's `algorithm` -> position scheme. PoSE is known to it, but changes nothing.
_GAU_SCHEMES = {
    None: "rope",
    "PoSE": "rope",
    "ALiBi": "alibi-released",
    "YaRN": "yarn-released",
    "StreamingLLM": "streamingllm-released",
    "PI": "pi-released",
    "ReRoPE": "rerope-released",
    "LM-Infinite": "lm-infinite-released",
    "Windowed-Attention": "windowed-released",
}

_GAU_ROW_STEP = 7  # a fixture holds the attention weights of every seventh query


def _gau_outputs(fixture: Arrays, weights: Arrays) -> Arrays:
    """Everything that a GAU-alpha fixture may hold, computed with this project's model."""
    model = _gau_model(json.loads(str(fixture["meta"])))
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    assign_weights(model, tensors, _BESIDE)
    ids, mask = (torch.from_numpy(fixture[key]) for key in ("input_ids", "attention_mask"))
    layer1: list[torch.Tensor] = []
    hook = model.gau_alpha.encoder.layer[0].register_forward_hook(
        lambda _module, _args, output: layer1.append(output)
    )
    rows = torch.arange(0, ids.shape[1], _GAU_ROW_STEP)
    with torch.no_grad():
        computed = {
            "last_hidden": model.gau_alpha(ids, mask).last_hidden_state,
            "logits": model(ids, mask).logits,
            "attn0_row": model.gau_alpha.attention_weights(ids, 0, mask, rows),
        }
    hook.remove()
    computed["layer1_hidden"] = layer1[0]
    return {key: value.numpy() for key, value in computed.items()}


def _gau_model(meta: dict[str, object]) -> GAUAlphaForMaskedLM:
    """Model, length rule and position scheme of the run that `meta` describes, without weights."""
    normalization, rule = _known("normalization", meta["normalization"], _GAU_NORMALIZATIONS)
    methods = {"noCosScale": "dot", "CosScale": f"cos{meta.get('norm_scale') or 0:g}"}
    attention = _known("norm_method", meta.get("norm_method", "noCosScale"), methods)
    scheme = _known("algorithm", meta.get("algorithm"), _GAU_SCHEMES)
    keys = GAUAlphaConfig.__dataclass_fields__.keys() - {"scheme", "n_train"}
    stored = {key: value for key, value in meta.items() if key in keys}
    ours = {"attention": attention, "normalization": normalization, "n_train": meta["train_len"]}
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(**(stored | ours))).eval()
    model.set_rule(rule)
    options = {"window": meta["rerope_window"]} if scheme == "rerope-released" else {}
    model.set_scheme(scheme, **options)
    return model


# Family (a file name up to its first underscore) -> input arrays, function that computes the rest.
_FAMILIES: dict[str, tuple[set[str], Callable[[Arrays, Arrays], Arrays]]] = {
    "dnabert2": (_DNABERT2_INPUTS, _dnabert2_outputs),
    "gau": (_GAU_INPUTS, _gau_outputs),
}
