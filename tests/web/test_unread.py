"""Answers that clients do not read: in memory once, with a bound together, and a least rate. On real sockets."""

import asyncio
import socket
from contextlib import suppress

import pytest

from rookery.web import connections, outward, unread
from rookery.web.unread import Unread
from tests.web.listening import BIG, BODIES, CLOSE, GET, Server


def connect(server: Server) -> socket.socket:
    """A client that takes little at a time."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.connect(("127.0.0.1", server.port))
    return made


def unread_bytes(server: Server) -> float:
    return next(one.value for one in server.connections.readings() if one.name == "answers_unread_bytes")  # type: ignore[return-value]


async def test_a_long_answer_comes_whole(server: Server) -> None:
    server.parts = BIG
    answer = await server.send(CLOSE.replace(b"GET /", b"GET /big"))
    assert len(answer.partition(b"\r\n\r\n")[2]) == BIG
    assert unread_bytes(server) == 0


async def test_a_body_that_many_are_sent_is_in_memory_once(server: Server) -> None:
    server.parts = BIG
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.sendall(GET.replace(b"GET /", b"GET /big"))
    await until_answered(server, 20)
    assert BIG < unread_bytes(server) < BIG + 20 * 4 * outward.PIECE_BYTES
    for client in clients:
        client.close()
    async with asyncio.timeout(20):
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)
    assert unread_bytes(server) == 0


async def test_past_the_bound_connections_are_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.parts = BIG
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", BIG + 100_000)
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.sendall(GET.replace(b"GET /", b"GET /big"))
    await until_answered(server, 20)
    async with asyncio.timeout(20):
        while len(server.server.server_state.connections) > 10:
            await asyncio.sleep(0.001)
    assert unread_bytes(server) <= unread.MAX_UNREAD_BYTES
    for client in clients:
        client.close()


async def test_a_client_that_trickles_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "UNREAD_SECONDS", 0.3)
    monkeypatch.setattr(outward, "LEAST_BYTES_PER_SECOND", 10_000_000)
    server.parts = BIG
    reader, writer = await server.connect()
    writer.write(CLOSE.replace(b"GET /", b"GET /big"))
    read = 0
    with suppress(ConnectionError):
        while some := await asyncio.wait_for(reader.read(4_096), 20):
            read += len(some)
            await asyncio.sleep(0.001)  # a slow one
    assert 0 < read < BIG
    writer.close()


async def test_a_server_that_stops_sends_the_rest(server: Server) -> None:
    server.parts = BIG
    reader, writer = await server.connect()
    writer.write(GET.replace(b"GET /", b"GET /big"))
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        server.server.should_exit = True
        while server.server.servers[0].is_serving():
            await asyncio.sleep(0.001)
        assert len(await reader.readexactly(BIG)) == BIG
        assert await reader.read() == b""
    writer.close()


class Held:
    """A connection by what it keeps."""

    def __init__(self, size: int, owner: str = "") -> None:
        self.size = size
        self.owner = owner
        self.shared: list[bytes] = []
        self.all_of_them = Unread()
        self.is_cut = False

    def kept(self) -> int:
        return self.size

    def bodies(self) -> list[bytes]:
        return self.shared

    def cut(self) -> None:
        self.is_cut = True
        for body in self.shared:
            self.all_of_them.unshare(body)
        self.shared = []


def test_those_with_most_are_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", 80)
    all_of_them, held = Unread(), [Held(size) for size in (10, 30, 20, 25)]
    for one in held:
        all_of_them.hold(one, one.size)
    assert [one.is_cut for one in held] == [False, True, False, False]


def test_a_body_that_one_connection_sends_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those with little beside it would be closed, and it would not."""
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", 100)
    all_of_them, held = Unread(), [Held(10), Held(5), Held(6)]
    common, its_own = b"c" * 40, b"o" * 50
    for one in held:
        one.all_of_them = all_of_them
        one.shared = [its_own if one is held[1] else common]
        all_of_them.share(one.shared[0])
    for one in held:
        all_of_them.hold(one, one.size)
    assert [one.is_cut for one in held] == [False, True, False]


def test_those_of_the_client_with_most_are_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else many small ones of one client would have the few others closed, who read something large."""
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", 80)
    all_of_them, other, many = Unread(), Held(20, "other"), [Held(8, "one") for _ in range(8)]
    for one in (other, *many):
        all_of_them.hold(one, one.size)
    assert not other.is_cut
    assert [one.is_cut for one in many].count(True) == 2


async def test_the_addresses_that_one_client_can_have_are_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "limited_as", lambda address: f"the network of {address}")
    reader, writer = await server.connect()
    writer.write(GET)
    await reader.readuntil(b"xx")
    (connection,) = server.server.server_state.connections
    assert connection._outward.owner == "the network of 127.0.0.1"
    writer.close()


async def test_one_client_with_bodies_of_its_own_is_closed_and_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, less = 300_000, 200_000
    monkeypatch.setitem(BODIES, "/page", b"p" * size)
    monkeypatch.setitem(BODIES, "/less", b"x" * less)
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", 20 * size)
    server.parts = size
    server.copies = True
    others = [connect(server) for _ in range(10)]
    for client in others:
        client.sendall(GET.replace(b"GET /", b"GET /less"))
    await until_answered(server, 10)
    attackers = [connect(server) for _ in range(40)]
    for client in attackers:
        client.sendall(GET.replace(b"GET /", b"GET /page"))
    await until_answered(server, 50)
    async with asyncio.timeout(20):
        while unread_bytes(server) > unread.MAX_UNREAD_BYTES:
            await asyncio.sleep(0.001)
    loop = asyncio.get_running_loop()
    for client in others:
        client.setblocking(False)
        answer = b""
        async with asyncio.timeout(20):
            while not answer.endswith(b"x" * less):
                some = await loop.sock_recv(client, 65_536)
                assert some, "it was closed"
                answer += some
    for client in (*others, *attackers):
        client.close()


async def until_answered(server: Server, many: int) -> None:
    async with asyncio.timeout(20):
        while len(server.asked) < many or server.server.server_state.tasks:
            await asyncio.sleep(0.001)


def test_what_was_read_since_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MAX_UNREAD_BYTES", 80)
    all_of_them, read, other = Unread(), Held(70), Held(20)
    all_of_them.hold(read, 70)
    read.size = 0
    all_of_them.hold(other, 20)
    assert not read.is_cut
    assert not other.is_cut
