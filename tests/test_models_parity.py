"""The parity check: against the original implementations' numbers, and against broken fixtures."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gau_oracle import gau_oracle

from longscale.errors import LongscaleError
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
)
from longscale.models.gau_alpha import GAUAlphaConfig
from longscale.models.parity import TOLERANCE, ParityResult, check_folder

SCRIPT = Path(__file__).resolve().parents[1] / "workflow" / "scripts" / "check_parity.py"
META = {
    "vocab_size": 16,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "pad_token_id": 0,
    "num_labels": 3,
    "normalization": "softmax",
    "norm_method": "noCosScale",
    "norm_scale": None,
    "n_train": 512,
}


FAMILIES = [("dnabert2", 3), ("gau", 7), ("hyenadna", 1), ("nucleotide_transformer_v2", 3)]


@pytest.fixture(scope="module")
def shared_results(shared):
    return {result.file: result for result in check_folder(shared / "parity")}


@pytest.mark.parametrize(("family", "least"), FAMILIES)
def test_every_fixture_of_a_family_passes(shared, shared_results, family, least):
    results, folder = shared_results, shared / "parity"
    files = [*folder.glob("*.npz"), *folder.glob("nucleotide_transformer_v2_*.json")]
    assert results.keys() == {path.name for path in files}
    own = {name: result for name, result in results.items() if name.startswith(f"{family}_")}
    checked = {name for name, result in own.items() if result.error is not None}
    assert checked == {name for name in own if not name.startswith(f"{family}_weights")}
    assert len(checked) >= least
    assert not [str(result) for result in own.values() if result.failed]


@pytest.fixture
def folder(tmp_path):
    """A small fixture made with this project's model, so it passes as it is."""
    torch.manual_seed(0)
    keys = META.keys() - {"normalization", "norm_method", "norm_scale", "n_train"}
    config = DNABERT2Config(**{key: META[key] for key in keys})
    classifier = DNABERT2ForSequenceClassification(config).eval()
    masked_lm = DNABERT2ForMaskedLM(config).eval()
    masked_lm.bert.load_state_dict(classifier.bert.state_dict(), strict=False)
    ids, mask = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([[1] * 4, [1, 1, 0, 0]])
    labels = torch.tensor([1, 2])
    output = classifier(ids, mask, labels=labels)
    output.loss.backward()
    mlm_labels = torch.tensor([[-100, 7, -100, -100], [-100, 3, -100, -100]])
    with torch.no_grad():
        arrays = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels,
            "mlm_labels": mlm_labels,
            "logits": output.logits.detach(),
            "mlm_logits_unlabelled": masked_lm(ids, mask).logits,
            "grad/classifier.bias": classifier.classifier.bias.grad,
        }
    write(tmp_path / "dnabert2_one.npz", arrays | {"meta": META})
    write(tmp_path / "dnabert2_weights_a.npz", classifier.state_dict())
    head = {k: v for k, v in masked_lm.state_dict().items() if k.startswith("cls.")}
    write(tmp_path / "dnabert2_weights_b.npz", head)
    write(tmp_path / "other_some.npz", {"logits": torch.zeros(1)})
    return tmp_path


def write(path, arrays):
    np.savez(
        path,
        **{
            key: np.array(json.dumps(value)) if key == "meta" else np.asarray(value)
            for key, value in arrays.items()
        },
    )


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


def test_one_result_for_each_file(folder):
    results = check_folder(folder)
    assert [result.file for result in results] == sorted(path.name for path in folder.iterdir())
    one, weights_a, weights_b, other = results
    assert one.error < TOLERANCE
    assert not one.failed
    assert "weights" in weights_a.skipped
    assert "weights" in weights_b.skipped
    assert other.skipped == "family other has no model yet"


@pytest.mark.parametrize("key", ["logits", "grad/classifier.bias", "mlm_logits_unlabelled"])
@pytest.mark.parametrize("error", [2e-3, np.nan])
def test_an_error_in_any_array_fails_and_is_named(folder, key, error):
    path = folder / "dnabert2_one.npz"
    with np.load(path) as archive:
        wrong = archive[key].copy()
    wrong.flat[0] += error
    rewrite(path, **{key: wrong})
    result = check_folder(folder)[0]
    assert result.failed
    assert result.where == key
    assert result.error == pytest.approx(error, rel=1e-2, nan_ok=True)


def test_padding_of_masked_lm_logits_is_not_compared(folder):
    path = folder / "dnabert2_one.npz"
    with np.load(path) as archive:
        logits = archive["mlm_logits_unlabelled"].copy()
    logits[1, 2:] = 5
    rewrite(path, mlm_logits_unlabelled=logits)
    assert not check_folder(folder)[0].failed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"surprise": np.zeros(2)}, "array surprise is not known"),
        ({"logits": np.zeros((2, 4))}, r"array logits is \(2, 4\), but the model's is \(2, 3\)"),
        ({"labels": None}, "missing: 'labels'"),
        ({"meta": np.array("{")}, "missing"),
        ({"meta": np.array("[]")}, "a value of meta does not fit"),
        ({"meta": np.array(json.dumps(META | {"normalization": []}))}, r"normalization is \[\]"),
        ({"meta": np.array(json.dumps(META | {"hidden_size": "wide"}))}, "does not fit"),
        ({"meta": np.array(json.dumps(META | {"normalization": "x"}))}, "normalization is 'x'"),
        ({"meta": np.array(json.dumps(META | {"norm_method": "Cos"}))}, "norm_method is 'Cos'"),
    ],
)
def test_a_fixture_that_cannot_be_checked_is_an_error(folder, changes, sentence):
    rewrite(folder / "dnabert2_one.npz", **changes)
    with pytest.raises(LongscaleError, match=sentence) as error:
        check_folder(folder)
    assert "dnabert2_one.npz" in str(error.value)


def test_a_fixture_without_outputs_is_an_error(folder):
    names = ("logits", "mlm_logits_unlabelled", "grad/classifier.bias")
    rewrite(folder / "dnabert2_one.npz", **dict.fromkeys(names))
    with pytest.raises(LongscaleError, match="there are inputs, but no array to compare"):
        check_folder(folder)


def test_missing_weights_are_an_error(folder):
    (folder / "dnabert2_weights_a.npz").unlink()
    with pytest.raises(LongscaleError, match="keys are missing: bert"):
        check_folder(folder)


def test_pickled_and_broken_files_are_refused(folder):
    path = folder / "dnabert2_one.npz"
    np.savez(path, meta=np.array([{}], dtype=object))
    with pytest.raises(LongscaleError, match=r"dnabert2_one\.npz: not a \.npz file of plain"):
        check_folder(folder)
    path.write_bytes(b"PK")
    with pytest.raises(LongscaleError, match=r"dnabert2_one\.npz: not a \.npz file of plain"):
        check_folder(folder)


def test_a_folder_with_nothing_to_check_is_an_error(folder, tmp_path):
    (folder / "dnabert2_one.npz").unlink()
    for nothing in (folder, tmp_path / "empty"):
        with pytest.raises(LongscaleError, match="there is no fixture to check"):
            check_folder(nothing)


def test_lines_for_a_reader():
    assert str(ParityResult("a.npz", 2.1e-6, "loss")) == "a.npz: ok, largest error 2.1e-06 in loss"
    assert "FAILED" in str(ParityResult("a.npz", 2.1e-4, "loss"))
    assert str(ParityResult("a.npz", skipped="why")) == "a.npz: skipped (why)"


def test_the_command_prints_a_line_for_each_file_and_tells_failure(folder, capsys, monkeypatch):
    main = runpy.run_path(str(SCRIPT))["main"]
    monkeypatch.setattr(sys, "argv", ["check_parity.py", str(folder)])
    assert main() == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    rewrite(folder / "dnabert2_one.npz", logits=np.zeros((2, 3)) + 9)
    assert main() == 1
    assert "dnabert2_one.npz: FAILED" in capsys.readouterr().out
    (folder / "dnabert2_one.npz").unlink()
    assert main() == 1
    assert "no fixture" in capsys.readouterr().err


# --- GAU-alpha --------------------------------------------------------------------------------

GAU_META = {
    "vocab_size": 16,
    "hidden_size": 10,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "attention_key_size": 8,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
    "hidden_act": "swish",
    "seq_len": 22,
    "train_len": 7,
    "normalization": "softmax",
    "norm_method": "noCosScale",
    "norm_scale": None,
    "algorithm": None,
    "rerope_window": 5,
}
GAU_LENGTHS = [22, 13]
ORACLE_SCHEMES = {
    "ALiBi": "alibi-released",
    "YaRN": "yarn-released",
    "StreamingLLM": "streamingllm-released",
    "PI": "pi-released",
    "ReRoPE": "rerope-released",
    "LM-Infinite": "rope",
    "Windowed-Attention": "rope",
    "PoSE": "rope",
    None: "rope",
}
ORIGINAL = [{"normalization": name} for name in ("softmax", "softmax_plus", "squared_relu")]
RELEASED = [
    {"normalization": normalization, "norm_method": method, "algorithm": algorithm}
    for normalization in ("softmax", "softmax_plus", "InfoScale")
    for method in ("noCosScale", "CosScale")
    for algorithm in ORACLE_SCHEMES
]


def gau_meta(variant):
    meta = GAU_META | variant | {"norm_scale": 16 if "CosScale" in variant.values() else None}
    if "algorithm" not in variant:  # the original's files know nothing of these
        meta = {
            key: value for key, value in meta.items() if key not in ("norm_method", "algorithm")
        }
    return meta


@pytest.fixture(scope="module")
def gau_weights():
    """Random weights under the original names."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "i_dense.weight": (32, 10),
        "o_dense.weight": (10, 12),
        "q_scaleoffset.weight": (8,),
        "k_scaleoffset.weight": (8,),
    }
    shapes = {
        "gau_alpha.embeddings.word_embeddings.weight": (16, 10),
        "gau_alpha.embeddings.token_type_embeddings.weight": (2, 10),
    } | {
        f"gau_alpha.encoder.layer.{layer}.gau.{key}": shape
        for layer in range(2)
        for key, shape in shapes.items()
    }
    weights = {
        key: 0.5 * torch.randn(shape, generator=generator) + (len(shape) == 1)
        for key, shape in shapes.items()
    }
    tied = weights["gau_alpha.embeddings.word_embeddings.weight"]
    return weights | {"cls.predictions.decoder.weight": tied}


def gau_arrays(weights, variant):
    """A fixture as the slow network computes it."""
    meta = gau_meta(variant)
    attention = f"cos{meta['norm_scale']}" if meta["norm_scale"] else "dot"
    rule = "infoscale" if meta["normalization"] == "InfoScale" else "none"
    normalization = "softmax" if rule == "infoscale" else meta["normalization"]
    config = GAUAlphaConfig(
        **{key: GAU_META[key] for key in list(GAU_META)[:8]},
        attention=attention,
        normalization=normalization,
        n_train=meta["train_len"],
    )
    mask = (torch.arange(22) < torch.tensor(GAU_LENGTHS)[:, None]).long()
    ids = torch.randint(1, 16, (2, 22), generator=torch.Generator().manual_seed(1)) * mask
    scheme = ORACLE_SCHEMES[meta.get("algorithm")]
    how = {"scheme": scheme, "rule": rule, "window": meta["rerope_window"]}
    out = gau_oracle(weights, config, ids, GAU_LENGTHS, **how)
    return {
        "meta": meta,
        "input_ids": ids,
        "attention_mask": mask,
        "last_hidden": out["hidden"][-1].float(),
        "layer1_hidden": out["hidden"][0].float(),
        "logits": out["logits"].float(),
        "attn0_row": out["attention"][0][:, ::7].float(),
    }


@pytest.fixture
def gau_folder(tmp_path, gau_weights):
    write(tmp_path / "gau_weights.npz", gau_weights)
    write(tmp_path / "gau_one.npz", gau_arrays(gau_weights, RELEASED[0]))
    return tmp_path


def test_every_variant_of_gau_alpha_equals_the_slow_network(tmp_path, gau_weights):
    write(tmp_path / "gau_weights.npz", gau_weights)
    distinct = []
    for number, variant in enumerate(ORIGINAL + RELEASED):
        arrays = gau_arrays(gau_weights, variant)
        write(tmp_path / f"gau_{number:02}.npz", arrays)
        distinct.append(arrays["logits"])
    *results, weights = check_folder(tmp_path)
    assert weights.skipped
    assert len(results) == len(ORIGINAL) + len(RELEASED)
    assert not [str(result) for result in results if result.failed]
    # softmax and softmax_plus stand twice; four of the nine algorithms are plain RoPE.
    different = {tuple(logits.flatten().tolist()) for logits in distinct}
    assert len(different) == 3 + 6 * 6 - 2


@pytest.mark.parametrize("key", ["last_hidden", "layer1_hidden", "logits", "attn0_row"])
def test_an_error_in_any_array_of_gau_alpha_fails_and_is_named(gau_folder, key):
    assert not check_folder(gau_folder)[0].failed
    path = gau_folder / "gau_one.npz"
    with np.load(path) as archive:
        wrong = archive[key].copy()
    wrong.flat[-1] += 2e-3
    rewrite(path, **{key: wrong})
    result = check_folder(gau_folder)[0]
    assert result.failed
    assert result.where == key


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"normalization": "sparsemax"}, "meta normalization is 'sparsemax'; .* squared_relu"),
        ({"norm_method": "Cos"}, "meta norm_method is 'Cos'; the known ones are noCosScale, CosS"),
        ({"norm_method": "CosScale"}, "attention: 'cos0' is not known"),
        ({"norm_method": "CosScale", "norm_scale": "x"}, "a value of meta does not fit"),
        ({"algorithm": "NTK"}, "meta algorithm is 'NTK'; the known ones are None, PoSE, ALiBi"),
        ({"algorithm": ["PI"]}, r"meta algorithm is \['PI'\]"),
        ({"num_hidden_layers": 1}, "the weights beside it: keys are unexpected: gau_alpha.encoder"),
        ({"train_len": None}, "n_train"),
    ],
)
def test_a_meta_of_gau_alpha_that_is_not_known_is_an_error(gau_folder, changes, sentence):
    meta = GAU_META | {"normalization": "InfoScale"} | changes
    rewrite(gau_folder / "gau_one.npz", meta=np.array(json.dumps(meta)))
    with pytest.raises(LongscaleError, match=sentence) as error:
        check_folder(gau_folder)
    assert "gau_one.npz" in str(error.value)


# --- HyenaDNA and Nucleotide Transformer v2 ---------------------------------------------------

OWN_WEIGHTS = ["hyenadna_tiny.npz", "nucleotide_transformer_v2_tiny.npz"]
TABLES = {
    "nucleotide_transformer_v2_50m_shapes.json": "lm_head.bias",
    "nucleotide_transformer_v2_tokenizer.json": "'ACGTACN'",
}


def arrays_of(path):
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def is_input(key):
    return key.split("/")[-1] in ("meta", "input_ids", "attention_mask", "grad_seed")


@pytest.mark.parametrize("name", OWN_WEIGHTS)
def test_every_output_is_compared(shared, tmp_path, name):
    """A difference in any array, other than inputs, weights and padding, fails and is named."""
    arrays = arrays_of(shared / "parity" / name)
    outputs = [key for key in arrays if not is_input(key) and not key.startswith("weight/")]
    assert {key.split("/")[-1] for key in outputs} >= {"hidden"}
    for key in outputs:
        wrong = arrays[key].copy()
        wrong.flat[0] += 2e-3 * max(1.0, np.abs(wrong).max())
        np.savez(tmp_path / name, **(arrays | {key: wrong}))
        (result,) = check_folder(tmp_path)
        assert result.failed
        assert result.where == key


# What is stored beside the weights without effect on any output.
UNREAD = ("inv_freq", "position_embeddings.weight", "regression.weight", "regression.bias")


@pytest.mark.parametrize("name", OWN_WEIGHTS)
def test_every_weight_is_read(shared, tmp_path, name):
    arrays = arrays_of(shared / "parity" / name)
    first = [key for key in arrays if key.startswith("weight/") and not re.search(r"rs?\.1\.", key)]
    assert 20 < len(first) < len(arrays)  # all but those of the second layer
    for key in first:
        wrong = arrays[key] + 0.02 * np.random.default_rng(0).normal(size=arrays[key].shape)
        changed = {key: wrong.astype(np.float32)}
        if key.endswith("1.freq"):  # one parameter under three names
            changed |= {key.replace("1.freq", f"{place}.freq"): changed[key] for place in (3, 5)}
        if key.endswith(("3.freq", "5.freq")):
            np.savez(tmp_path / name, **(arrays | changed))
            with pytest.raises(LongscaleError, match="differs from"):
                check_folder(tmp_path)
            continue
        np.savez(tmp_path / name, **(arrays | changed))
        (result,) = check_folder(tmp_path)
        assert result.failed != key.endswith(UNREAD), (key, str(result))


@pytest.mark.parametrize("name", OWN_WEIGHTS)
def test_whichever_inputs_a_file_holds_are_checked(shared, tmp_path, name):
    arrays = arrays_of(shared / "parity" / name)
    moved = {f"c{key[1:]}" if key.startswith("a/") else key: value for key, value in arrays.items()}
    np.savez(tmp_path / name, **(arrays | moved))
    assert not check_folder(tmp_path)[0].failed
    moved["c/input_ids"] = moved["c/input_ids"][::-1]
    np.savez(tmp_path / name, **(arrays | moved))
    (result,) = check_folder(tmp_path)
    assert result.failed
    assert result.where.startswith("c/")
    np.savez(tmp_path / name, **{k: v for k, v in arrays.items() if k != "a/input_ids"})
    with pytest.raises(LongscaleError, match="missing: 'a/input_ids'"):
        check_folder(tmp_path)


def test_padding_of_nucleotide_transformer_is_not_compared(shared, tmp_path):
    arrays = arrays_of(shared / "parity" / OWN_WEIGHTS[1])
    for key in ("a/eps1e-5/logits", "a/eps1e-12/hidden", "a/eps1e-12/layer1_hidden"):
        arrays[key][arrays["a/attention_mask"] == 0] = 7
    np.savez(tmp_path / OWN_WEIGHTS[1], **arrays)
    assert not check_folder(tmp_path)[0].failed


@pytest.mark.parametrize(("name", "entry"), TABLES.items())
def test_tables_are_compared_entry_by_entry(shared, tmp_path, name, entry):
    table = json.loads((shared / "parity" / name).read_text())
    if "shapes" in table:
        table["shapes"]["lm_head.bias"] = [4106]
    else:
        table["examples"]["ACGTACN"][-1] -= 1
    (tmp_path / name).write_text(json.dumps(table))
    (result,) = check_folder(tmp_path)
    assert result.failed
    assert result.where.startswith(entry)
    assert "FAILED" in str(result)
    (tmp_path / name).write_text("{}")
    with pytest.raises(LongscaleError, match=f"{name}: .* missing"):
        check_folder(tmp_path)


def test_a_key_that_the_table_lacks_or_the_model_lacks_is_named(shared, tmp_path):
    name = next(iter(TABLES))
    table = json.loads((shared / "parity" / name).read_text())
    for gone, new in (("lm_head.dense.bias", None), (None, "esm.more.weight")):
        shapes = {key: shape for key, shape in table["shapes"].items() if key != gone}
        shapes |= {new: [3]} if new else {}
        (tmp_path / name).write_text(json.dumps(table | {"shapes": shapes}))
        (result,) = check_folder(tmp_path)
        assert result.failed
        assert (gone or new) in result.where
