"""What a connection may do around its requests, on real sockets."""

import asyncio
import socket
from contextlib import suppress

import pytest

from rookery.web import connections, outward
from rookery.web.connections import MAX_HEAD_BYTES, MAX_HEADERS, SLICE_BYTES
from tests.web.listening import BIG, CLOSE, GET, Server, head_of, problem


async def test_requests_come_through(server: Server) -> None:
    post = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    answers = await server.send(post + GET, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert server.asked == [("/one", b"hello"), ("/", b""), ("/", b"")]


async def test_a_head_has_32_kib(server: Server) -> None:
    answer = await server.send(head_of(MAX_HEAD_BYTES))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert problem(await server.send(head_of(MAX_HEAD_BYTES + 1))) == (431, "head_too_large")
    assert len(server.asked) == 1
    assert server.refused() == {"head_too_large": 1}


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nA: " + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200_000,
    ],
)
async def test_a_head_without_end_is_cut_and_its_sender_learns_why(server: Server, endless: bytes) -> None:
    reader, writer = await server.connect()
    answer = asyncio.create_task(reader.read())
    sent = 0
    while sent < len(endless) and not answer.done():
        writer.write(endless[sent : sent + 20_000])
        await writer.drain()
        sent += 20_000
        await asyncio.sleep(0.001)
    assert sent < len(endless) / 2
    assert problem(await answer) == (431, "head_too_large")
    assert server.asked == []
    writer.close()


async def test_a_head_after_a_long_body_is_measured_alone(server: Server) -> None:
    body = b"b" * 60_000
    first = b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + body
    second = b"GET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answers = await server.send(first + second[:20], second[20:30], second[30:])
    assert answers.count(b"HTTP/1.1 200 OK") == 2


async def test_a_head_that_does_not_come_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    assert await server.send() == b"", "nothing began, so there is nothing to answer"
    assert await server.send(b"\r\n\r\n") == b""
    assert problem(await server.send(b"GET / HT")) == (408, "slow_head")
    assert problem(await server.send(b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"A: b\r\n")) == (408, "slow_head")
    assert server.asked == []
    assert server.refused() == {"slow_head": 2}


async def test_a_second_head_that_does_not_come_is_not_waited_for_either(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    for stalled in (b"GET /", b"\r\n"):
        answer = await server.send(GET, stalled)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.count(b"408 Request Timeout") == (stalled == b"GET /")


async def test_a_head_is_not_late_while_we_do_not_read_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    server.gate.clear()
    asking = asyncio.create_task(server.send(GET + GET + CLOSE[:20], CLOSE[20:]))
    await asyncio.sleep(0.15)  # the time that is measured
    server.gate.set()
    assert (await asking).count(b"HTTP/1.1 200 OK") == 3


async def test_a_late_head_behind_answers_that_were_quick_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    answer = await server.send(GET + GET + b"GET /third")
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert problem(answer.rpartition(b"xx")[2]) == (408, "slow_head")


async def test_a_slow_answer_is_waited_for_however_long(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    server.gate.clear()
    asking = asyncio.create_task(server.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")))
    await asyncio.sleep(0.15)  # the time that is measured
    server.gate.set()
    assert (await asking).startswith(b"HTTP/1.1 200 OK")


async def test_a_late_head_behind_an_answer_under_way_is_left_unanswered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    server.gate.clear()
    asking = asyncio.create_task(server.send(GET, b"GET /second"))
    await asyncio.sleep(0.15)  # the time that is measured
    server.gate.set()
    answer = await asking
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1") == 1


async def test_requests_of_one_segment_are_made_as_they_are_answered(server: Server) -> None:
    server.gate.clear()
    asking = asyncio.create_task(server.send(GET * 10_000 + CLOSE))
    async with asyncio.timeout(20):
        while not server.asked:
            await asyncio.sleep(0.001)
        (connection,) = server.server.server_state.connections
        await asyncio.sleep(0.05)  # for more to come
        assert len(connection.pipeline) <= SLICE_BYTES / len(GET)
        server.gate.set()
        assert (await asking).count(b"HTTP/1.1 200 OK") == 10_001
    assert len(server.asked) == 10_001


async def test_a_head_has_128_headers(server: Server) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%b\r\n"
    assert (await server.send(head % (b"a: b\r\n" * (MAX_HEADERS - 2)))).startswith(b"HTTP/1.1 200 OK")
    assert problem(await server.send(head % (b"a: b\r\n" * MAX_HEADERS))) == (431, "head_too_large")
    assert len(server.asked) == 1


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTPS/1.1\r\n\r\n"])
async def test_what_is_not_http_is_told_so(server: Server, garbage: bytes) -> None:
    assert problem(await server.send(garbage)) == (400, "malformed_request")
    assert server.asked == []


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("apart", [False, True])
async def test_an_offer_to_upgrade_is_passed_over_and_the_body_is_the_requests_own(server: Server, apart: bool) -> None:
    """Java's client and `curl --http2` make one. Else a body would be lost, or be taken for another request."""
    head = b"POST /one HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Content-Length: %d\r\n\r\n" % len(GET)
    chunked = b"POST /two HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    plain = b"GET /three HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    parts = [head, GET + chunked[:90], chunked[90:] + plain, CLOSE]
    answers = await server.send(*(parts if apart else [b"".join(parts)]))
    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert server.asked == [("/one", GET), ("/two", b"abc"), ("/three", b""), ("/", b"")]


async def test_thousands_of_offers_at_once_are_passed_over(server: Server) -> None:
    plain = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    answers = await server.send(plain * 1_500 + CLOSE)
    assert answers.count(b"HTTP/1.1 200 OK") == 1_501


async def test_a_tunnel_is_refused(server: Server) -> None:
    answer = await server.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n" + GET)
    assert problem(answer) == (400, "malformed_request")
    assert server.asked == []


@pytest.mark.parametrize(
    "around", [b"a: b\r\n", b"a: " + b"b" * 1_000_000, b"x" * 1_000_000], ids=["many", "long", "no"]
)
async def test_trailers_have_a_bound(server: Server, around: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    answer = await server.send(head, *[around[:50_000] * (1 + 50_000 // len(around))] * 12)
    assert answer == b"" or problem(answer)[0] in (400, 413)
    assert server.asked == []


async def test_chunk_extensions_have_a_bound(server: Server) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;"
    answer = await server.send(head, *[b"x" * 50_000] * 12)
    assert answer == b"" or problem(answer)[0] in (400, 413)
    assert server.asked == []


@pytest.mark.parametrize("bad", [b"GARBAGE\r\n\r\n", head_of(MAX_HEAD_BYTES + 1)], ids=["garbage", "long head"])
async def test_what_is_bad_behind_requests_does_not_take_their_answers(server: Server, bad: bytes) -> None:
    server.gate.clear()
    asking = asyncio.create_task(server.send(GET.replace(b"GET /", b"GET /one") + GET + bad + GET))
    while not server.asked:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)  # for what is bad to be seen
    server.gate.set()
    answer = await asking
    assert answer.count(b"HTTP/1.1") == answer.count(b"HTTP/1.1 200 OK") == 2
    assert b"connection: close" in answer.partition(b"xx")[2]
    assert server.asked == [("/one", b""), ("/", b"")]


@pytest.mark.parametrize("ending", [b"GARBAGE\r\n\r\n", b"", CLOSE], ids=["garbage", "kept", "close"])
async def test_a_connection_that_ends_does_not_wait_for_who_reads_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch, ending: bytes
) -> None:
    monkeypatch.setattr(outward, "UNREAD_SECONDS", 0.05)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    made = socket.create_connection(("127.0.0.1", server.port))
    made.setblocking(False)
    with made:
        made.sendall(GET.replace(b"GET /", b"GET /some") * 60 + ending)
        async with asyncio.timeout(10):
            while server.server.server_state.connections or not server.asked:
                await asyncio.sleep(0.01)


async def test_an_answer_that_nobody_reads_is_not_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "UNREAD_SECONDS", 0.05)
    reader, writer = await server.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(GET.replace(b"GET /", b"GET /big"))
    await asyncio.sleep(0.3)  # the time that is measured
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    read = b""
    with suppress(ConnectionError):
        while some := await asyncio.wait_for(reader.read(65_536), 20):
            read += some
    assert 0 < len(read) < BIG
    writer.close()


async def test_a_slow_reader_who_reads_gets_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outward, "UNREAD_SECONDS", 0.5)
    reader, writer = await server.connect()
    writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    read = 0
    while some := await asyncio.wait_for(reader.read(65_536), 20):
        read += len(some)
        await asyncio.sleep(0.002)  # a slow one
    assert read > BIG
    writer.close()
