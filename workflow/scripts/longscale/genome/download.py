"""Files from a server or a folder: whole, verified, resumed after a cut, or one sentence.

Resuming follows RFC 9110: `Range` asks for the rest, `If-Range` makes the server send the whole
file where it has changed since (sections 13.1.5 and 14).
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote

import requests
import urllib3

from longscale.errors import LongscaleError
from longscale.files import checksum

CHUNK_BYTES = 1 << 17  # of a chunk that a stalled server leaves unfinished, nothing is kept
BACKOFF_S = 1.0  # wait before the first retry; doubles with every failure in a row
LONGEST_BACKOFF_S = 60.0
PROGRESS_S = 5.0
GZIP_MAGIC = b"\x1f\x8b"
RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def fetch(
    url: str,
    target: str | Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    retries: int = 4,
    timeout_s: float = 60,
    report: Callable[[str], None] = print,
) -> Path:
    """Bring `url` to `target`; returns `target`, which appears whole and verified or not at all.

    `url` is `https://`, `http://`, `file://` or a plain path (relative to the working folder).
    `md5`, `sha256`: expected checksums in hex. After a broken connection, a silence of `timeout_s`
    seconds or a 5xx answer there are up to `retries` further attempts (an attempt that brings the
    file further than ever starts the count again), with exponential backoff, each going on where
    the last one ended if the server allows. If all fail, what has arrived stays in
    `target + ".part"` where a later call can resume it. `report` takes progress
    lines, at most one every 5 seconds.

    Raises LongscaleError, which names the URL and the reason, in every case of failure.
    """
    target = Path(target)
    expected = {"md5": md5, "sha256": sha256}
    partial = _Partial(target.with_name(target.name + ".part"), str(url))
    progress = _Progress(target.name, report)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if partial.url.lower().startswith(("https://", "http://")):
            _download(partial, target, expected, retries, timeout_s, progress)
        else:
            _copy_verified(_local_path(partial.url), partial, target, expected, progress)
        partial.path.replace(target)
        partial.discard()
    except OSError as error:
        raise LongscaleError(
            f"{url}: cannot be stored as {target}: {error.strerror or error}."
        ) from error
    progress.end()
    return target


def published_md5(md5checksums: str | Path, filename: str) -> str:
    """MD5 of `filename` in a list of `<md5>  ./<file>` lines (NCBI's md5checksums.txt) or of
    `<md5>  <file>` lines (UCSC's md5sum.txt, md5sum's own).

    Raises LongscaleError where the list cannot be read or does not name the file.
    """
    try:
        lines = Path(md5checksums).read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise LongscaleError(f"{md5checksums}: cannot be read: {error.strerror}.") from error
    for line in lines:
        match = re.fullmatch(r"([0-9a-fA-F]{32})\s+\*?(?:\./)?(.+?)\s*", line)
        if match and match[2] == filename.removeprefix("./"):
            return match[1].lower()
    raise LongscaleError(
        f"{md5checksums}: lists no MD5 for {filename}; expected a line '<md5>  ./{filename}'."
    )


class _RetryError(Exception):
    """A failure that another attempt may mend; its text is the reason."""


@dataclass
class _Partial:
    """What has arrived of a file, and the server's word for which version of the file it is."""

    path: Path
    url: str

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """The ETag or date that allows to resume; None where the part cannot be trusted."""
        try:
            note = json.loads(self.note.read_text("utf-8"))
            return str(note["validator"]) if self.size() and note["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError):  # a note that was cut, or changed
            return None

    def start(self, validator: str | None) -> None:
        """Forget what has arrived; remember which version comes now."""
        self.discard()
        if validator:
            self.note.write_text(json.dumps({"url": self.url, "validator": validator}), "utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@dataclass
class _Progress:
    """Lines such as `x.fa.gz: 120.0 of 938.3 MB, 11.2 MB/s, 73 s left`, one every few seconds."""

    name: str
    report: Callable[[str], None]
    begun: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    received: int = 0  # bytes in this call; what an earlier call left does not count for the rate

    def advance(self, n_bytes: int, done: int, total: int | None) -> None:
        """`n_bytes` more have arrived; `done` of `total` bytes are there."""
        self.received += n_bytes
        now = time.monotonic()
        if now - self.told < PROGRESS_S:
            return
        self.told = now
        rate = self.received / (now - self.begun)
        of_total = f" of {total / 1e6:.1f}" if total else ""
        left = f", {(total - done) / rate:.0f} s left" if total else ""
        self.report(f"{self.name}: {done / 1e6:.1f}{of_total} MB, {rate / 1e6:.1f} MB/s{left}")

    def end(self) -> None:
        seconds = time.monotonic() - self.begun
        self.report(f"{self.name}: {self.received / 1e6:.1f} MB in {seconds:.1f} s, complete")


def _download(
    partial: _Partial,
    target: Path,
    expected: dict[str, str | None],
    retries: int,
    timeout_s: float,
    progress: _Progress,
) -> None:
    """Attempt until the part is whole and verified; failures count from the last progress on."""
    furthest = failures = 0
    while True:
        try:
            resumed = _receive(partial, timeout_s, progress)
            try:
                return _verify(partial, target, expected)
            except LongscaleError as error:
                partial.discard()
                if not resumed:
                    raise
                raise _RetryError("what was resumed is not the expected file") from error
        except _RetryError as error:
            failures = 1 if partial.size() > furthest else failures + 1
            furthest = max(furthest, partial.size())
            if failures > retries:
                if partial.validator() is None:
                    partial.discard()
                raise LongscaleError(
                    f"{partial.url}: cannot be fetched, {failures} attempts without progress: "
                    f"{error}."
                ) from error
            wait = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (failures - 1))
            progress.report(f"{target.name}: {error}; next attempt in {wait:g} s")
            time.sleep(wait)


def _receive(partial: _Partial, timeout_s: float, progress: _Progress) -> bool:
    """One attempt to bring the part to its full length; True if it went on from an earlier one."""
    validator = partial.validator()
    # "identity": a server that compresses on the way would change the bytes that are checked.
    headers = {"Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={partial.size()}-", "If-Range": validator}
    with _request(partial, headers, timeout_s) as response:
        resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
        if resumed:
            done, total = partial.size(), _resumed_total(partial, response, validator)
        else:
            done, total = 0, response.raw.length_remaining
            partial.start(_validator(response))
        with partial.path.open("ab" if resumed else "wb") as handle:
            try:
                for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                    handle.write(chunk)
                    done += len(chunk)
                    progress.advance(len(chunk), done, total)
            except urllib3.exceptions.ReadTimeoutError as error:
                raise _RetryError(f"the server sent nothing for {timeout_s:g} s") from error
            except urllib3.exceptions.HTTPError as error:
                raise _RetryError(f"the connection broke after {done} bytes") from error
    if total is not None and done != total:
        raise _RetryError(f"the connection was cut after {done} of {total} bytes")
    return resumed


def _request(partial: _Partial, headers: dict[str, str], timeout_s: float) -> requests.Response:
    """The answer to a GET, if its status says that a body worth having follows."""
    try:
        response = requests.get(partial.url, headers=headers, stream=True, timeout=timeout_s)
    except requests.Timeout as error:
        raise _RetryError(f"no answer within {timeout_s:g} s") from error
    except requests.ConnectionError as error:
        cause = getattr(error.args[0], "reason", error)
        raise _RetryError(f"no connection ({str(cause).split(': ', 1)[-1]})") from error
    except (requests.RequestException, ValueError) as error:  # ValueError: no address at all
        raise LongscaleError(f"{partial.url}: cannot be fetched: {error}.") from error
    status = response.status_code
    if status == HTTPStatus.OK or (status == HTTPStatus.PARTIAL_CONTENT and "Range" in headers):
        return response
    response.close()
    answer = f"the server answered {status} {response.reason}"
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        partial.discard()
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in RETRIED:
        raise LongscaleError(f"{partial.url}: cannot be fetched: {answer}.")
    raise _RetryError(answer)


def _validator(response: requests.Response) -> str | None:
    """What `If-Range` may carry: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _resumed_total(partial: _Partial, response: requests.Response, validator: str) -> int:
    """Length of the whole file, if the answer is the rest of the file that was begun."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    same = _validator(response) in (None, validator)
    if not (found and same and int(found[1]) == partial.size()):
        partial.discard()
        raise _RetryError("the server went on with another part or another file")
    return int(found[2])


def _local_path(url: str) -> Path:
    """The path of a `file://` URL or of a plain path; LongscaleError for another scheme."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return Path(url)
    host, slash, path = rest.partition("/")
    if scheme.lower() != "file" or host not in ("", "localhost") or not slash:
        raise LongscaleError(
            f"{url}: is no source that can be fetched; expected https://, http://, "
            "file:///absolute/path or a plain path."
        )
    return Path(unquote(f"/{path}"))


def _copy_verified(
    source: Path,
    partial: _Partial,
    target: Path,
    expected: dict[str, str | None],
    progress: _Progress,
) -> None:
    try:
        total, reader = source.stat().st_size, source.open("rb")
    except OSError as error:
        raise LongscaleError(f"{partial.url}: cannot be read: {error.strerror}.") from error
    partial.start(validator=None)
    done = 0
    try:
        with reader, partial.path.open("wb") as handle:
            while chunk := reader.read(CHUNK_BYTES):
                handle.write(chunk)
                done += len(chunk)
                progress.advance(len(chunk), done, total)
        _verify(partial, target, expected)
    except BaseException:
        partial.discard()  # a copy does not resume
        raise


def _verify(partial: _Partial, target: Path, expected: dict[str, str | None]) -> None:
    """LongscaleError unless the part is what its name and the checksums say."""
    with partial.path.open("rb") as handle:
        head = handle.read(64).lstrip().lower()
    compressed = target.suffix == ".gz"
    if head.startswith((b"<!doctype html", b"<html") if not compressed else b"<"):
        raise LongscaleError(f"{partial.url}: the answer is an HTML page in place of the file.")
    if compressed and not head.startswith(GZIP_MAGIC):
        raise LongscaleError(
            f"{partial.url}: no gzip file; it begins with {head[:16]!r} (`gzip` makes one)"
        )
    for algorithm, digest in expected.items():
        if digest is None:
            continue
        found = checksum(partial.path, algorithm)
        if found != digest.strip().lower():
            raise LongscaleError(
                f"{partial.url}: the {algorithm.upper()} of what arrived is {found}, expected "
                f"{digest}; the source has changed or was damaged on the way."
            )
