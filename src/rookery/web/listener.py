"""The listener of the metrics: few connections with a thread each, a short head and time, and one answer at once."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

MAX_CONNECTIONS = 8
"""Connections at once, each with a thread. For one more the oldest is closed."""
MAX_HEAD_BYTES = 8 * 1024
"""Bytes of request line and headers; Prometheus sends some four hundred."""
CONNECTION_SECONDS = 5.0
"""From the connection until the answer is read."""
_LOOK_SECONDS = 0.25
_CONNECTION = "rookery.connection"
_HEAD_END = b"\r\n\r\n"
_TOO_LARGE = b"HTTP/1.0 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Handler(WSGIRequestHandler):
    """Reads a whole head first, and writes no log line."""

    server: "BoundedServer"

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone, or had its time
            head = self._read_head()
            if head is not None:
                self.rfile = io.BufferedReader(io.BytesIO(head))
                super().handle()

    def get_environ(self) -> dict[str, Any]:
        """As WSGI has it, with the connection."""
        return {**super().get_environ(), _CONNECTION: self.connection}

    def _read_head(self) -> bytes | None:
        head = b""
        while _HEAD_END not in head:
            some = self.connection.recv(MAX_HEAD_BYTES)
            if not some:
                return None
            head += some
            if len(head) > MAX_HEAD_BYTES:
                self.connection.sendall(_TOO_LARGE)
                return None
        return head

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Log nothing."""


class BoundedServer(ThreadingMixIn, WSGIServer):
    """A WSGI server with these bounds."""

    daemon_threads = True
    application: Callable[..., Any]

    def __init__(self, host: str, port: int, application: Callable[..., Any]) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        """When each connection is to be closed, oldest first."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        super().__init__((found[0][4][0], port), _Handler)  # type: ignore[arg-type] # a name or an address
        self.set_app(self._in_turn)
        self._collect = application
        self._turn = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread, and make room for it."""
        with self._lock:
            while len(self._open) >= MAX_CONNECTIONS:
                self._end(next(iter(self._open)))
            self._open[request] = time.monotonic() + CONNECTION_SECONDS
        super().process_request(request, client_address)

    def _in_turn(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request after the other: what is collected takes the interpreter from the event loop."""
        with self._turn:
            if environ[_CONNECTION] not in self._open:
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return []
            return list(self._collect(environ, start_response))

    def service_actions(self) -> None:
        """End the connections that had their time."""
        now = time.monotonic()
        with self._lock:
            for request in [request for request, until in self._open.items() if until <= now]:
                self._end(request)

    def _end(self, request: socket.socket) -> None:
        """Have its thread see the end of it."""
        self._open.pop(request, None)
        with suppress(OSError):  # the client has gone
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was served."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over what a client did; what a collector does is in the answer's status."""

    def serve(self) -> None:
        """Serve until `shutdown` is called."""
        self.serve_forever(poll_interval=_LOOK_SECONDS)
