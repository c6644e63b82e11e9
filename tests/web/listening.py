"""Our connections on a real socket, before an application that says what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import uvicorn
from litestar.types import Receive, Scope, Send

from rookery.domain.tallies import Reading
from rookery.web.connections import Connections

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
BIG = 8 * 1024 * 1024
BODIES = {"/big": b"x" * BIG, "/some": b"x" * 60_000}


class Server:
    """uvicorn with our protocol and an application that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.hosts: list[list[bytes]] = []
        """Values of the Host header, of each request."""
        self.cancelled: list[str] = []
        """Methods of the requests that were given up at the gate."""
        self.reads = True
        self.gate = asyncio.Event()
        self.gate.set()
        self.gap = asyncio.Event()
        """Lies between an answer's head and its body."""
        self.gap.set()
        self.fails = False
        """Whether it fails after an answer's head."""
        self.parts = 65_536
        """Bytes of a body that are given to the server at once."""
        self.copies = False
        """Whether each answer has a body of its own, rather than one with all others."""
        self.port = 0
        self.server: Any = None
        self.connections = Connections()

    def refused(self) -> dict[str, int]:
        """How often it said to have refused, by code."""
        return {reading.labels["code"]: cast("int", reading.value) for reading in self._readings() if reading.labels}

    def held_bytes(self) -> int:
        """What it said to keep of requests."""
        return next(cast("int", reading.value) for reading in self._readings() if reading.name == "requests_held_bytes")

    def _readings(self) -> Iterable[Reading]:
        return self.connections.readings()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", self.reads
        while more:
            message: Any = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        path = scope["path"]
        self.asked.append((path, body))
        self.hosts.append([value for name, value in scope["headers"] if name == b"host"])
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(cast("str", scope.get("method")))
            raise
        answer = BODIES.get(path, b"xx")
        if self.copies:
            answer = bytes(bytearray(answer))
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self.gap.wait()
        if self.fails:
            raise RuntimeError("in the middle of an answer")
        for start in range(0, len(answer), self.parts):
            some = answer[start : start + self.parts]
            await send({"type": "http.response.body", "body": some, "more_body": start + self.parts < len(answer)})

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, *parts: bytes) -> bytes:
        """All that comes back on one connection until it is closed."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)  # so that parts arrive apart
        try:
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    made = Server()
    app: Any = made.app
    config = uvicorn.Config(
        app,
        interface="asgi3",
        port=0,
        http=cast("Any", made.connections),
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=1,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.001)
    made.server = server
    made.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.should_exit = server.force_exit = True
        await running
        while connections := server.server_state.connections:
            for connection in connections:
                connection.transport.abort()
            await asyncio.sleep(0.001)


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    told = json.loads(body)
    assert int(head.split()[1]) == told["status"]
    return told["status"], told["code"]


def head_of(size: int) -> bytes:
    """A head whose target and headers have so many bytes by our count."""
    fixed = len("/") + len("host") + len("x") + 4 + len("filler") + 4
    return b"GET / HTTP/1.1\r\nHost: x\r\nFiller: " + b"f" * (size - fixed) + b"\r\n\r\n"
