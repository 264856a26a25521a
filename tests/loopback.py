"""A web server with faults, a hub made of it, and a guard against other addresses."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LOCAL = ("127.0.0.1", "::1", "localhost")


class Elsewhere(AssertionError):
    """Something asked for an address that is not this machine's."""


def guard() -> Callable[[], None]:
    """Forbid connections to other machines in this process; return what allows them."""
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in LOCAL:
            raise Elsewhere(f"connection to {address}")
        connect(self, address)

    def guarded_lookup(host: Any, *rest: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in (*LOCAL, None):
            raise Elsewhere(f"lookup of {name}")
        return lookup(host, *rest, **options)

    socket.socket.connect = guarded_connect  # type: ignore[method-assign]
    socket.getaddrinfo = guarded_lookup  # type: ignore[assignment]

    def undo() -> None:
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.getaddrinfo = lookup

    return undo


@dataclass
class Answer:
    """How to answer one request; what is left out is done properly.

    Attributes:
        status: Another status than 200 or 206.
        headers: Further headers.
        cut: Break the connection off after so many bytes of the body.
        ranges: Whether ranges are known.
        tagged: Whether the file has an ETag.
        length: Whether the length is told.
        stall: Waited for after the ``cut`` bytes, with the connection open.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1
    ranges: bool = True
    tagged: bool = True
    length: bool = True
    stall: threading.Event | None = None


@dataclass
class Server:
    """Files by path, how to answer, and what was asked."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    heads: dict[str, Answer] = field(default_factory=dict)
    always: dict[str, Answer] = field(default_factory=dict)
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    after: Callable[[str], None] = lambda path: None

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def requests(self, method: str = "GET") -> list[str]:
        return [path for how, path, _ in self.asked if how == method]

    def ranges(self) -> list[str | None]:
        return [headers.get("range") for how, _, headers in self.asked if how == "GET"]


def tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


@contextmanager
def serving() -> Iterator[Server]:
    """Serve files on loopback."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.asked.append((self.command, self.path, headers))
            queue = state.answers.get(self.path, []) if body else []
            fixed = (
                state.always if body or self.path not in state.heads else state.heads
            )
            how = queue.pop(0) if queue else fixed.get(self.path, Answer())
            content = state.files.get(self.path)
            if how.status or content is None:
                self.send_response(how.status or 404)
                for name, value in how.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
                state.after(self.path)
                return
            status, start = 200, 0
            asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
            fresh = headers.get("if-range", tag(content)) == tag(content)
            if asked and how.ranges and fresh:
                status, start = 206, int(asked[1])
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(status)
            if how.tagged:
                self.send_header("ETag", tag(content))
            if status == 206:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            for name, value in how.headers.items():
                self.send_header(name, value)
            part = content[start:]
            if how.length:
                self.send_header("Content-Length", str(len(part)))
            else:
                self.send_header("Connection", "close")
            self.end_headers()
            if not body:
                return
            self.wfile.write(part if how.cut < 0 else part[: how.cut])
            self.wfile.flush()
            if how.stall is not None:
                how.stall.wait(30)
            if how.cut >= 0 or not how.length:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_WR)
            state.after(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # Clients that hang up are what some tests are about.
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def git_checksum(content: bytes) -> str:
    header = b"blob %d\0" % len(content)
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def add_repository(
    server: Server, hub: str, commit: str, files: dict[str, bytes], small: int = 64
) -> None:
    """Add a repository of the hub to a server, at a commit and at ``main``.

    Files above ``small`` bytes are kept elsewhere, as the hub does with large ones.
    """
    for name, content in files.items():
        for revision in (commit, "main"):
            path = f"/{hub}/resolve/{revision}/{name}"
            headers = {"X-Repo-Commit": commit}
            if len(content) > small:
                sha256 = hashlib.sha256(content).hexdigest()
                server.files[f"/cdn/{sha256}"] = content
                headers["Location"] = server.url(f"/cdn/{sha256}", "localhost")
                headers["X-Linked-Etag"] = f'"{sha256}"'
                headers["X-Linked-Size"] = str(len(content))
                server.always[path] = Answer(status=302, headers=headers)
            else:
                server.files[path] = content
                headers["ETag"] = f'"{git_checksum(content)}"'
                answer = Answer(headers=headers, tagged=False)
                server.heads[path] = server.always[path] = answer
