"""The hub's own client against a hub that misbehaves: the right file, or one sentence."""

import hashlib
import os
import random
import re
import subprocess
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import COMMIT, etag_of, serve_hub
from huggingface_hub.utils._xet import XetConnectionInfo

from longscale.errors import LongscaleError
from longscale.genome import hub
from longscale.genome.hub import hub_file

REPO, NAME = "lab/model", "deep/weights.bin"
BODY = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
FLIPPED = BODY[:200_000] + bytes([BODY[200_000] ^ 1]) + BODY[200_001:]
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"
CUT = {"cut": 120_000}


@pytest.fixture(autouse=True)
def client(tmp_path, monkeypatch):
    """An empty cache and a client in a hurry; what it writes to disk comes in small pieces."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def get(monkeypatch):
    """get(**what serve_hub takes) -> (the file's path, what was asked for)."""

    def run(*, optional=False, revision="main", files=None, **faults):
        requests = []
        files = {REPO: {NAME: BODY}} if files is None else files
        with serve_hub(files, requests=requests, **faults) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            return hub_file(REPO, NAME, revision=revision, optional=optional), requests

    return run


def sentence_of(get, **faults):
    """The sentence with which a download fails; nothing is left that could pass for the file."""
    with pytest.raises(LongscaleError) as told:
        get(**faults)
    sentence = str(told.value)
    assert sentence.startswith(f"{REPO}: {NAME} at revision 'main': ")
    assert "\n" not in sentence
    assert cached_files() == []
    return sentence


def cached_files(*folders):
    """What the cache holds, in its folders of blobs and of snapshots (or in one of them)."""
    found = Path(huggingface_hub.constants.HF_HUB_CACHE).rglob("*")
    folders = {*folders} or {"blobs", "snapshots"}
    return [path for path in found if not path.is_dir() and folders & {*path.parts}]


@pytest.mark.parametrize("revision", ["main", COMMIT])
@pytest.mark.parametrize("large", [True, False])
def test_a_file_arrives_and_is_found_again(get, large, revision):
    path, requests = get(large=large, revision=revision)
    assert path.read_bytes() == BODY
    assert path.readlink().name == etag_of(BODY, large=large)
    assert [method for method, *_ in requests] == ["HEAD", "GET"]
    path, requests = get(large=large, revision=revision)
    assert path.read_bytes() == BODY
    assert "GET" not in [method for method, *_ in requests]


def test_the_name_of_a_small_file_is_that_of_git(tmp_path, tool):
    (tmp_path / "x").write_bytes(BODY)
    told = subprocess.run(
        [tool("git"), "hash-object", tmp_path / "x"], capture_output=True, text=True, check=True
    )
    assert hub._git_object_name(tmp_path / "x") == told.stdout.strip()
    assert etag_of(BODY, large=False) == told.stdout.strip()


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize(
    ("gets", "asked"),
    [
        ([CUT, {}], [None, 120_000]),
        ([CUT, {"cut": 50_000}, {}], [None, 120_000, 170_000]),
        ([{"cut": 20_000}], [None, *range(20_000, 300_000, 20_000)]),  # each brings it further
        ([CUT | {"stall": 0.6}, {}], [None, 120_000]),
        ([CUT | {"reset": True}, {}], None),  # what a reset leaves to resume is up to the client
        ([CUT, {"ranges": False}], [None, 120_000]),
        ([{"status": 500}, {"status": 503}, {}], [None, None, None]),
        ([{"status": 429}, {}], [None, None]),
        ([{"body": BODY[:-7]}, {}], [None, None]),
        ([{"body": BODY + b"longer"}, {}], [None, None]),
        ([{"body": HTML}, {}], [None, None]),
        ([{"body": FLIPPED}, {}], [None, None]),
        ([CUT | {"body": OTHER}, {}], [None, 120_000, None]),  # the first part of another file
        ([CUT, {"status": 500}, {}], [None, 120_000, None]),
    ],
)
def test_a_fault_that_passes_ends_in_the_right_file(get, gets, asked, large):
    path, requests = get(gets=gets, large=large)
    assert path.read_bytes() == BODY
    ranges = [where for method, _, where in requests if method == "GET"]
    if asked is not None:
        assert ranges == [first and f"bytes={first}-" for first in asked]
    assert [path.name for path in cached_files("blobs")] == [etag_of(BODY, large=large)]


@pytest.mark.parametrize(
    "head", [{"status": 500}, {"status": 503}, {"status": 429}, {"drop": True}]
)
def test_a_fault_before_the_transfer_that_passes(get, head):
    path, _ = get(heads=[head, {}])
    assert path.read_bytes() == BODY


def test_a_file_that_changes_between_two_attempts_arrives_as_it_is_now(get):
    """The first part of the old one, the rest of the new one; then the new one alone."""
    old = {"body": OTHER}
    path, requests = get(heads=[old, {}], gets=[CUT | old, {}])
    assert path.read_bytes() == BODY
    assert [(method, where) for method, _, where in requests] == [
        ("HEAD", None),
        ("GET", None),
        ("GET", "bytes=120000-"),
        ("HEAD", None),
        ("GET", None),
    ]


def test_a_redirect_to_another_server_is_followed_and_checked(get):
    """The checksum is that which the hub names; the other server may say what it likes."""
    linked = [
        ("X-Repo-Commit", COMMIT),
        ("X-Linked-Etag", f'"{etag_of(BODY)}"'),
        ("X-Linked-Size", str(len(BODY))),
    ]
    for gets in ([CUT, {}], [{"body": FLIPPED}, {}]):
        steps = [{"etag": '"storage"', **step} for step in gets]
        with serve_hub({REPO: {NAME: BODY}}, gets=steps) as storage:
            location = f"{storage}/{REPO}/resolve/main/{NAME}"
            head = {"status": 302, "location": location, "headers": linked, "body": b""}
            path, requests = get(heads=[head])
        assert path.read_bytes() == BODY
        assert {method for method, *_ in requests} == {"HEAD"}
        hub._forget(path)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"gets": [{"cut": 0}]}, "without sending complete message body"),
        ({"gets": [{"cut": 0, "stall": 0.4}]}, "silent for longer than HF_HUB_DOWNLOAD_TIMEOUT"),
        ({"gets": [{"cut": 0, "reset": True}]}, "reset"),
        ({"gets": [{"body": FLIPPED}]}, f"SHA-256 .* expected {etag_of(BODY)}"),
        ({"gets": [{"body": FLIPPED}], "large": False}, "Git object name of what arrived is"),
        ({"gets": [{"body": BODY[:-7]}]}, "should be of size 300000 but has size 299993"),
        ({"gets": [{"body": BODY + b"x"}]}, "should be of size 300000 but has size 300001"),
        ({"gets": [{"body": HTML}]}, "should be of size 300000 but has size 54"),
        ({"gets": [{"body": HTML.ljust(300_000)}]}, "what arrived .an HTML page. is"),
        ({"gets": [{"status": 404}]}, "download failed: .*404"),
        ({"gets": [{"status": 401}]}, "no such model, or it wants a token"),
        ({"gets": [{"status": 403}]}, "download failed: 403 Forbidden"),
        ({"gets": [{"status": 500}]}, "2 attempts: .*500"),
        ({"heads": [{"status": 401}]}, "no such model, or it wants a token"),
        ({"heads": [{"status": 403}]}, "gives no answer .403 Forbidden"),
        ({"heads": [{"status": 500}]}, "gives no answer .*500"),
        ({"heads": [{"drop": True}]}, "2 attempts: Server disconnected"),
        ({"gets": [{"drop": True}]}, "2 attempts: Server disconnected"),
        ({"gets": [{"status": 500, "body": OTHER}]}, "download failed: "),
        ({"heads": [{"body": HTML, "headers": []}]}, "does not seem to be served by a Hugging"),
        ({"heads": [{"etag": None}]}, "does not have an ETag"),
    ],
)
def test_a_fault_that_stays_is_one_sentence(get, monkeypatch, faults, reason):
    monkeypatch.setattr(hub, "RETRIES", 1)
    sentence = sentence_of(get, **faults)
    assert re.search(reason, sentence), sentence


def test_a_file_from_another_name_giver_is_checked_by_its_length(get):
    """A mirror that has other ETags."""
    path, _ = get(heads=[{"etag": '"v7"'}])
    assert path.read_bytes() == BODY
    assert hub._damage(path) == ""


@pytest.mark.parametrize("kind", ["sha1", "sha256"])
def test_a_mirror_may_name_files_by_plain_checksums(get, kind):
    etag = {"etag": hashlib.new(kind, BODY).hexdigest()}
    path, requests = get(heads=[etag], gets=[{"body": FLIPPED}, {}])
    assert path.read_bytes() == BODY
    assert len(requests) == 4


def test_xet_storage_that_fails_is_one_sentence(get, tmp_path, monkeypatch):
    """Its library asks the stand-in, which knows nothing of it."""
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setattr(
        "huggingface_hub.utils._xet.refresh_xet_connection_info",
        lambda **asked: XetConnectionInfo("token", 2**40, os.environ["HF_ENDPOINT"]),
    )
    xet = [("X-Repo-Commit", COMMIT), ("X-Xet-Hash", "ab" * 32), ("X-Xet-Refresh-Route", "/t")]
    sentence = sentence_of(get, heads=[{"headers": xet}])
    assert "404" in sentence
    assert "HF_HUB_DISABLE_XET=1" in sentence


def test_a_cache_that_rots_is_mended(get):
    path, _ = get()
    blob = path.resolve()
    blob.write_bytes(FLIPPED)
    path, requests = get()
    assert path.read_bytes() == BODY
    assert [method for method, *_ in requests] == ["HEAD", "HEAD", "GET"]

    path.resolve().write_bytes(FLIPPED)
    sentence = sentence_of(get, heads=[{}, {"status": 403}])
    assert "the attempt before that: the SHA-256 of what arrived" in sentence


def test_what_cannot_be_removed_is_refused_again(get, monkeypatch):
    """A cache that others own."""
    path, _ = get()
    path.resolve().write_bytes(FLIPPED)

    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(LongscaleError, match="4 attempts: the SHA-256 of what arrived is"):
        get()


def test_a_hub_in_trouble_does_not_say_that_an_optional_file_is_missing(get, monkeypatch):
    """Else a checkpoint's other file would be taken in its place."""
    assert get(optional=True, files={REPO: {}})[0] is None
    assert "500" in sentence_of(get, optional=True, heads=[{"status": 500}])
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_file(REPO, NAME, revision="main", optional=True) is None
    assert get(optional=True, heads=[{"drop": True}, {}])[0].read_bytes() == BODY


def test_a_damaged_optional_file_is_not_taken_for_a_missing_one(get, monkeypatch):
    get()[0].resolve().write_bytes(FLIPPED)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LongscaleError, match=r"gives no answer .* before that: the SHA-256 of"):
        hub_file(REPO, NAME, revision="main", optional=True)
