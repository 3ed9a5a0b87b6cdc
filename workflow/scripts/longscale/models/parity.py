"""Hold the models against numbers computed with the original implementations.

A fixture is a .npz file without pickle whose name begins with its family; `meta` is its
configuration as JSON. Files that belong to a family are found by name pattern alone, so that
further fixtures are checked by dropping them into the folder. Beside them, .json files hold key
tables and tokens of Nucleotide Transformer v2.
"""

import json
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from longscale.errors import LongscaleError
from longscale.models import nucleotide_transformer as nt
from longscale.models.checkpoint import FAMILIES, assign_weights
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
)
from longscale.models.gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from longscale.models.hyenadna import HyenaDNAConfig, HyenaDNAForCausalLM
from longscale.models.masked_lm import IGNORED_LABEL

TOLERANCE = 1e-4
_WEIGHT = "weight/"  # of a fixture that brings its own
_BESIDE = "the weights beside it"

Arrays = dict[str, np.ndarray]
Known, Value = TypeVar("Known"), TypeVar("Value")


@dataclass(frozen=True)
class ParityResult:
    """One file: its largest error, what that is the error of, and what is allowed; or why it has
    none.
    """

    file: str
    error: float | None = None
    where: str = ""
    skipped: str = ""
    tolerance: float = TOLERANCE

    @property
    def failed(self) -> bool:
        """Whether the error is above `tolerance` (or not a number)."""
        return self.error is not None and not self.error <= self.tolerance

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.file}: skipped ({self.skipped})"
        verdict = "FAILED" if self.failed else "ok"
        if self.tolerance == 0:
            return f"{self.file}: {verdict}, {self.error:g} differences in {self.where}"
        return f"{self.file}: {verdict}, largest error {self.error:.1e} in {self.where}"


def check_folder(folder: str | Path) -> list[ParityResult]:
    """Check every fixture in `folder`, one result per .npz and known .json file, by name.

    Of each file the error that is largest beside what is allowed is reported. Raises
    `LongscaleError` if the folder has no fixture of a family with a model, or one of them cannot
    be read.
    """
    folder = Path(folder)
    results = [_check_file(path) for path in sorted(folder.glob("*.npz"))]
    for ending, check in _TABLES.items():
        results += [_check_table(path, check) for path in sorted(folder.glob(f"{_NT}_*{ending}"))]
    if all(result.error is None for result in results):  # an empty folder, too
        raise LongscaleError(
            f"{folder}: there is no fixture to check; one is a file like "
            f"{next(iter(_FAMILIES))}_<name>.npz."
        )
    return sorted(results, key=lambda result: result.file)


def _check_file(path: Path) -> ParityResult:
    name = next((name for name in _FAMILIES if f"{path.stem}_".startswith(f"{name}_")), None)
    if name is None:
        own = path.stem.split("_")[0]
        return ParityResult(path.name, skipped=f"family {own} has no model yet")
    if path.name.startswith(f"{name}_weights"):
        return ParityResult(path.name, skipped="weights of the fixtures of its family")
    fixture, family = _read_arrays(path), _FAMILIES[name]
    weights = {key: fixture.pop(key) for key in list(fixture) if key.startswith(_WEIGHT)}
    weights = {key.removeprefix(_WEIGHT): value for key, value in weights.items()}
    for other in sorted(path.parent.glob(f"{name}_weights*.npz")):
        weights |= _read_arrays(other)
    expected = {key: v for key, v in fixture.items() if key.split("/")[-1] not in family.inputs}
    if not expected:
        raise LongscaleError(f"{path}: there are inputs, but no array to compare.")
    computed = _computed(path, lambda: family.compute(fixture, weights))
    results = [
        ParityResult(path.name, error, key, tolerance=tolerance)
        for key, value in expected.items()
        for error, tolerance in [_error(path, key, computed, value, family)]
    ]
    return max(results, key=lambda r: np.nan_to_num(r.error / r.tolerance, nan=np.inf))


def _computed(path: Path, compute: Callable[[], Value]) -> Value:
    """What `compute` returns; what it raises about the file names it, in one sentence."""
    try:
        return compute()
    except LongscaleError as error:
        raise LongscaleError(f"{path}: {error}") from error
    except (KeyError, json.JSONDecodeError) as error:
        raise LongscaleError(f"{path}: an input or a key of meta is missing: {error}.") from error
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LongscaleError(f"{path}: a value of meta does not fit: {reason}.") from error


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise LongscaleError(f"{path}: not a .npz file of plain arrays ({error}).") from error


def _error(
    path: Path, key: str, computed: Arrays, expected: np.ndarray, family: "_Family"
) -> tuple[float, float]:
    """Largest absolute difference and what is allowed; masked entries of `computed` do not count.

    A gradient's, where the family says so, is relative to its largest entry.
    """
    if key not in computed:
        raise LongscaleError(f"{path}: array {key} is not known; it would stay unchecked.")
    if computed[key].shape != expected.shape:
        raise LongscaleError(
            f"{path}: array {key} is {expected.shape}, but the model's is {computed[key].shape}."
        )
    error = float(np.abs(computed[key] - expected).max())
    if family.gradients is None or "/grad/" not in key:
        return error, family.tolerance
    return error / float(np.abs(expected).max()), family.gradients


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


# --- families with their weights in the fixture, and any number of inputs, a/, b/, ... ----------


def _inputs(fixture: Arrays) -> list[str]:
    """The prefixes `a/`, `b/`, ... under which a fixture has input_ids."""
    found = [key.removesuffix("input_ids") for key in fixture if key.endswith("/input_ids")]
    if not found:
        raise KeyError("a/input_ids")
    return found


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def _seeded_gradients(
    model: torch.nn.Module, hidden: torch.Tensor, seed: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Gradients of sum(hidden * seed) of all parameters that `hidden` depends on."""
    model.zero_grad()
    (hidden * seed).sum().backward()
    return {
        f"grad/{name}": parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


# --- HyenaDNA ---------------------------------------------------------------------------------


def _hyenadna_outputs(fixture: Arrays, weights: Arrays) -> Arrays:
    """Everything that a HyenaDNA fixture may hold, computed with this project's model."""
    family = next(family for family in FAMILIES if family.name == "HyenaDNA")
    meta = family.config(json.loads(str(fixture["meta"]))["config"])
    keys = HyenaDNAConfig.__dataclass_fields__
    model = HyenaDNAForCausalLM(
        HyenaDNAConfig(**{key: value for key, value in meta.items() if key in keys})
    ).eval()
    tensors = _tensors(weights)
    assign_weights(model, tensors, _BESIDE)
    head = [tensors[f"head.output_transform.{part}"] for part in ("weight", "bias")]
    computed: Arrays = {}
    for prefix in _inputs(fixture):
        seed = torch.from_numpy(fixture[f"{prefix}grad_seed"])
        outputs = _hyenadna_of(model, torch.from_numpy(fixture[f"{prefix}input_ids"]), seed, head)
        # The original file has the backbone by itself.
        named = {key.replace("grad/hyena.", "grad/"): value for key, value in outputs.items()}
        computed |= {f"{prefix}{key}": value.detach().numpy() for key, value in named.items()}
    return computed


def _hyenadna_of(
    model: HyenaDNAForCausalLM, ids: torch.Tensor, seed: torch.Tensor, head: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    layer, pair = model.hyena.backbone.layers[0], {}
    hooks = [  # the original block returns its two summands
        layer.norm2.register_forward_hook(
            lambda _module, inputs, _output: pair.update(layer0_residual=inputs[0])
        ),
        layer.mlp.register_forward_hook(
            lambda _module, _inputs, output: pair.update(layer0_hidden=output)
        ),
    ]
    hidden = model.hyena(ids).last_hidden_state
    for hook in hooks:
        hook.remove()
    return pair | {
        "hidden": hidden,
        "lm_logits": model(ids).logits,
        "class_logits": F.linear(hidden.mean(dim=1), *head),
        "layer0_filter": layer.mixer.filter_fn.filter(ids.shape[1]),
        **_seeded_gradients(model, hidden, seed),
    }


# --- Nucleotide Transformer v2 ----------------------------------------------------------------

_NT = "nucleotide_transformer_v2"


def _nt_config(stored: dict[str, object], **changes: object) -> nt.NucleotideTransformerConfig:
    keys = nt.NucleotideTransformerConfig.__dataclass_fields__
    known = {key: value for key, value in stored.items() if key in keys}
    return nt.NucleotideTransformerConfig(**(known | changes))


def _nt_outputs(fixture: Arrays, weights: Arrays) -> Arrays:
    """Everything that a fixture may hold, once for each epsilon of the norms that it names."""
    stored = json.loads(str(fixture["meta"]))["config"]
    references = {key.split("/")[1] for key in fixture if "/eps" in key}
    computed: Arrays = {}
    for reference in references:
        config = _nt_config(stored, layer_norm_eps=float(reference.removeprefix("eps")))
        model = nt.NucleotideTransformerForMaskedLM(config).eval()
        assign_weights(model, _tensors(weights), _BESIDE)
        for prefix in _inputs(fixture):
            names = ("input_ids", "attention_mask", "grad_seed")
            outputs = _nt_of(model, *(torch.from_numpy(fixture[prefix + name]) for name in names))
            computed |= {f"{prefix}{reference}/{key}": value for key, value in outputs.items()}
    return computed


def _nt_of(
    model: nt.NucleotideTransformerForMaskedLM,
    ids: torch.Tensor,
    mask: torch.Tensor,
    seed: torch.Tensor,
) -> Arrays:
    layer1: list[torch.Tensor] = []
    hook = model.esm.encoder.layer[0].register_forward_hook(
        lambda _module, _args, output: layer1.append(output)
    )
    packed, packing = model.esm.encode(ids, mask)
    hook.remove()
    hidden = packing.unpack(packed)
    outputs = {
        "layer1_hidden": packing.unpack(layer1[0]),
        "hidden": hidden,
        "logits": model(ids, mask).logits,
    }
    # The references differ from each other at padding; nobody reads it.
    padding = (mask == 0).numpy()[..., None]
    computed = {
        key: np.ma.masked_array(value.detach().numpy(), np.broadcast_to(padding, value.shape))
        for key, value in outputs.items()
    }
    mean = hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    gradients = _seeded_gradients(model, hidden, seed)
    return computed | {
        key: value.detach().numpy() for key, value in ({"mean_pooled": mean} | gradients).items()
    }


def _check_table(path: Path, check: Callable[[dict], list[str]]) -> ParityResult:
    """A result whose error is the number of entries that differ."""

    def differing() -> list[str]:
        return check(json.loads(path.read_text()))

    wrong = _computed(path, differing)
    where = f"{', '.join(wrong[:3])}, ..." if wrong else "all entries"
    return ParityResult(path.name, error=float(len(wrong)), where=where, tolerance=0.0)


def _nt_keys(table: dict) -> list[str]:
    """Keys of a checkpoint whose shape is not the model's, or that the model does not know."""
    family = next(family for family in FAMILIES if family.prefix == "esm.")
    with torch.device("meta"):
        model = nt.NucleotideTransformerForMaskedLM(_nt_config(table["config"]))
    expected = {key: list(value.shape) for key, value in model.state_dict().items()}
    unused = rf"{family.buffers}|esm\.(contact_head|embeddings\.position_embeddings)\..*"
    stored = {key: v for key, v in table["shapes"].items() if not re.fullmatch(unused, key)}
    differing = {key for key in expected | stored if expected.get(key) != stored.get(key)}
    sizes = {
        key: math.prod(shape)
        for key, shape in table["shapes"].items()
        if not re.fullmatch(family.buffers, key)
    }
    totals = {
        "parameters": sum(sizes.values()),
        "encoder_parameters": sum(size for key, size in sizes.items() if key.startswith("esm.")),
    }
    return sorted(differing) + [name for name, total in totals.items() if table[name] != total]


def _nt_tokens(table: dict) -> list[str]:
    """Sequences and vocabulary entries whose ids differ."""
    special = {"<unk>": nt.UNK, "<pad>": nt.PAD, "<mask>": nt.MASK, "<cls>": nt.CLS}
    wrong = [token for token, number in special.items() if table["special"][token] != number]
    sequences = dict(table["examples"])
    sequences |= {text: ids["EsmTokenizer"] for text, ids in table["outside_vocabulary"].items()}
    entries = table["first_kmer"] | table["last_kmer"] | table["single"]
    sequences |= {text: [nt.CLS, number] for text, number in entries.items()}
    for text, ids in sequences.items():
        window = np.frombuffer(text.encode(), np.uint8)[None]
        if nt.encode_kmers(window).window(0).tolist() != ids:
            wrong.append(repr(text))
    return wrong


_TABLES: dict[str, Callable[[dict], list[str]]] = {
    "_shapes.json": _nt_keys,
    "tokenizer.json": _nt_tokens,
}


@dataclass(frozen=True)
class _Family:
    """Input arrays of a fixture (the last part of their keys), the function that computes the rest,
    and what is allowed: absolute, and for gradients relative to their largest entry (None: as
    the rest).
    """

    inputs: set[str]
    compute: Callable[[Arrays, Arrays], Arrays]
    tolerance: float = TOLERANCE
    gradients: float | None = None


# By how file names begin. The tolerances are those that came with the fixtures.
_FAMILIES = {
    "dnabert2": _Family(_DNABERT2_INPUTS, _dnabert2_outputs),
    "gau": _Family(_GAU_INPUTS, _gau_outputs),
    "hyenadna": _Family({"meta", "input_ids", "grad_seed"}, _hyenadna_outputs, 5e-5, 1e-5),
    _NT: _Family({"meta", "input_ids", "attention_mask", "grad_seed"}, _nt_outputs, 2e-5),
}
