"""Head and body of an answer go out together: a server that is killed leaves all of it or nothing. On real sockets."""

import asyncio
from typing import Any

import pytest

from rookery.web import connections, outward
from tests.web.listening import BIG, CLOSE, GET, Server

HEAD = GET.replace(b"GET", b"HEAD")


class Noting:
    """A transport that notes what is given to the system at once."""

    def __init__(self, real: asyncio.Transport, written: list[bytes]) -> None:
        self._real = real
        self._written = written

    def write(self, data: bytes) -> None:
        assert type(data) is bytes, "a view of a part would keep all of it for as long as the transport keeps the part"
        self._written.append(data)
        self._real.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What servers write from now on, each time."""
    noted: list[bytes] = []
    inner = connections.BoundedProtocol.connection_made

    def connection_made(self: connections.BoundedProtocol, transport: Any) -> None:
        inner(self, Noting(transport, noted))  # type: ignore[arg-type] # it is one but for its class

    monkeypatch.setattr(connections.BoundedProtocol, "connection_made", connection_made)
    return noted


async def test_head_and_body_are_one_write(server: Server, written: list[bytes]) -> None:
    await server.send(GET + GET + CLOSE)
    assert [(one[:15], one[-4:]) for one in written] == [(b"HTTP/1.1 200 OK", b"\r\nxx")] * 3


async def test_a_long_body_is_given_in_pieces_of_its_own(server: Server, written: list[bytes]) -> None:
    server.parts = BIG
    await server.send(CLOSE.replace(b"GET /", b"GET /big"))
    assert max(map(len, written)) < 2 * outward.PIECE_BYTES
    assert sum(map(len, written)) > BIG


async def test_a_head_does_not_wait_for_a_body_that_takes_its_time(server: Server, written: list[bytes]) -> None:
    server.gap.clear()
    reader, writer = await server.connect()
    writer.write(GET)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    server.gap.set()
    assert (head[:15], await reader.readexactly(2)) == (b"HTTP/1.1 200 OK", b"xx")
    assert written == [head, b"xx"]
    writer.close()


async def test_a_head_whose_body_fails_goes_out_before_the_end(server: Server, written: list[bytes]) -> None:
    server.fails = True
    answer = await server.send(GET)
    assert answer.endswith(b"\r\n\r\n")
    assert written == [answer]


async def test_an_answer_without_a_body_comes_before_what_is_said_after_it(server: Server) -> None:
    asked = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    reader, writer = await server.connect()
    writer.write(HEAD + asked)
    told = [await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) for _ in range(2)]
    writer.write(b"hello")
    told += [await asyncio.wait_for(reader.read(), 10)]
    assert [one[9:12] for one in told] == [b"200", b"100", b"200"]
    writer.close()


async def test_nothing_of_an_answer_is_kept_for_who_is_gone(
    server: Server, written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that fails then has its connection closed, which is closed already: no timer may hold it."""
    server.gap.clear()
    server.fails = True
    _, writer = await server.connect()
    writer.write(GET)
    async with asyncio.timeout(10):
        while not written:
            await asyncio.sleep(0.001)
        (connection,) = server.server.server_state.connections
        connection.transport.abort()
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)
        server.gap.set()
        while server.server.server_state.tasks:
            await asyncio.sleep(0.001)
    assert connection._outward._unread_timer is None
    writer.close()
