"""Servers that fail as told: a proxy that loses answers, and one that gives what a script says."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[str]:
    """A listening socket whose connections are handled so; gives its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away, which it may
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Proxy:
    """Stands between client and server. It passes all on but the first `losing` answers: of these it takes the first
    bytes, so that the request has had its effect, and ends the connection."""

    def __init__(self, port: int, losing: int) -> None:
        self._port = port
        self.losing = losing
        self.connections = 0
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Proxy"]:
        async with listening(self._serve) as self.url:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        passing = asyncio.create_task(self._pass(reader, to_server))
        try:
            while answer := await from_server.read(65_536):
                if self.losing:
                    self.losing -= 1
                    return
                writer.write(answer)
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
            to_server.close()

    async def _pass(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while request := await reader.read(65_536):
            to_server.write(request)
        to_server.write_eof()


class Asked(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """A server that gives these answers in turn, whatever it is asked, and then goes silent."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.asked: list[Asked] = []
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Scripted"]:
        async with listening(self._serve) as self.url:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            line, *lines = head.strip().split("\r\n")
            headers = dict(each.lower().split(": ", 1) for each in lines)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.asked.append(Asked(line, headers, body))
            if not self._answers:
                await asyncio.Event().wait()
            writer.write(self._answers.pop(0))


def answer(status: int, body: object = None, content_type: str = "application/json", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Told", f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def problem(status: int, code: str, **headers: str) -> bytes:
    return answer(
        status, {"code": code, "detail": "It is so.", "status": status}, "application/problem+json", **headers
    )


OK = answer(200, [])
