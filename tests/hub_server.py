"""A local stand-in for the Hugging Face hub: its resolve endpoint, over real HTTP."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Files of several repositories, all at revision main."""

    files: Mapping[str, Mapping[str, bytes]]

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        repo, _, rest = unquote(self.path).removeprefix("/").partition("/resolve/")
        filename = rest.partition("/")[2]
        if repo not in self.files:
            self.refuse("RepoNotFound")
        elif filename not in self.files[repo]:
            self.refuse("EntryNotFound")
        else:
            body = self.files[repo][filename]
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{sha256(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    def refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def serve_hub(files: Mapping[str, Mapping[str, bytes]]) -> Iterator[str]:
    """Serve `files` (repository, `datasets/` before a dataset's -> name -> bytes); its address."""
    handler = type("Handler", (Hub,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
