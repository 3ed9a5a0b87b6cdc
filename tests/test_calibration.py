"""How long work takes, and what finished jobs teach."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from job import job
from longscale.calibration import (
    THE_CPU,
    Calibration,
    Correction,
    Finished,
    estimate,
    learn,
    logged,
    read_calibration,
    write_calibration,
)
from longscale.errors import LongscaleError
from longscale.workload import Load, Work

ROOT = Path(__file__).resolve().parents[1]
SPEED = {"linear": 2.0, "attention": 0.5}
CALIBRATION = Calibration(
    tflops={"cpu": {"train": SPEED, "score": SPEED}, "gpu": {"train": SPEED, "score": SPEED}},
    full_size={"cpu": 1, "gpu": 100},
    start_s={"model": 10.0, "other": 1.0},
    jobs_s={"default": 5.0, "slow": 60.0},
    factor=3.0,
    machines={"cpu": "a core", "gpu": "a card"},
    bytes={},
)
LOAD = Load(Work(8e12, 1e12), "model", threads=2, trains=True)  # 4 s + 2 s on one thread


def seconds(device="cpu", load=LOAD, size=100, calibration=CALIBRATION, rule="finetune"):
    return estimate(calibration, rule, load, device, size).seconds


def test_seconds_are_start_and_work_over_speed():
    assert seconds("gpu") == 10 + 6
    assert seconds("cpu") == 10 + 6 / 2
    assert seconds("cpu", LOAD._replace(threads=1)) == 10 + 6
    assert seconds("gpu", LOAD._replace(processes=2)) == 10 + 6 / 2
    assert seconds("cpu", None, None) == 1 + 5
    assert seconds("cpu", None, None, rule="slow") == 1 + 60
    assert estimate(CALIBRATION, "finetune", LOAD, "gpu", 100).factor == 3


def test_twice_the_work_takes_twice_as_long():
    assert seconds(load=LOAD._replace(work=LOAD.work * 2)) - 10 == 2 * (seconds() - 10)


def test_a_small_model_does_not_fill_a_gpu():
    assert seconds("gpu", size=25) - 10 == 4 * (seconds("gpu") - 10)
    assert seconds("gpu", size=800) == seconds("gpu")
    assert seconds("cpu", size=25) == seconds("cpu")


def test_corrections_hold_for_their_rule_device_and_size():
    row = Correction("score_mlm", "cpu", 2.0, 1.5, 4, "here", 128)
    calibration = replace(CALIBRATION, corrections=(row,))
    found = estimate(calibration, "score_mlm_longest", LOAD, "cpu", 256)
    assert found == (10 + 2 * 3, 1.5, row)
    for rule, device, size in [("x", "cpu", 128), ("score_mlm", "gpu", 128)]:
        assert estimate(calibration, rule, LOAD, device, size).measured is None
    assert estimate(calibration, "score_mlm", LOAD, "cpu", 1024).measured is None
    assert estimate(calibration, "score_mlm", None, "cpu", None).measured is None


def test_finished_jobs_correct_the_next_estimate():
    jobs = [Finished("finetune", LOAD, 100, 3 * factor, THE_CPU) for factor in (1.5, 2, 8 / 3)]
    jobs.append(Finished("finetune", LOAD, 100, 3, "NVIDIA A100"))
    jobs.append(Finished("slow", None, None, 30, THE_CPU))
    learned = learn(CALIBRATION, jobs, "in results")
    assert seconds(calibration=learned) == pytest.approx(10 + 3 * 2)
    assert seconds("gpu", calibration=learned) == pytest.approx(10 + 3)
    assert seconds(load=None, size=None, rule="slow", calibration=learned) == 1 + 30
    measured = estimate(learned, "finetune", LOAD, "cpu", 100).measured
    assert (measured.jobs, measured.machine) == (3, "in results")
    assert 1.3 < measured.factor < 2
    again = learn(learned, jobs[:1], "elsewhere")
    assert seconds(calibration=again) == pytest.approx(10 + 3 * 1.5)
    assert len(again.corrections) == len(learned.corrections)


def test_the_last_line_of_a_log_says_what_a_job_took(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "job.log"
    with job(SimpleNamespace(log=path, rule="x")) as report:
        report("step 1/2")
    took, device = logged(path)
    assert 0 <= took < 5
    assert device == THE_CPU
    text = path.read_text()
    path.write_text("10:00:00 resumed at step 3 of 9\n" + text)
    assert logged(path) is None
    path.write_text("10:00:00 step 1/2\n")
    assert logged(path) is None
    assert logged(tmp_path / "none.log") is None


def test_a_failed_job_teaches_nothing(tmp_path):
    path = tmp_path / "job.log"
    with pytest.raises(SystemExit), job(SimpleNamespace(log=path, rule="x")):
        raise LongscaleError("broken")
    assert logged(path) is None


def test_a_calibration_survives(tmp_path):
    rows = (Correction("a", "cpu", 2.0, 1.5, 4, "here", 128), Correction("b", "gpu", 1, 2, 1, "x"))
    calibration = replace(CALIBRATION, corrections=rows)
    write_calibration(calibration, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == calibration


def test_that_of_the_repository_can_be_read():
    shipped = read_calibration(ROOT / "resources/calibration.json")
    assert {row.rule for row in shipped.corrections} >= {"train_mlm", "score_mlm"}
    assert "A100" in shipped.machines["gpu"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"corrections": [{"x": 1}]}'])
def test_a_file_that_is_no_calibration_is_one_sentence(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(LongscaleError, match=r"c\.json: not a calibration file"):
        read_calibration(tmp_path / "c.json")
    with pytest.raises(LongscaleError, match="no such calibration file"):
        read_calibration(tmp_path / "none.json")
