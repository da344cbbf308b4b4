"""OTLP endpoints that are down, slow, or silent, and a gate that refuses for a while."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

import httpx

from examples.stack.servers import free_port
from tests.loopback import serving

SLOW_SECONDS = 5.0
HOP_BY_HOP = {"Host", "Connection", "Content-Length"}
"""Headers that are not for the next server."""


@dataclass
class Backend:
    endpoint: str
    in_flight: int = 0
    """Exports that wait for their answer."""


@contextmanager
def refusing() -> Iterator[Backend]:
    """Nobody listens there."""
    yield Backend(f"http://127.0.0.1:{free_port()}")


@contextmanager
def slow() -> Iterator[Backend]:
    """Each export is answered after 5 s, though the exporter gives up after 2."""
    with _waiting(SLOW_SECONDS) as backend:
        yield backend


@contextmanager
def black_hole() -> Iterator[Backend]:
    """Exports are accepted, and never answered."""
    with _waiting(3600) as backend:
        yield backend


@contextmanager
def silent() -> Iterator[Backend]:
    """Accepts connections, and neither reads nor says anything: a black hole for any protocol."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        backend = Backend(f"http://127.0.0.1:{listening.getsockname()[1]}")
        accepted: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    accepted.append(listening.accept()[0])
                    backend.in_flight += 1

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield backend
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


@contextmanager
def _waiting(seconds: float) -> Iterator[Backend]:
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            backend.in_flight += 1
            self.rfile.read(int(self.headers["Content-Length"]))
            over.wait(seconds)
            backend.in_flight -= 1
            try:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
            except OSError:
                return  # the exporter has hung up

        def log_message(self, *_: object) -> None: ...

    backend = Backend("")
    with serving(Handler) as backend.endpoint:
        try:
            yield backend
        finally:
            over.set()


@dataclass
class Gate:
    """In front of a backend: passes requests on, or answers with a status of its own."""

    endpoint: str = ""
    status: int | None = None
    refused: int = 0
    """Requests that were not passed on."""


@contextmanager
def gate(target: str) -> Iterator[Gate]:
    """A gate that is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = passing.status
            if status is None:
                headers = {
                    name: value for name, value in self.headers.items() if name not in HOP_BY_HOP
                }
                status = client.post(self.path, content=body, headers=headers).status_code
            else:
                passing.refused += 1
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    passing = Gate()
    with (
        httpx.Client(base_url=target, trust_env=False, timeout=30) as client,
        serving(Handler) as passing.endpoint,
    ):
        yield passing
