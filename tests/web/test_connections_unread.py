"""Requests behind answers that the client does not read: they are not begun, and not lost."""

import asyncio

import pytest

from rookery.web.connections import BoundedProtocol
from tests.web.listening import GET, Server

SOME = GET.replace(b"GET /", b"GET /some")
MANY = 200


async def until_it_waits(server: Server) -> BoundedProtocol:
    """Until a request waits for the client to read, on the only connection, and nothing is under way."""
    async with asyncio.timeout(20):
        while True:
            for connection in server.server.server_state.connections:
                assert isinstance(connection, BoundedProtocol)
                is_idle = not server.server.server_state.tasks
                if connection.flow.write_paused and connection.pipeline and is_idle:
                    return connection
            await asyncio.sleep(0.001)


async def read_all(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 30)


async def pipelining(server: Server, last: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that sends many requests, and then this, and reads nothing yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(SOME * MANY + last)
    return reader, writer


async def test_a_request_is_not_begun_before_the_answers_before_it_are_read(server: Server) -> None:
    """Else it would hold one of the places that all share, for as long as its client likes."""
    reader, writer = await pipelining(server, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await until_it_waits(server)
    asked = len(server.asked)
    assert asked < MANY
    assert (await server.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).endswith(b"xx")
    assert len(server.asked) == asked + 1
    assert (await read_all(reader)).count(b"HTTP/1.1 200 OK") == MANY + 1
    writer.close()


async def test_a_client_that_sends_no_more_reads_all_answers_later(server: Server) -> None:
    reader, writer = await pipelining(server)
    await until_it_waits(server)
    writer.write_eof()
    assert (await read_all(reader)).count(b"HTTP/1.1 200 OK") == MANY
    writer.close()


async def test_a_body_that_waits_to_be_begun_is_taken_then(server: Server) -> None:
    body = b"b" * 60_000
    post = b"POST /one HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n" + body
    reader, writer = await pipelining(server, post)
    await until_it_waits(server)
    assert (await read_all(reader)).count(b"HTTP/1.1 200 OK") == MANY + 1
    assert server.asked[-1] == ("/one", body)
    writer.close()


@pytest.mark.parametrize("is_read", [True, False])
async def test_a_server_that_stops_answers_what_waits_if_it_is_read(server: Server, is_read: bool) -> None:
    reader, writer = await pipelining(server)
    connection = await until_it_waits(server)
    connection.shutdown()
    if is_read:
        answers = (await read_all(reader)).count(b"HTTP/1.1 200 OK")
        assert answers == len(server.asked)
    writer.transport.abort()
    async with asyncio.timeout(20):
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)
    assert not server.server.server_state.tasks
    assert server.held_bytes() == 0


async def test_a_client_that_goes_instead_leaves_nothing(server: Server) -> None:
    _, writer = await pipelining(server)
    await until_it_waits(server)
    asked = len(server.asked)
    writer.transport.abort()
    async with asyncio.timeout(20):
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)
    assert len(server.asked) == asked
    assert server.held_bytes() == 0
