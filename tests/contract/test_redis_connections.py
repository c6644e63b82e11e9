"""Connections to Redis that die while they are idle: they are replaced, and no command fails for them."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable

import pytest
from redis.exceptions import ConnectionError as Disconnected

from rookery.adapters.redis import servers
from rookery.adapters.redis.servers import Access, Server
from tests.contract.adapters.redis import redis_access
from tests.faults import listening

MANY = 500
"""Commands at once that need all connections: a hundred go on each."""


class Between:
    """A proxy whose connections can be reset or lost."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._clients: list[asyncio.StreamWriter] = []
        self._lost: set[asyncio.StreamWriter] = set()
        self._asked: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        """Connections that were asked something after they were lost."""

    @property
    def connections(self) -> int:
        """Connections so far."""
        return len(self._clients)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        from_server, to_server = await asyncio.open_connection(self._host, int(self._port))
        answering = asyncio.create_task(self._pass(from_server, writer, writer))
        try:
            await self._pass(reader, to_server, writer)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            to_server.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        while part := await reader.read(65_536):
            if client in self._lost:
                self._asked.put_nowait(client)
            else:
                writer.write(part)

    async def reset(self) -> None:
        """End all connections as a server does that is gone: with RST."""
        for client in self._clients:
            await _reset(client)
        for _ in range(10):  # turns of the loop in which the other ends, in the same one, learn of it
            await asyncio.sleep(0)

    async def reset_asked(self) -> None:
        """The same of the first connection that is asked something after it was lost."""
        await _reset(await self._asked.get())

    def lose(self) -> None:
        """Nothing goes through the connections any more, and nobody is told."""
        self._lost.update(self._clients)


async def _reset(client: asyncio.StreamWriter) -> None:
    end = client.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()
    await asyncio.wait([asyncio.ensure_future(client.wait_closed())])


@pytest.fixture
def between() -> Between:
    return Between(redis_access("redis").servers[0])


@pytest.fixture
async def server(between: Between) -> AsyncIterator[Server]:
    """A client of Redis with several idle connections."""
    async with listening(between.serve) as url:
        server = Server(url.removeprefix("http://"), Access([]), timeout=10)
        await ping(server)
        yield server
        await server.close()


async def ping(server: Server) -> None:
    """Fails if one command fails."""

    async def one() -> None:
        assert await server.ask(b"", "PING") == b"PONG"

    async def later(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
        await one()

    await asyncio.gather(*(later(number // 100) for number in range(MANY)))


async def test_connections_that_were_reset_are_replaced(between: Between, server: Server) -> None:
    before = between.connections
    assert before > 1
    await between.reset()
    await ping(server)
    assert between.connections > before


async def test_connections_that_were_lost_are_replaced(
    between: Between, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_IDLE_SECONDS", 0.0)
    before = between.connections
    between.lose()
    await ping(server)
    assert between.connections > before


async def test_once_one_is_lost_the_idle_ones_are_checked(between: Between, server: Server) -> None:
    """Though they answered less than a second ago: the command on the lost one fails, and no other."""
    between.lose()
    asked = server.ask(b"", "PING")
    await asyncio.gather(between.reset_asked(), expect_lost(asked))
    await ping(server)


async def expect_lost(asked: Awaitable[object]) -> None:
    with pytest.raises(Disconnected):
        await asked
