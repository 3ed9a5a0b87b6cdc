"""What a bad HTTP server does, for the servers of the tests."""

import re
import socket
import struct
from contextlib import suppress
from time import sleep  # by name: tests that patch `time.sleep` mean the client's


def answer(
    handler,
    *,
    status=200,
    body=b"",
    drop=False,
    cut=None,
    reset=False,
    stall=0,
    ranges=True,
    if_range=True,
    etag='"v1"',
    modified=None,
    length=True,
    location=None,
    shift=0,
    most=None,
    headers=(),
):
    """Answer a request well, or as badly as asked for.

    drop: hang up without a word; cut: bytes sent before the connection breaks (reset: with a TCP
    reset); stall: seconds of silence after the cut instead; ranges, if_range: whether Range and
    If-Range are understood; length: whether to send Content-Length; shift: of the range answered;
    most: bytes per answer.
    """
    handler.close_connection = True
    if drop:
        return
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    unchanged = not if_range or handler.headers.get("If-Range") in (None, etag, modified)
    first = 0
    if status == 200 and ranges and asked and unchanged:
        first = int(asked[1])
        status = 206 if first < len(body) else 416
    handler.send_response(status)
    if status == 206:
        handler.send_header("Content-Range", f"bytes {first + shift}-{len(body) - 1}/{len(body)}")
    own = (("ETag", etag), ("Last-Modified", modified), ("Location", location), *headers)
    for name, value in own:
        if value:
            handler.send_header(name, value)
    rest = b"" if status == 416 else body[first:][:most]
    if length:
        handler.send_header("Content-Length", str(len(rest)))
    handler.end_headers()
    with suppress(ConnectionError):  # a client that has seen enough goes away
        if handler.command != "HEAD":
            handler.wfile.write(rest[:cut])
        sleep(stall)
    if reset:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
