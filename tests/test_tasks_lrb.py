"""The LRB table, and downloads from a local server that answers as the Hugging Face hub does."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub.constants
import pytest

from longscale.errors import LongscaleError
from longscale.tasks.lrb import LRB_REPOSITORY, LRB_TASKS, download_lrb
from longscale.variants.readers import read_variants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EQTL = "variant_effect_causal_eqtl/All_Tissues.csv"
CLINVAR = "variant_effect_pathogenic/vep_pathogenic_coding.csv"
FILES = {
    EQTL: b"CHROM,POS,REF,ALT,label,tissue,split,distance_to_nearest_TSS\n"
    b"chr9,10,A,C,1,Whole Blood,test,55\nchr1,11,G,T,0,Liver,train,7\n",
    CLINVAR: b"CHROM,POS,REF,ALT,INT_LABEL,split,more\nchr8,5,A,G,1,test,x\n",
}


class Hub(BaseHTTPRequestHandler):
    """The resolve endpoint of one dataset; `broken` answers 500, `cut` stops in the middle."""

    requests: list[str]

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        self.requests.append(f"{self.command} {self.path}")
        repo, _, rest = unquote(self.path).removeprefix("/datasets/").partition("/resolve/")
        revision, _, filename = rest.partition("/")
        if repo != LRB_REPOSITORY:
            self.refuse(404, "RepoNotFound")
        elif revision == "broken":
            self.refuse(500, "")
        elif revision not in ("main", "cut", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif filename not in FILES:
            self.refuse(404, "EntryNotFound")
        else:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{abs(hash(filename)):x}"')
            self.send_header("Content-Length", str(len(FILES[filename])))
            self.end_headers()
            if with_body:
                whole = FILES[filename]
                self.wfile.write(whole[: len(whole) // 2] if revision == "cut" else whole)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A running server; HF_ENDPOINT names it and the cache is empty."""
    handler = type("Handler", (Hub,), {"requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.requests = handler.requests
    server.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_file_arrives_as_it_is(hub, tmp_path, revision):
    target = tmp_path / "deep" / "clinvar.csv"
    assert download_lrb(CLINVAR, target, revision=revision) == target
    assert target.read_bytes() == FILES[CLINVAR]
    assert not target.is_symlink()
    assert sorted(path.name for path in target.parent.iterdir()) == ["clinvar.csv"]
    assert hub.requests[0] == f"HEAD /datasets/{LRB_REPOSITORY}/resolve/{revision}/{CLINVAR}"


def test_the_second_time_comes_from_the_cache(hub, tmp_path):
    download_lrb(EQTL, tmp_path / "a.csv", revision="main")
    hub.requests.clear()
    download_lrb(EQTL, tmp_path / "b.csv", revision="main")
    assert not [request for request in hub.requests if request.startswith("GET")]
    assert (tmp_path / "b.csv").read_bytes() == FILES[EQTL]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"filename": "none.csv"}, "none.csv at revision 'main': the dataset has no such file"),
        ({"revision": "v9"}, "at revision 'v9': the dataset has no such revision"),
        ({"repo": "someone/else"}, "someone/else: .*no such dataset, or it wants a token"),
        ({"revision": "broken"}, "the hub gives no answer .*500"),
        ({"revision": "cut"}, "at revision 'cut': the download failed: "),
        ({"repo": "no//name"}, "no//name: .*the download failed: "),
    ],
)
def test_a_refusal_is_one_sentence(hub, tmp_path, monkeypatch, arguments, sentence):
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
    hub.requests.clear()
    told = run(EQTL, "1")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "t.csv").read_bytes() == FILES[EQTL]
    told = run(CLINVAR, "1")
    assert told.returncode == 1
    assert "the file is not in the Hugging Face cache" in told.stderr
    assert "Traceback" not in told.stderr
    assert hub.requests == []


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
