"""How connections end: who still sends reads his answer, and nothing is left of them, on real sockets."""

import asyncio
import gc
import socket
import struct
import weakref

import pytest

from rookery.web import connections, outward
from rookery.web.connections import MAX_HEAD_BYTES, MAX_HEADERS
from tests.web.listening import CLOSE, GET, Server, head_of, problem

LONG_POST = b"Content-Length: 5\r\nFiller: " + b"f" * 30_000 + b"\r\n\r\n"
TINY = 140
"""Requests of 27 bytes that are parsed together, in one slice of 4 KiB."""
HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe"


@pytest.mark.parametrize(
    "sent",
    [b"", GET, GET + GET + b"GET /", HALF, GET + HALF, b"GARBAGE\r\n\r\n"],
    ids=["nothing", "a request", "some of a head", "some of a body", "both", "garbage"],
)
@pytest.mark.parametrize("aborted", [True, False])
async def test_one_that_is_closed_needs_no_garbage_collector(server: Server, sent: bytes, aborted: bool) -> None:
    """Thousands may come and go in a second, and what they sent would lie about until it runs."""
    gc.disable()
    try:
        _, writer = await server.connect()
        writer.write(sent)
        async with asyncio.timeout(10):
            while not (connections := server.server.server_state.connections):
                await asyncio.sleep(0.001)
            left = weakref.ref(next(iter(connections)))
            del connections
            while len(server.asked) < sent.count(b"GET / "):
                await asyncio.sleep(0.001)
            if aborted:
                linger = struct.pack("ii", 1, 0)  # a reset, not an end
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            writer.close()
            while left() is not None:
                await asyncio.sleep(0.001)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "bad",
    [
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n" + GET,
        head_of(MAX_HEAD_BYTES + 1) + GET,
    ],
    ids=["headers", "headers and more", "a long head and more"],
)
async def test_who_was_refused_and_does_not_go_is_gone_soon(
    server: Server, monkeypatch: pytest.MonkeyPatch, bad: bytes
) -> None:
    monkeypatch.setattr(outward, "LINGER_SECONDS", 0.05)
    reader, writer = await server.connect()
    writer.write(bad)
    assert problem(await reader.read()) == (431, "head_too_large")
    async with asyncio.timeout(10):
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)
    writer.close()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (head_of(MAX_HEAD_BYTES + 1), (431, "head_too_large")),
        (b"GET http://:x/ HTTP/1.1\r\nHost: x\r\n\r\n", (400, "malformed_request")),
        (b"GARBAGE\r\n\r\n", (400, "malformed_request")),
    ],
    ids=["a long head", "no address", "garbage"],
)
async def test_a_second_request_is_refused_as_a_first_one_is(server: Server, bad: bytes, told: tuple[int, str]) -> None:
    reader, writer = await server.connect()
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\nxx")
    writer.write(bad)
    assert problem(await reader.read()) == told
    assert server.refused() == {told[1]: 1}
    writer.close()


async def test_who_is_refused_to_make_room_has_nothing_wait_any_more(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gate.clear()
    tiny = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    connected = [await server.connect() for _ in range(4)]
    async with asyncio.timeout(20):
        for number, (_, writer) in enumerate(connected[:3]):
            writer.write(GET + tiny * TINY + (b"GARBAGE\r\n\r\n" if number == 0 else b""))  # the first has ended
            while server.held_bytes() < TINY * 2_000 * (number + 1):
                await asyncio.sleep(0.001)
        monkeypatch.setattr(connections, "MAX_HELD_BYTES", server.held_bytes())
        connected[3][1].write(GET + tiny * TINY)
        while server.held_bytes() > connections.MAX_HELD_BYTES or len(server.asked) < 4:
            await asyncio.sleep(0.001)
        waiting = [len(connection.pipeline) for connection in server.server.server_state.connections]
        assert sum(waiting) * 2_048 <= server.held_bytes() <= connections.MAX_HELD_BYTES
        assert 0 in waiting
        server.gate.set()
        counts = [0, 0, 0, 0]
        for number, (reader, writer) in enumerate(connected):
            writer.write_eof()
            counts[number] = (await reader.read()).count(b"HTTP/1.1 200 OK")
        assert min(counts) == 1, "what was begun is answered"
        assert server.held_bytes() == 0
    for _, writer in connected:
        writer.close()


async def test_a_server_that_stops_does_not_take_the_answer_from_who_still_sends(server: Server) -> None:
    server.reads = False
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 1_000_000)
    await writer.drain()
    async with asyncio.timeout(10):
        while not server.asked:
            await asyncio.sleep(0.001)
    server.server.should_exit = True
    while server.server.servers[0].is_serving():
        await asyncio.sleep(0.001)
    for _ in range(70):
        writer.write(b"x" * 100_000)
        await writer.drain()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


@pytest.mark.parametrize("kept", [b"", b"Connection: close\r\n"], ids=["kept", "close"])
async def test_who_sends_more_than_is_wanted_still_reads_the_answer(server: Server, kept: bytes) -> None:
    """He looks for it when all is sent, as most programs do, and a connection that is closed at once would be reset."""
    server.reads = False
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + kept + b"Content-Length: 8000000\r\n\r\n")
    for _ in range(80):
        writer.write(b"x" * 100_000)
        await writer.drain()
    assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200 OK")
    if kept:
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 70000", b"Transfer-Encoding: chunked"])
async def test_who_sends_the_rest_after_the_answer_is_kept_as_long_as_others(server: Server, framing: bytes) -> None:
    server.reads = False
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n11170\r\n"[: 4 if b"L" in framing else None])
    if b"chunked" in framing:
        writer.write(b"x" * 66_000)
    assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200 OK")
    writer.write(b"x" * 4_000 + b"\r\n0\r\n\r\n" if b"chunked" in framing else b"x" * 70_000)
    begun = asyncio.get_running_loop().time()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert asyncio.get_running_loop().time() - begun > 0.5, "the second that this server gives"
    writer.close()


@pytest.mark.parametrize("bad", [b"nonsense\r\n", b"1;" + b"x" * 600_000 + b"\r\n"], ids=["no chunk", "long chunk"])
async def test_no_request_has_two_answers(server: Server, bad: bytes) -> None:
    server.reads = False
    reader, writer = await server.connect()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"11170\r\n" + b"x" * 70_000 + b"\r\n")
    assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200 OK")
    writer.write(bad)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    assert server.refused() == {}
    writer.close()


async def test_what_lingers_does_not_hold_up_a_stop(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "LINGER_SECONDS", 600.0)
    reader, writer = await server.connect()
    writer.write(b"GARBAGE\r\n\r\n")
    assert problem(await reader.read()) == (400, "malformed_request")
    server.server.should_exit = True
    async with asyncio.timeout(10):
        while server.server.server_state.connections:
            await asyncio.sleep(0.001)
    writer.close()


async def test_requests_that_wait_count_for_what_they_cost(server: Server) -> None:
    server.gate.clear()
    tiny = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await server.connect()
    _, half_writer = await server.connect()
    async with asyncio.timeout(10):
        half_writer.write(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 100)
        while not 15_000 < server.held_bytes() < 25_000:
            await asyncio.sleep(0.001)
        half_writer.close()
        while server.held_bytes():
            await asyncio.sleep(0.001)
        writer.write(tiny * TINY + CLOSE)
        while not server.held_bytes() > TINY * 2_000:
            await asyncio.sleep(0.001)
        server.gate.set()
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == TINY + 1
        assert server.held_bytes() == 0
    writer.close()


async def test_a_server_that_stops_waits_for_the_rest_of_a_head(server: Server) -> None:
    fresh, kept = await server.connect(), await server.connect()
    kept[1].write(GET)
    await kept[0].readuntil(b"\r\n\r\nxx")
    for _, writer in (fresh, kept):
        writer.write(b"GET /late HTTP/1.1\r\nHo")
    async with asyncio.timeout(20):
        while sum(connection._in_head for connection in server.server.server_state.connections) < 2:
            await asyncio.sleep(0.001)
        server.server.should_exit = True
        while server.server.servers[0].is_serving():
            await asyncio.sleep(0.001)
        for reader, writer in (fresh, kept):
            writer.write(b"st: x\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in answer
            writer.close()


async def test_what_waits_behind_an_answer_that_nobody_reads_counts_with_all(server: Server) -> None:
    server.gate.clear()
    reader, writer = await server.connect()
    writer.write(GET * 2_000 + CLOSE)
    async with asyncio.timeout(20):
        while server.held_bytes() < len(GET) * 1_500:
            await asyncio.sleep(0.001)
        server.gate.set()
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2_001
        assert server.held_bytes() == 0
    writer.close()


async def test_who_sends_no_more_is_answered_and_closed(server: Server) -> None:
    post = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    server.gate.clear()
    reader, writer = await server.connect()
    writer.write(post + GET + b"GET /part")
    writer.write_eof()
    async with asyncio.timeout(10):
        while not server.asked:
            await asyncio.sleep(0.001)
        server.gate.set()
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
    assert server.asked == [("/one", b"hello"), ("/", b"")]
    writer.close()


@pytest.mark.parametrize("sent", [b"", GET, b"GET /part", HALF], ids=["nothing", "a request", "a head", "a body"])
async def test_who_sends_no_more_and_is_owed_nothing_is_closed(server: Server, sent: bytes) -> None:
    reader, writer = await server.connect()
    writer.write(sent)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.count(b"HTTP/1.1 200 OK") == sent.count(b"GET / ")
    assert server.refused() == ({"incomplete_body": 1} if sent == HALF else {})
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        GET + b"GET / HTTP/1.1\r\nHost: x\r\nFiller: " + b"f" * 30_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nUpgrade: x\r\nConnection: Upgrade\r\n" + LONG_POST,
        b"POST / HTTP/1.1\r\nHost: x\r\n" + LONG_POST,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: " + b"f" * 30_000,
    ],
    ids=["behind another", "with an offer", "before a body", "a trailer"],
)
async def test_all_that_is_kept_is_counted(server: Server, sent: bytes) -> None:
    server.gate.clear()
    _, writer = await server.connect()
    writer.write(sent)
    async with asyncio.timeout(10):
        while server.held_bytes() < 25_000:  # but for a slice, at most
            await asyncio.sleep(0.001)
    assert server.held_bytes() < 45_000
    writer.transport.abort()


async def test_a_trailer_has_the_bound_of_a_head(server: Server) -> None:
    begun = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\na: "
    assert problem(await server.send(begun + b"f" * 40_000)) == (413, "too_large")
