"""Clients that go while they are answered: what reads for them ends, and what writes goes on. On real sockets."""

import asyncio
import socket
import struct

import pytest

from rookery.web import connections
from tests.web.listening import BIG, CLOSE, GET, Server

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


async def until_asked(server: Server, many: int = 1) -> None:
    async with asyncio.timeout(10):
        while len(server.asked) < many:
            await asyncio.sleep(0.001)


async def until_closed(server: Server) -> None:
    async with asyncio.timeout(10):
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
async def test_what_reads_for_a_client_that_is_gone_is_given_up(
    server: Server, version: bytes, method: bytes, is_reset: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server.gate.clear()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(GET.replace(b"GET", method).replace(b"1.1", version))
        await until_asked(server)
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await until_closed(server)
    async with asyncio.timeout(10):
        while server.server.server_state.tasks:
            await asyncio.sleep(0.001)
    assert server.cancelled == [method.decode()]
    assert not caplog.records


async def test_what_waits_behind_it_is_not_begun(server: Server) -> None:
    server.gate.clear()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(GET)
        await until_asked(server)
    await until_closed(server)
    assert len(server.asked) == 1


async def test_what_writes_is_never_given_up(server: Server) -> None:
    server.gate.clear()
    for is_reset in (True, False):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(POST)
            await until_asked(server, 2 - is_reset)
            if is_reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await asyncio.sleep(0.2)  # time in which a read is given up
    assert len(server.server.server_state.tasks) == 2
    server.gate.set()
    async with asyncio.timeout(10):
        while server.server.server_state.tasks:
            await asyncio.sleep(0.001)
    assert server.cancelled == []


@pytest.mark.parametrize("path", [b"/", b"/some", b"/big"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_a_client_that_only_sends_no_more_gets_its_answer(server: Server, method: bytes, path: bytes) -> None:
    """Its first bytes come early; then all is as it is for any other."""
    asked = CLOSE.replace(b"GET /", method + b" " + path)
    plain = await server.send(asked)
    server.gate.clear()
    reader, writer = await server.connect()
    writer.write(asked)
    writer.write_eof()
    await until_asked(server, 2)
    start = await asyncio.wait_for(reader.readexactly(9), 10)
    server.gate.set()
    assert start + await asyncio.wait_for(reader.read(), 20) == plain
    writer.close()
    assert server.cancelled == []


async def test_a_client_that_sends_no_more_after_a_part_of_its_answer_gets_the_rest(server: Server) -> None:
    server.parts = BIG
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_024)
    writer.write(GET.replace(b"GET /", b"GET /big"))
    await until_asked(server)
    async with asyncio.timeout(10):
        while server.server.server_state.tasks:  # all is given to be sent, and most of it waits for its reader
            await asyncio.sleep(0.001)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    assert len(answer.partition(b"\r\n\r\n")[2]) == BIG
    writer.close()


async def test_clients_that_nothing_is_read_from_are_looked_at_ever_more_rarely(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them, each looked at fifty times a second, would take the whole event loop."""
    pauses: list[float] = []
    look = connections.BoundedProtocol._look_whether_gone

    def look_noted(self: connections.BoundedProtocol, seconds: float) -> None:
        pauses.append(seconds)
        look(self, seconds)

    monkeypatch.setattr(connections.BoundedProtocol, "_look_whether_gone", look_noted)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(connections, "MOST_LOOK_SECONDS", 0.005)
    server.gate.clear()
    _, writer = await server.connect()
    writer.write(GET + GET)
    async with asyncio.timeout(20):
        while len(pauses) < 6:
            await asyncio.sleep(0.001)
    assert pauses[:6] == [0.001, 0.002, 0.004, 0.005, 0.005, 0.005]
    server.gate.set()
    await until_asked(server, 2)
    writer.close()


async def test_a_request_that_waits_for_its_reader_is_not_looked_at(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def look(_: object) -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(connections, "has_failed", look)
    server.parts = BIG
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1_024)
    writer.write(GET.replace(b"GET /", b"GET /big") + GET)
    await until_asked(server)
    async with asyncio.timeout(10):
        while server.server.server_state.tasks:
            await asyncio.sleep(0.001)
    await asyncio.sleep(10 * connections.LOOK_SECONDS)  # the time that is measured
    assert looks <= 1
    writer.close()


async def test_pipelined_requests_of_one_that_sends_no_more_are_answered(server: Server) -> None:
    server.gate.clear()
    reader, writer = await server.connect()
    writer.write(GET + GET)
    await until_asked(server)
    server.gate.set()
    writer.write(POST)
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 10)).count(b"HTTP/1.1 200 OK") == 3
    writer.close()


@pytest.mark.parametrize("behind", [GET, GET[:-2], GET + b"x" * 20])
async def test_another_request_behind_it_does_not_hide_that_the_client_is_gone(server: Server, behind: bytes) -> None:
    server.gate.clear()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(GET + behind)
        await until_asked(server)
    await until_closed(server)
    async with asyncio.timeout(10):
        while server.server.server_state.tasks:
            await asyncio.sleep(0.001)
    assert server.cancelled == ["GET"]
    assert len(server.asked) == 1
