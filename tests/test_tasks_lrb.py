"""The LRB table, and downloads from a local server that answers as the Hugging Face hub does."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import COMMIT, serve_hub

from longscale.errors import LongscaleError
from longscale.tasks.lrb import LRB_REPOSITORY, LRB_TASKS, download_lrb
from longscale.variants.readers import read_variants

EQTL = "variant_effect_causal_eqtl/All_Tissues.csv"
FAULTS = {"heads", "gets"}
CLINVAR = "variant_effect_pathogenic/vep_pathogenic_coding.csv"
FILES = {
    EQTL: b"CHROM,POS,REF,ALT,label,tissue,split,distance_to_nearest_TSS\n"
    b"chr9,10,A,C,1,Whole Blood,test,55\nchr1,11,G,T,0,Liver,train,7\n",
    CLINVAR: b"CHROM,POS,REF,ALT,INT_LABEL,split,more\nchr8,5,A,G,1,test,x\n",
}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """serve(**faults) -> what is asked for; HF_ENDPOINT names the server, the cache is empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with ExitStack() as stack:

        def start(**faults):
            requests = []
            files = {f"datasets/{LRB_REPOSITORY}": FILES}
            address = stack.enter_context(serve_hub(files, requests=requests, **faults))
            monkeypatch.setenv("HF_ENDPOINT", address)
            return requests

        yield start


@pytest.fixture
def hub(serve):
    """What a hub without faults is asked for."""
    return serve()


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_file_arrives_as_it_is(hub, tmp_path, revision):
    target = tmp_path / "deep" / "clinvar.csv"
    assert download_lrb(CLINVAR, target, revision=revision) == target
    assert target.read_bytes() == FILES[CLINVAR]
    assert not target.is_symlink()
    assert sorted(path.name for path in target.parent.iterdir()) == ["clinvar.csv"]
    assert hub[0][:2] == ("HEAD", f"/datasets/{LRB_REPOSITORY}/resolve/{revision}/{CLINVAR}")


def test_the_second_time_comes_from_the_cache(hub, tmp_path):
    download_lrb(EQTL, tmp_path / "a.csv", revision="main")
    hub.clear()
    download_lrb(EQTL, tmp_path / "b.csv", revision="main")
    assert "GET" not in {method for method, *_ in hub}
    assert (tmp_path / "b.csv").read_bytes() == FILES[EQTL]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"filename": "none.csv"}, "none.csv at revision 'main': the dataset has no such file"),
        ({"revision": "v9"}, "at revision 'v9': the dataset has no such revision"),
        ({"repo": "someone/else"}, "someone/else: .*no such dataset, or it wants a token"),
        ({"heads": [{"status": 500}]}, "the hub gives no answer .*500"),
        ({"gets": [{"cut": 20}]}, "at revision 'main': the download failed, 4 attempts: "),
        ({"repo": "no//name"}, "no//name: .*the download failed: "),
    ],
)
def test_a_refusal_is_one_sentence(serve, tmp_path, monkeypatch, arguments, sentence):
    serve(**{key: arguments[key] for key in FAULTS & arguments.keys()})
    arguments = {key: value for key, value in arguments.items() if key not in FAULTS}
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    target = tmp_path / "out" / "t.csv"
    with pytest.raises(LongscaleError, match=sentence) as told:
        download_lrb(**{"filename": EQTL, "target": target, "revision": "main", **arguments})
    assert "\n" not in str(told.value)
    assert not target.parent.exists()


def test_no_server_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        LongscaleError, match="not in the Hugging Face cache and the hub gives no answer"
    ):
        download_lrb(EQTL, tmp_path / "out" / "t.csv", revision="main")
    assert not (tmp_path / "out").exists()


def test_offline_uses_the_cache_and_nothing_else(hub, tmp_path):
    """In a process of its own, because the hub's library reads the environment once."""
    code = (
        "import sys; from longscale.tasks.lrb import download_lrb\n"
        "from longscale.errors import LongscaleError\n"
        "try: download_lrb(sys.argv[1], sys.argv[2], revision='main')\n"
        "except LongscaleError as error: sys.exit(str(error))"
    )

    def run(filename, offline):
        scripts = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
        return subprocess.run(
            [sys.executable, "-c", code, filename, tmp_path / "t.csv"],
            env={
                **os.environ,
                "PYTHONPATH": str(scripts),
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": offline,
            },
            capture_output=True,
            text=True,
        )

    told = run(EQTL, "0")
    assert told.returncode == 0, told.stderr
    (tmp_path / "t.csv").unlink()
    hub.clear()
    told = run(EQTL, "1")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "t.csv").read_bytes() == FILES[EQTL]
    told = run(CLINVAR, "1")
    assert told.returncode == 1
    assert "the file is not in the Hugging Face cache" in told.stderr
    assert "Traceback" not in told.stderr
    assert hub == []


def test_the_table_hangs_together():
    for name, task in LRB_TASKS.items():
        assert task.name == name
        assert task.genome == "hg38"
        assert {"contig", "pos", "ref", "alt", "label", "split"} <= set(task.columns)
        assert (task.test_chromosomes == "all") == (task.train_task is not None)
        if task.train_task:
            assert LRB_TASKS[task.train_task].train_task is None
    assert LRB_TASKS["variant_effect_causal_eqtl"].columns["tissue"] == "tissue"
    assert LRB_TASKS["variant_effect_pathogenic_clinvar"].test_chromosomes == ("chr8",)


def test_the_column_maps_read_the_files(tmp_path):
    for name in ("variant_effect_causal_eqtl", "variant_effect_pathogenic_clinvar"):
        task = LRB_TASKS[name]
        path = tmp_path / Path(task.filename).name
        path.write_bytes(FILES[task.filename])
        first = next(iter(read_variants(path, task.columns)))
        assert (first.contig, first.label, first.split) == (task.test_chromosomes[0], "1", "test")
        assert first.tissue == ("Whole Blood" if "tissue" in task.columns else "")
