"""How long, and how much, a connection waits for bodies, on real sockets."""

import asyncio
from typing import Any

import pytest

from rookery.web import connections, outward
from rookery.web.connections import SLICE_BYTES
from rookery.web.decoding import MAX_BODY_BYTES
from tests.web.listening import CLOSE, GET, Server, problem


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("sent", [b"", b"9\r\nsome"])
async def test_a_body_that_does_not_come_is_not_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch, framing: bytes, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.05)
    answer = await server.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n", sent)
    assert problem(answer) == (408, "slow_body")
    assert server.asked == []
    assert server.refused() == {"slow_body": 1}


async def test_a_byte_now_and_then_gives_a_body_no_more_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
    answer = asyncio.create_task(reader.read())
    async with asyncio.timeout(10):
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
    assert problem(await answer) == (408, "slow_body")
    writer.close()


async def test_bodies_on_their_way_have_a_bound_together(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it, whoever keeps most is refused, and not who comes with little."""
    monkeypatch.setattr(connections, "MAX_HELD_BYTES", 105_000)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 60001\r\n\r\n"
    much, little = await server.connect(), await server.connect()
    async with asyncio.timeout(10):
        much[1].write(head + b"x" * 60_000)
        while server.held_bytes() < 60_000:
            await asyncio.sleep(0.001)
        little[1].write(head + b"x" * 35_000)
        while server.held_bytes() < 95_000:
            await asyncio.sleep(0.001)
    little[1].write(b"x" * 10_000)
    assert problem(await much[0].read()) == (503, "busy")
    assert server.refused() == {"busy": 1}
    little[1].write(b"x" * 15_001)
    assert (await little[0].read()).startswith(b"HTTP/1.1 200 OK")
    assert server.held_bytes() == 0
    for _, writer in (much, little):
        writer.close()


async def test_a_server_that_stops_waits_for_a_body(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    async with asyncio.timeout(10):
        while not server.held_bytes():
            await asyncio.sleep(0.001)
    server.server.should_exit = True
    while server.server.servers[0].is_serving():
        await asyncio.sleep(0.001)
    writer.write(b"llo")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    writer.close()


@pytest.mark.parametrize("length", [b"0" * 5_000 + b"5", b"0000000005", b"5" + b" " * 20])
async def test_a_length_is_what_it_says_however_it_is_written(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, length: bytes
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %b\r\n\r\n" % length
    assert (await server.send(head, b"hello")).startswith(b"HTTP/1.1 200 OK")
    assert problem(await server.send(head, b"he")) == (408, "slow_body")
    assert server.asked == [("/", b"hello")]
    assert caplog.records == []


async def test_an_application_that_waits_for_a_body_that_is_too_long_does_not_wait_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1%b\r\n\r\n"
    for zeros in (b"0" * 6, b"0" * 15):
        assert problem(await server.send(head % zeros, b"he")) == (408, "slow_body")
    assert server.asked == []
    assert server.refused() == {"slow_body": 2}


async def test_who_may_not_send_a_long_body_has_no_next_request_taken_for_it(server: Server) -> None:
    server.reads = False
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n"
    answer = await server.send(head)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer


async def test_a_body_behind_an_answer_under_way_counts_with_all(server: Server) -> None:
    server.gate.clear()
    head = b"POST /one HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3000\r\n\r\n"
    reader, writer = await server.connect()
    writer.write(GET + head + b"x" * 2_000)
    async with asyncio.timeout(10):
        while not server.held_bytes():
            await asyncio.sleep(0.001)
    assert 2_000 < server.held_bytes() < 6_000, "and what a request costs besides"
    server.gate.set()
    writer.write(b"x" * 1_000)
    assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
    assert server.held_bytes() == 0
    writer.close()


async def test_a_body_behind_an_answer_under_way_has_its_time_from_then(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.2)
    head = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    server.gate.clear()
    reader, writer = await server.connect()
    writer.write(GET + head % b"one" + b"he")
    await asyncio.sleep(0.3)  # the time that is measured
    server.gate.set()
    await reader.readuntil(b"\r\n\r\nxx")
    writer.write(b"llo" + head % b"two" + b"he")
    answers = await asyncio.wait_for(reader.read(), 20)
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert problem(answers.partition(b"xx")[2]) == (408, "slow_body")
    assert server.asked == [("/", b""), ("/one", b"hello")]
    writer.close()


async def test_who_waits_to_be_told_to_send_his_body_is_told(server: Server) -> None:
    reader, writer = await server.connect()
    head = b"POST /%b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    for path in (b"one", b"two"):
        writer.write(head % path)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200 OK")
    writer.write((head % b"three" + b"hello").replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n"))
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK"), "nobody waited here"
    assert server.asked == [("/one", b"hello"), ("/two", b"hello"), ("/three", b"hello")]
    writer.close()


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("body", [b"", b"some", b"much" * 5_000])
async def test_the_application_need_not_wait_for_a_body_that_says_it_is_too_long(
    server: Server, expect: bytes, body: bytes
) -> None:
    """It refuses by the head alone, and the sender, who need not send it all, learns why."""
    server.reads = False
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + expect + b"Content-Length: %d\r\n\r\n"
    for before in (b"", GET):
        answer = await server.send(before + head % (MAX_BODY_BYTES + 1) + body)
        assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200 OK") == (2 if before else 1)


@pytest.mark.parametrize("before", [b"", GET], ids=["first", "behind"])
async def test_the_application_is_asked_as_soon_as_a_body_in_chunks_is_too_long(server: Server, before: bytes) -> None:
    server.reads = False
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.gate.clear()
    answer = asyncio.create_task(server.send(before + head + b"10001\r\n" + b"x" * (MAX_BODY_BYTES + 1)))
    async with asyncio.timeout(10):
        while not server.asked:
            await asyncio.sleep(0.001)
    server.gate.set()
    assert (await answer).count(b"HTTP/1.1 200 OK") == (2 if before else 1)


async def test_what_is_too_long_is_not_held_when_it_was_answered(server: Server) -> None:
    server.reads = False
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + b"x" * 0x20000)
    assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200 OK")
    async with asyncio.timeout(10):
        while server.held_bytes():
            await asyncio.sleep(0.001)
    writer.write(b"\r\n0\r\n\r\n" + CLOSE)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_who_goes_before_his_body_is_there_leaves_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.2)
    _, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    async with asyncio.timeout(10):
        while not server.held_bytes():
            await asyncio.sleep(0.001)
        writer.close()
        while server.held_bytes():
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.3)  # the time that is measured
    assert (server.asked, server.refused()) == ([], {"incomplete_body": 1})


async def test_a_body_in_chunks_of_a_byte_comes_through_and_trailers_are_dropped(server: Server) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await server.send(head + b"1\r\nx\r\n" * 65_536 + b"0\r\nTrailer: t\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert server.asked == [("/", b"x" * 65_536)]


async def test_a_body_that_is_no_body_is_told_so(server: Server) -> None:
    answer = await server.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"nonsense\r\n")
    assert problem(answer) == (400, "malformed_request")


async def test_a_body_that_nobody_asked_for_is_not_kept(server: Server) -> None:
    server.reads = False
    reader, writer = await server.connect()
    for head in (b"Content-Length: 65536\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n10000\r\n"):
        end = b"" if b"Length" in head else b"\r\n0\r\n\r\n"
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + b"x" * 65_536 + end)
        assert (await reader.readuntil(b"\r\n\r\nxx")).startswith(b"HTTP/1.1 200 OK")
        (connection,) = server.server.server_state.connections
        assert (len(connection.cycle.body), server.held_bytes()) == (0, 0)
    writer.close()


async def test_of_a_body_that_is_too_long_no_more_is_kept_than_shows_it(server: Server) -> None:
    server.gate.clear()
    server.reads = False
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n80000\r\n" + b"x" * 0x80000)
    async with asyncio.timeout(10):
        while not server.asked:
            await asyncio.sleep(0.001)
        (connection,) = server.server.server_state.connections
        assert MAX_BODY_BYTES < len(connection.cycle.body) <= MAX_BODY_BYTES + SLICE_BYTES
        server.gate.set()
        writer.write(b"\r\n0\r\n\r\n" + CLOSE)
        assert (await reader.read()).count(b"HTTP/1.1 200 OK") == 2
    writer.close()


async def test_who_is_with_the_application_is_not_refused_to_make_room(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_HELD_BYTES", 40_000)
    server.gate.clear()
    head = b"POST /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    one, other = await server.connect(), await server.connect()
    one[1].write(head % (b"one", 60_000) + b"x" * 20_000)
    async with asyncio.timeout(10):
        while not server.held_bytes():
            await asyncio.sleep(0.001)
        monkeypatch.setattr(connections, "MAX_HELD_BYTES", 100_000)
        one[1].write(b"x" * 40_000)
        while not server.asked:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(connections, "MAX_HELD_BYTES", 40_000)
        other[1].write(head % (b"other", 60_000) + b"x" * 50_000)
        assert problem(await other[0].read()) == (503, "busy")
        server.gate.set()
        assert (await one[0].read()).startswith(b"HTTP/1.1 200 OK")
    for _, writer in (one, other):
        writer.close()


def holding(server: Server) -> list[Any]:
    """The connections that wait for the rest of a body."""
    return [connection for connection in server.server.server_state.connections if connection._held]


async def test_room_is_made_for_many_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2000\r\n\r\n"
    many = [await server.connect() for _ in range(41)]
    async with asyncio.timeout(10):
        for _, writer in many[:40]:
            writer.write(head + b"x" * 1_000)
        while sum(len(connection._held[0].body) for connection in holding(server)) < 40_000:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(connections, "MAX_HELD_BYTES", server.held_bytes())
        many[40][1].write(head + b"x" * 1_000)
        while not server.refused():
            await asyncio.sleep(0.001)
        assert server.refused() == {"busy": 6}
        assert len(holding(server)) == 35
    for _, writer in many:
        writer.close()


async def test_who_still_sends_learns_why_he_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)
    reader, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
    for _ in range(50):  # he looks for an answer when all is sent
        writer.write(b"x" * 500)
        await writer.drain()
        await asyncio.sleep(0.01)
    assert problem(await reader.read()) == (408, "slow_body")
    writer.close()


async def test_who_goes_on_sending_is_not_listened_to_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(outward, "LINGER_SECONDS", 0.1)
    _, writer = await server.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")

    async def go_on() -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(go_on(), 10)
    writer.close()
