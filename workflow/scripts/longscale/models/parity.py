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

import numpy as np
import torch

from longscale.errors import LongscaleError
from longscale.models.checkpoint import assign_weights
from longscale.models.dnabert2 import (
    IGNORED_LABEL,
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
)

TOLERANCE = 1e-4

Arrays = dict[str, np.ndarray]


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
    try:
        computed = compute(path, fixture, weights)
    except (KeyError, json.JSONDecodeError) as error:
        raise LongscaleError(f"{path}: an input or a key of meta is missing: {error}.") from error
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


def _dnabert2_outputs(path: Path, fixture: Arrays, weights: Arrays) -> Arrays:
    """Everything that a DNABERT-2 fixture may hold, computed with this project's model."""
    config, rule = _dnabert2_config(path, json.loads(str(fixture["meta"])))
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    inputs = {
        key: torch.from_numpy(fixture[key]) for key in _DNABERT2_INPUTS - {"meta"} if key in fixture
    }
    classifier = DNABERT2ForSequenceClassification(config).eval()
    masked_lm = DNABERT2ForMaskedLM(config).eval()
    without_classifier = {
        key: value for key, value in tensors.items() if not key.startswith("classifier.")
    }
    assign_weights(classifier, tensors, path.parent)
    assign_weights(masked_lm, without_classifier, path.parent)
    classifier.set_rule(rule)
    masked_lm.set_rule(rule)
    computed = _gradients(classifier, inputs)
    with torch.no_grad():
        computed |= _base_outputs(classifier, inputs) | _classifier_outputs(classifier, inputs)
        computed |= _masked_lm_outputs(masked_lm, inputs)
    return {
        key: value.numpy() if torch.is_tensor(value) else value for key, value in computed.items()
    }


def _dnabert2_config(path: Path, meta: dict[str, object]) -> tuple[DNABERT2Config, str]:
    """Config and length rule of the released code's run that `meta` describes."""
    methods = {"noCosScale": "dot", "CosScale": f"cos{meta['norm_scale'] or 0:g}-released"}
    rules = {"softmax": "none", "InfoScale": "infoscale-released"}
    for key, known in (("norm_method", methods), ("normalization", rules)):
        if meta[key] not in known:
            raise LongscaleError(
                f"{path}: meta {key} is {meta[key]!r}; the known ones are {', '.join(known)}."
            )
    keys = set(DNABERT2Config.__dataclass_fields__) | {"num_labels"}
    config = {key: value for key, value in meta.items() if key in keys and key != "n_train"}
    return (
        DNABERT2Config(**config, attention=methods[meta["norm_method"]]),
        rules[meta["normalization"]],
    )


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


# Family (a file name up to its first underscore) -> input arrays, function that computes the rest.
_FAMILIES: dict[str, tuple[set[str], Callable[[Path, Arrays, Arrays], Arrays]]] = {
    "dnabert2": (_DNABERT2_INPUTS, _dnabert2_outputs),
}
