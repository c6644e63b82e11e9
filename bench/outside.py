"""Servers in processes of their own, and a client that costs little beside them."""

import asyncio
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from bench.measuring import ROOT

CONNECTIONS = 32
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_ANSWER_SECONDS = 30.0


class Server:
    """A server in a process of its own, on a free port of loopback; ended when the block is left."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """`command` says its address on stderr, as http://127.0.0.1:PORT; its stdout goes to the log."""
        self._command = command
        self._log = log

    def __enter__(self) -> Self:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ROOKERY_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command], stdout=log, stderr=subprocess.PIPE, env=environ, cwd=ROOT
            )
        self.pid = self._process.pid
        self.port = self._read_port()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read_port(self) -> int:
        assert self._process.stderr is not None
        pipe, said, deadline = self._process.stderr, b"", monotonic() + _START_SECONDS
        while monotonic() < deadline:
            ready, _, _ = select.select([pipe], [], [], deadline - monotonic())
            part = os.read(pipe.fileno(), 4096) if ready else b""
            said += part
            if b"http://127.0.0.1:" in said and said.endswith(b"\n"):
                return int(said.partition(b"http://127.0.0.1:")[2].split()[0].rstrip(b"/"))
            if not part:
                break
        self._process.kill()
        raise RuntimeError(f"The server did not start: {said.decode(errors='replace')}")


def rookery(data: Path, *flags: str) -> Server:
    """`rookery serve` as anyone runs it, without rate limits, its log in a file."""
    command = ["-m", "rookery", "serve", "--data", str(data), "--port", "0", "--rate-limit", "off"]
    return Server([*command, "--log-format", "json", *flags], data / "log")


def get(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def post(path: str, token: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def length_of(answer: bytes | bytearray) -> int | None:
    """How long an answer is with its head; None while its head is not all there. A refusal is an error here."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return None
    if not answer.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(f"The server said: {bytes(answer[:1000]).decode(errors='replace')}")
    at = answer.find(b"content-length: ", 0, end)
    return end + 4 + int(answer[at + 16 : answer.find(b"\r\n", at)])


class Clients:
    """Connections that each send a request as soon as the one before is answered (closed loop, some 10 µs each).

    The ports take turns in getting one.
    """

    def __init__(self, ports: Sequence[int], connections: int = CONNECTIONS) -> None:
        self._sockets = [
            socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) for port in islice(cycle(ports), connections)
        ]
        self._by_number = {each.fileno(): each for each in self._sockets}
        self._poll = select.epoll()
        for each in self._sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(each.fileno(), select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._poll.close()
        for each in self._sockets:
            each.close()

    def run(self, requests: Iterable[bytes]) -> int:
        """Have all requests answered, each with a 2xx; how many they were."""
        rest: Iterator[bytes] = iter(requests)
        waiting: dict[int, bytearray] = {}
        answered = 0
        for each in self._sockets:
            if (request := next(rest, None)) is None:
                break
            each.sendall(request)
            waiting[each.fileno()] = bytearray()
        while waiting:
            ready = self._poll.poll(_ANSWER_SECONDS)
            if not ready:
                raise TimeoutError("The server does not answer.")
            for number, _ in ready:
                connection, got = self._by_number[number], waiting[number]
                part = connection.recv(65_536)
                if not part:
                    raise ConnectionError("The server closed a connection.")
                got += part
                if length_of(got) != len(got):
                    continue
                answered += 1
                if (request := next(rest, None)) is None:
                    del waiting[number]
                else:
                    got.clear()
                    connection.sendall(request)
        return answered


class Client:
    """One connection for asyncio: for requests at their own time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer, which is a 2xx."""
        self._writer.write(request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = length_of(head)
            assert length is not None
            return await self._reader.readexactly(length - len(head))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


def ask_once(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of one answer, as they came."""
    with socket.create_connection(("127.0.0.1", port), _ANSWER_SECONDS) as connection:
        connection.sendall(request)
        got = b""
        while length_of(got) != len(got):
            part = connection.recv(65_536)
            if not part:
                raise ConnectionError("The server closed a connection.")
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    return head, body
