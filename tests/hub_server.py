"""A local stand-in for the Hugging Face hub: its resolve endpoint, over real HTTP."""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from faulty_http import answer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", COMMIT)


def etag_of(body: bytes, *, large: bool = True) -> str:
    """How the hub names a file: by its SHA-256 (LFS), or as Git does."""
    if large:
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Files of several repositories, all at one commit.

    `heads` and `gets`: one step after the other for what is asked of a file that exists (the last
    again and again); each is what `faulty_http.answer` is told beside or in place of a good answer.
    `requests`: (method, path, Range) of each. `large`: named as LFS files are, not as Git does.
    """

    files: Mapping[str, Mapping[str, bytes]]
    heads: list[Mapping[str, Any]]
    gets: list[Mapping[str, Any]]
    requests: list[tuple[str, str, str | None]]
    large: bool

    def do_HEAD(self):
        self.reply(self.heads)

    def do_GET(self):
        self.reply(self.gets)

    def reply(self, steps):
        self.requests.append((self.command, self.path, self.headers.get("Range")))
        repo, _, rest = unquote(self.path).removeprefix("/").partition("/resolve/")
        revision, _, filename = rest.partition("/")
        if repo not in self.files:
            self.refuse("RepoNotFound")
        elif revision not in REVISIONS:
            self.refuse("RevisionNotFound")
        elif filename not in self.files[repo]:
            self.refuse("EntryNotFound")
        else:
            step = dict(steps.pop(0) if len(steps) > 1 else steps[0])
            fails = step.get("status", 200) >= HTTPStatus.BAD_REQUEST
            body = step.setdefault("body", b"" if fails else self.files[repo][filename])
            commit = ("X-Repo-Commit", COMMIT)
            step.setdefault("etag", f'"{etag_of(body, large=self.large)}"')
            answer(self, **{"headers": [commit], **step})

    def refuse(self, code):
        answer(self, status=404, etag=None, headers=[("X-Error-Code", code)])

    def log_message(self, *args):
        pass


@contextmanager
def serve_hub(
    files: Mapping[str, Mapping[str, bytes]],
    *,
    heads: Sequence[Mapping[str, Any]] = ({},),
    gets: Sequence[Mapping[str, Any]] = ({},),
    requests: list | None = None,
    large: bool = True,
) -> Iterator[str]:
    """Serve `files` (repository, `datasets/` before a dataset's -> name -> bytes); its address."""
    state = {
        "files": files,
        "heads": list(heads),
        "gets": list(gets),
        "requests": [] if requests is None else requests,
        "large": large,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), state))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
