import gzip
import hashlib
import random
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from faulty_http import answer

from longscale.errors import LongscaleError
from longscale.genome import download
from longscale.genome.download import fetch, published_md5

# Without a time: the names of tests, which must be alike in all processes of pytest, hold contents.
BODY = gzip.compress(random.Random(0).randbytes(600_000), mtime=0)
OTHER = gzip.compress(random.Random(1).randbytes(600_000), mtime=0)
MD5 = hashlib.md5(BODY).hexdigest()
SHA256 = hashlib.sha256(BODY).hexdigest()
DATE = "Mon, 02 Jan 2023 03:04:05 GMT"
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


class Server:
    """Answers each request by the next step of `script` (the last one again and again).

    A step is a dict of what `faulty_http.answer` knows.
    """

    def __init__(self, *script):
        self.script, self.requests = list(script), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(dict(self.headers))
                step = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                answer(self, **{"body": BODY, **step})

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data/x.fa.gz"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(*script):
        servers.append(Server(*script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def failure(server_or_url, target, **options):
    """The sentence with which a fetch fails; nothing may stand at the target."""
    url = getattr(server_or_url, "url", server_or_url)
    with pytest.raises(LongscaleError) as caught:
        fetch(url, target, report=lambda line: None, **options)
    sentence = str(caught.value)
    assert sentence.startswith(f"{url}: ")
    assert "\n" not in sentence
    assert not target.exists()
    return sentence


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("length", [True, False])
def test_whole_file(serve, tmp_path, length):
    server = serve({"length": length})
    target = tmp_path / "new" / "x.fa.gz"
    lines = []
    assert fetch(server.url, target, md5=MD5, sha256=SHA256, report=lines.append) == target
    assert target.read_bytes() == BODY
    assert names(target.parent) == ["x.fa.gz"]
    assert len(server.requests) == 1
    assert server.requests[0]["Accept-Encoding"] == "identity"
    assert len(lines) == 1
    assert "0.6 MB" in lines[0]


@pytest.mark.parametrize(
    "validator", [{}, {"etag": None, "modified": "Mon, 02 Jan 2023 03:04:05 GMT"}]
)
def test_a_cut_transfer_is_resumed(serve, tmp_path, validator):
    server = serve({"cut": 400_000, **validator}, {"cut": 100_000, **validator}, validator)
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, "bytes=400000-", "bytes=500000-"]
    assert server.requests[1]["If-Range"] == validator.get("modified", '"v1"')
    assert names(tmp_path) == ["x.fa.gz"]


def test_more_cuts_than_retries_while_there_is_progress(serve, tmp_path):
    server = serve({"cut": 50_000})
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, retries=1, report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    assert len(server.requests) == -(-len(BODY) // 50_000)


def test_a_server_that_gives_less_than_was_asked_for(serve, tmp_path):
    server = serve({"cut": 400_000}, {"most": 50_000}, {"most": 60_000}, {})
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, "bytes=400000-", "bytes=450000-", "bytes=510000-"]


def test_a_stalled_transfer_is_resumed(serve, tmp_path):
    server = serve({"cut": 400_000, "stall": 1}, {})
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, timeout_s=0.2, report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    assert "Range" in server.requests[1]


def test_a_transfer_that_always_stalls_is_one_sentence(serve, tmp_path):
    server = serve({"cut": 400_000, "stall": 0.5, "ranges": False})
    sentence = failure(server, tmp_path / "x.fa.gz", timeout_s=0.1, retries=1)
    assert "the server sent nothing for 0.1 s" in sentence
    assert len(server.requests) == 2


def test_a_file_that_was_replaced_between_two_calls_comes_whole(serve, tmp_path):
    server = serve({"cut": 400_000, "body": OTHER})
    failure(server, tmp_path / "x.fa.gz", retries=0)
    server.script = [{"etag": '"v2"'}]
    fetch(server.url, tmp_path / "x.fa.gz", report=print)  # no checksum says so
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY


@pytest.mark.parametrize("note", ["", "{", "[]", "7", '{"url": 1}', '{"validator": "v"}', "null"])
def test_a_part_whose_note_is_damaged_is_not_trusted(serve, tmp_path, note):
    server = serve({"cut": 400_000})
    failure(server, tmp_path / "x.fa.gz", retries=0)
    (tmp_path / "x.fa.gz.part.json").write_text(note)
    server.script = [{}]
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    assert "Range" not in server.requests[-1]
    assert names(tmp_path) == ["x.fa.gz"]


@pytest.mark.parametrize("status", [200, 206])
def test_a_page_in_place_of_the_rest_of_a_file_is_not_added_to_it(serve, tmp_path, status):
    """A proxy that wants a login, between two attempts: without a checksum, too."""
    page = {"body": HTML, "status": status, "ranges": False, "etag": None}
    server = serve({"cut": 400_000}, page, {})
    if status == 200:
        assert "an HTML page" in failure(server, tmp_path / "x.fa.gz")
        assert names(tmp_path) == []
    else:
        fetch(server.url, tmp_path / "x.fa.gz", report=print)
        assert (tmp_path / "x.fa.gz").read_bytes() == BODY


def test_a_later_call_resumes(serve, tmp_path):
    server = serve({"cut": 400_000})
    assert "after 400000" in failure(server, tmp_path / "x.fa.gz", retries=0)
    assert names(tmp_path) == ["x.fa.gz.part", "x.fa.gz.part.json"]
    server.script = [{}]
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    assert server.requests[-1]["Range"] == "bytes=400000-"
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    assert names(tmp_path) == ["x.fa.gz"]


def test_what_another_url_left_is_not_resumed(serve, tmp_path):
    failure(serve({"body": OTHER, "cut": 400_000}), tmp_path / "x.fa.gz", retries=0)
    server = serve({})
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    assert "Range" not in server.requests[0]


@pytest.mark.parametrize(
    "second",
    [
        {"ranges": False},  # the whole body again
        {"etag": '"v2"'},  # If-Range tells that the file has changed
        {"etag": '"v2"', "if_range": False},  # only the answer's ETag tells
        {"shift": 5},  # another part than was asked for
        {"status": 416},
    ],
)
def test_what_cannot_be_resumed_starts_from_zero(serve, tmp_path, second):
    server = serve({"cut": 400_000, "body": OTHER}, second, {"etag": second.get("etag", '"v1"')})
    server.script[2]["ranges"] = False
    fetch(server.url, tmp_path / "x.fa.gz", report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY


@pytest.mark.parametrize("validator", [{"etag": None}, {"etag": 'W/"v1"'}])
def test_without_a_strong_validator_nothing_is_resumed(serve, tmp_path, validator):
    server = serve({"cut": 400_000, **validator}, validator)
    fetch(server.url, tmp_path / "x.fa.gz", report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    assert [request.get("Range") for request in server.requests] == [None, None]
    failure(serve({"cut": 400_000, **validator}), tmp_path / "y.fa.gz", retries=0)
    assert names(tmp_path) == ["x.fa.gz"]


def test_a_resumed_file_is_not_trusted(serve, tmp_path):
    """Another file under the same ETag: the checksum tells, and the whole is fetched again."""
    server = serve({"cut": 400_000, "body": OTHER}, {})
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    asked = [request.get("Range") for request in server.requests]
    assert asked == [None, "bytes=400000-", None]


def test_server_errors_are_retried(serve, tmp_path):
    server = serve({"status": 500}, {"status": 503}, {"status": 429}, {})
    lines = []
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=lines.append)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    assert [line for line in lines if "500 Internal Server Error; next attempt" in line]


@pytest.mark.parametrize("retries", [0, 3])
def test_retries_are_counted(serve, tmp_path, retries):
    server = serve({"status": 500})
    sentence = failure(server, tmp_path / "x.fa.gz", retries=retries)
    assert "500 Internal Server Error" in sentence
    assert len(server.requests) == retries + 1
    assert names(tmp_path) == []


def test_backoff_doubles(serve, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "BACKOFF_S", 1.0)
    clock = SimpleNamespace(sleep=waits.append, monotonic=time.monotonic)
    monkeypatch.setattr(download, "time", clock)  # the server's own sleep stays
    failure(serve({"status": 500}), tmp_path / "x.fa.gz", retries=8)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(serve, tmp_path, status):
    server = serve({"status": status, "body": HTML})
    assert f"the server answered {status}" in failure(server, tmp_path / "x.fa.gz")
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_always_cut_at_the_same_place(serve, tmp_path):
    server = serve({"cut": 400_000, "ranges": False})
    sentence = failure(server, tmp_path / "x.fa.gz", retries=2)
    assert "400000" in sentence
    assert len(server.requests) == 3


@pytest.mark.parametrize("body", [OTHER, BODY[:-1], BODY + b"x", BODY[:9] + b"?" + BODY[10:]])
def test_wrong_bodies_fail_the_checksum(serve, tmp_path, body):
    for kind, digest in (("md5", MD5), ("sha256", SHA256)):
        server = serve({"body": body})
        sentence = failure(server, tmp_path / "x.fa.gz", **{kind: digest})
        assert f"the {kind.upper()} of what arrived is" in sentence
        assert digest in sentence
        assert len(server.requests) == 1
        assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("x.fa.gz", HTML, "an HTML page"),
        ("x.fa.gz", b"\n <head><title>Error</title></head>", "an HTML page"),
        ("md5checksums.txt", HTML, "an HTML page"),
        ("x.fa.gz", b"chr1\t5", "no gzip file; it begins with b'chr1"),
        ("x.fa.gz", b"", "no gzip file"),
    ],
)
def test_something_else_in_the_place_of_the_file(serve, tmp_path, name, body, reason):
    assert reason in failure(serve({"body": body}), tmp_path / name, md5=MD5)
    assert names(tmp_path) == []


def test_a_redirect_is_followed(serve, tmp_path):
    other = serve({})
    server = serve({"status": 302, "location": other.url, "body": b""})
    fetch(server.url, tmp_path / "x.fa.gz", md5=MD5, report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == BODY
    loop = serve({"status": 302, "location": "/again", "body": b""})
    assert "redirects" in failure(loop, tmp_path / "y.fa.gz")


def test_nobody_listens(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_S", 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        sentence = failure(f"http://127.0.0.1:{port}/x.gz", tmp_path / "x.gz", retries=1)
    assert "Connection refused" in sentence


def test_progress_lines_are_rare(monkeypatch):
    seconds = iter(range(1, 1_000))
    monkeypatch.setattr(download, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    lines = []
    progress = download._Progress("x.fa.gz", lines.append, begun=0, told=0)
    for i in range(1, 13):
        progress.advance(2_000_000, 100_000_000 + i * 2_000_000, 200_000_000)
    assert lines == [
        "x.fa.gz: 110.0 of 200.0 MB, 2.0 MB/s, 45 s left",
        "x.fa.gz: 120.0 of 200.0 MB, 2.0 MB/s, 40 s left",
    ]


@pytest.mark.parametrize("form", ["plain", "relative", "file", "localhost"])
def test_local_sources(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a folder" / "x.fa.gz"
    source.parent.mkdir()
    source.write_bytes(BODY)
    url = {
        "plain": source,
        "relative": "a folder/x.fa.gz",
        "file": source.as_uri(),
        "localhost": source.as_uri().replace("file://", "file://localhost"),
    }[form]
    fetch(url, tmp_path / "out" / "y.fa.gz", md5=MD5.upper(), report=print)
    assert (tmp_path / "out" / "y.fa.gz").read_bytes() == BODY
    assert names(tmp_path / "out") == ["y.fa.gz"]


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "http://.x/y.gz", f"http://{'a' * 70}.x/"]
)
def test_an_address_that_is_none_is_one_sentence(tmp_path, monkeypatch, url):
    monkeypatch.setattr(download, "BACKOFF_S", 0)
    assert "cannot be fetched" in failure(url, tmp_path / "y.gz", retries=0)


def test_local_failures(tmp_path):
    target = tmp_path / "out" / "y.fa.gz"
    source = tmp_path / "x.fa.gz"
    assert "No such file" in failure(str(source), target)
    assert "Is a directory" in failure(f"file://{tmp_path}", target)
    source.write_bytes(OTHER)
    assert "the MD5 of what arrived" in failure(source.as_uri(), target, md5=MD5)
    assert "no source that can be fetched" in failure("ftp://host/x.fa.gz", target)
    assert "no source that can be fetched" in failure("file://relative/x.fa.gz", target)
    assert names(target.parent) == []


def test_unwritable_target(tmp_path, serve):
    (tmp_path / "file").write_text("")
    assert "cannot be stored" in failure(serve({}), tmp_path / "file" / "x.fa.gz")


def test_an_old_file_stays_where_the_new_one_fails(serve, tmp_path):
    (tmp_path / "x.fa.gz").write_bytes(OTHER)
    with pytest.raises(LongscaleError):
        fetch(serve({"status": 404}).url, tmp_path / "x.fa.gz", report=print)
    assert (tmp_path / "x.fa.gz").read_bytes() == OTHER


def test_published_md5(tmp_path):
    listing = tmp_path / "md5checksums.txt"
    listing.write_bytes(
        f"{'0' * 32}  ./sub/x.fa.gz\r\n{MD5}  ./x.fa.gz\r\n{'1' * 32}  y.fa.gz\n"
        f"{'A' * 32} *z.fa.gz\n".encode()
    )
    assert published_md5(listing, "x.fa.gz") == MD5
    assert published_md5(listing, "./x.fa.gz") == MD5
    assert published_md5(listing, "sub/x.fa.gz") == "0" * 32
    assert published_md5(listing, "y.fa.gz") == "1" * 32
    assert published_md5(listing, "z.fa.gz") == "a" * 32
    ucsc = tmp_path / "md5sum.txt"  # as beside hg19.fa.gz: no folder, other files of like names
    ucsc.write_text(f"{'2' * 32}  hg19.fa.gz.bgzip\n{MD5}  hg19.fa.gz\n{'3' * 32}  xhg19.fa.gz\n")
    assert published_md5(ucsc, "hg19.fa.gz") == MD5
    with pytest.raises(LongscaleError, match=r"md5checksums\.txt: lists no MD5 for fa\.gz"):
        published_md5(listing, "fa.gz")
    with pytest.raises(LongscaleError, match=r"none\.txt: cannot be read"):
        published_md5(tmp_path / "none.txt", "x.fa.gz")
