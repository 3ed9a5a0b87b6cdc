"""The parity check: against the original implementations' numbers, and against broken fixtures."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from longscale.errors import LongscaleError
from longscale.models.dnabert2 import (
    DNABERT2Config,
    DNABERT2ForMaskedLM,
    DNABERT2ForSequenceClassification,
)
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


def test_every_dnabert2_fixture_passes(shared):
    results = {result.file: result for result in check_folder(shared / "parity")}
    assert results.keys() == {path.name for path in (shared / "parity").glob("*.npz")}
    checked = {name for name, result in results.items() if result.error is not None}
    assert checked == {
        name
        for name in results
        if name.startswith("dnabert2_") and not name.startswith("dnabert2_weights")
    }
    assert len(checked) >= 3
    assert not [str(result) for result in results.values() if result.failed]


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
    write(tmp_path / "gau_iei_some.npz", {"logits": torch.zeros(1)})
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
    one, weights_a, weights_b, gau = results
    assert one.error < TOLERANCE
    assert not one.failed
    assert "weights" in weights_a.skipped
    assert "weights" in weights_b.skipped
    assert gau.skipped == "family gau has no model yet"


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
        ({"meta": np.array(json.dumps(META | {"normalization": "x"}))}, "normalization is 'x'"),
        ({"meta": np.array(json.dumps(META | {"norm_method": "Cos"}))}, "norm_method is 'Cos'"),
    ],
)
def test_a_fixture_that_cannot_be_checked_is_an_error(folder, changes, sentence):
    rewrite(folder / "dnabert2_one.npz", **changes)
    with pytest.raises(LongscaleError, match=sentence) as error:
        check_folder(folder)
    assert "dnabert2_one.npz" in str(error.value)


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
