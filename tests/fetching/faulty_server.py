"""A web server on 127.0.0.1 with scripted faults.

    with FaultyServer() as server:
        url = server.serve("data.zip", content, faults=[drop(1000), status(503), page("Moved")])
        ...
        assert server.requests[1].headers["Range"] == "bytes=1000-"

Each request for a file consumes the next of its faults; after the last one the server behaves well: with ETag and date,
ranges and If-Range. A fault is a name and a function from file and request to the answer, or None for no answer. The
server also acts as an HTTP proxy: it ignores the host and looks only at the path.
"""

import http.server
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import urlsplit


class Request(NamedTuple):
    target: str  # as requested: a path, or the whole URL if sent to a proxy
    headers: dict[str, str]
    fault: str  # its name; "" for none


@dataclass
class File:
    content: bytes
    faults: list["Fault"]
    etag: str | None
    last_modified: str | None
    chunked: bool  # without announcing its length
    seconds: float  # between pieces of 32 KiB


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    stop_at: int | None = None  # bytes of the body that are sent; None: all
    ending: str = "close"  # or "reset", "stall"
    seconds: float = 0.0
    piece: int = 1 << 15
    chunked: bool = False


class Fault(NamedTuple):
    name: str
    answer: Callable[[File, Request], Answer | None]


def answer(file: File, request: Request) -> Answer:
    """The answer of a correct server."""
    headers = {"ETag": file.etag, "Last-Modified": file.last_modified, "Content-Type": "application/octet-stream"}
    headers = {name: value for name, value in headers.items() if value}
    first, total = requested_start(file, request), len(file.content)
    if first is None:
        return Answer(200, headers, file.content, seconds=file.seconds, chunked=file.chunked)
    if first >= total:
        return Answer(416, {"Content-Range": f"bytes */{total}"}, b"")
    headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
    return Answer(206, headers, file.content[first:], seconds=file.seconds)


def requested_start(file: File, request: Request) -> int | None:
    """The first byte of the requested range; None without a range or if If-Range does not match."""
    if "Range" not in request.headers or request.headers.get("If-Range") not in (None, file.etag, file.last_modified):
        return None
    return int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))


def whole(file: File) -> Answer:
    """The answer of a server without support for ranges."""
    return answer(file, Request("", {}, ""))


def drop(at: int, ending: str = "close") -> Fault:
    """The connection closes after `at` bytes of the body, or is reset or stalls, as `ending` says."""
    return Fault(ending, lambda file, request: replace(answer(file, request), stop_at=at, ending=ending))


def silence() -> Fault:
    """The connection closes before the headers."""
    return Fault("no answer", lambda file, request: None)


def status(code: int, **headers: str) -> Fault:
    """An error, with headers (underscores become hyphens)."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(str(code), lambda file, request: Answer(code, fields, b"no"))


def redirect(to: str) -> Fault:
    """To another URL; /loop redirects to itself."""
    return Fault("redirect", lambda file, request: Answer(302, {"Location": to}, b""))


def page(title: str, content_type: str | None = "text/html; charset=utf-8") -> Fault:
    """A web page with status 200."""
    body = f"\n<!DOCTYPE html>\n<html><head><title>\n {title}</title></head><body>Sorry.</body></html>".encode()
    headers = {"Content-Type": content_type} if content_type else {}
    return Fault("page", lambda file, request: Answer(200, headers, body))


def ignored_range() -> Fault:
    """The whole file, whatever the requested range."""
    return Fault("ignored range", lambda file, request: whole(file))


def wrong_bytes(at: int) -> Fault:
    """One byte is wrong."""

    def corrupt(file: File, request: Request) -> Answer:
        good = answer(file, request)
        body = bytearray(good.body)
        if body:
            body[at % len(body)] ^= 255
        return replace(good, body=bytes(body))

    return Fault("wrong bytes", corrupt)


def wrong_length(by: int) -> Fault:
    """The Content-Length is wrong by `by` bytes; if negative, no client reads the rest."""

    def lie(file: File, request: Request) -> Answer:
        good = answer(file, request)
        return replace(good, headers=good.headers | {"Content-Length": str(max(0, len(good.body) + by))}, chunked=False)

    return Fault("long length" if by > 0 else "short length", lie)


def wrong_range(first: int, total: int | None = None) -> Fault:
    """Another part than the requested one, from `first` on; `total` is the announced full length."""

    def shift(file: File, request: Request) -> Answer:
        body, length = file.content[first:], len(file.content) if total is None else total
        headers = {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{length}"}
        return Answer(206, whole(file).headers | headers, body)

    return Fault("wrong range", shift)


def older(content: bytes, at: int) -> Fault:
    """Another version of the file, with its own ETag if the file has one, up to byte `at`."""

    def old(file: File, request: Request) -> Answer:
        versioned = replace(file, content=content, etag=file.etag and '"older"', last_modified=None)
        return replace(whole(versioned), stop_at=at)

    return Fault("older version", old)


def slow(piece: int, seconds: float) -> Fault:
    """Pieces of `piece` bytes, `seconds` apart."""
    return Fault("slow", lambda file, request: replace(answer(file, request), piece=piece, seconds=seconds))


def no_length(at: int | None = None) -> Fault:
    """Neither Content-Length nor chunks: the file ends where the connection does, after `at` bytes."""
    hidden = {"Content-Length": ""}
    return Fault(
        "no length",
        lambda file, request: replace(whole(file), headers=whole(file).headers | hidden, stop_at=at, chunked=False),
    )


def compressed(body: bytes) -> Fault:
    """`body` as an unrequested gzip of the file."""
    return Fault(
        "compressed",
        lambda file, request: replace(
            whole(file), headers=whole(file).headers | {"Content-Encoding": "gzip"}, body=body
        ),
    )


@dataclass
class FaultyServer:
    """Serves until the end of its `with`; `requests` are in the order of arrival."""

    files: dict[str, File] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def serve(
        self,
        name: str,
        content: bytes,
        faults: Iterable[Fault] = (),
        *,
        etag: str | None = '"v1"',
        last_modified: str | None = "Wed, 21 Oct 2015 07:28:00 GMT",
        chunked: bool = False,
        seconds: float = 0.0,
    ) -> str:
        """Serve `content` after the faults; returns the URL of `name`, a path without its first slash."""
        self.files[f"/{name}"] = File(content, list(faults), etag, last_modified, chunked, seconds)
        return f"{self.url}/{name}"

    def __enter__(self) -> "FaultyServer":
        self.closing = threading.Event()
        server = self

        class Handler(_Handler):
            faulty = server

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads, self.http.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faulty: FaultyServer

    def do_GET(self) -> None:
        self.close_connection = True
        path, headers = urlsplit(self.path).path, dict(self.headers.items())
        file = self.faulty.files.get(path)
        fault = file.faults.pop(0) if file and file.faults else Fault("", answer)
        request = Request(self.path, headers, fault.name)
        self.faulty.requests.append(request)
        if path == "/loop":
            self.send(Answer(302, {"Location": "/loop"}, b""))
        elif file is None:
            self.send(Answer(404, {}, b"no"))
        elif found := fault.answer(file, request):
            self.send(found)

    def send(self, found: Answer) -> None:
        length = {"Transfer-Encoding": "chunked"} if found.chunked else {"Content-Length": str(len(found.body))}
        self.send_response(found.status)
        for name, value in (length | {"Connection": "close"} | found.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        try:
            self.send_body(found)
        except OSError:
            return  # the client has gone
        if found.ending == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # it keeps the connection open
            self.connection.close()
        if found.ending == "stall":
            self.faulty.closing.wait(10)

    def send_body(self, found: Answer) -> None:
        body = found.body[: found.stop_at]
        for start in range(0, len(body), found.piece):
            piece = body[start : start + found.piece]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if found.chunked else piece)
            self.faulty.closing.wait(found.seconds)
        if found.chunked and len(body) == len(found.body):
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass
