"""Who takes his time is cut within ten seconds, and others go on."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest

from tests.serving import Server
from tests.system.haproxy.asking import client_of, trusting
from tools.certificates import Authority
from tools.servers import HAProxy

LONG = os.environ.get("TEST_LONG") == "1"
SLOW_SOCKETS = 5_000 if LONG else 100
FEW_SOCKETS = 20
CUT_SECONDS = 10.0
ANSWER_SECONDS = 5.0 if LONG else 2.0
_POST = b"POST /tweet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"


@dataclass(frozen=True, slots=True)
class Slow:
    """What a slow client sends at once, and again and again; without TLS it does not get as far as a request."""

    sent: bytes
    trickled: bytes = b"x"
    protocol: str = "http/1.1"
    encrypted: bool = True


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One of HTTP/2 (RFC 9113, section 4.1)."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b"")
# The table of RFC 7541, appendix A: 2 is GET, 3 POST, 7 https; 1 is :authority, 4 :path, 28 content-length.
GET_2 = b"\x82\x87\x01\x09localhost\x04\x04/top"
POST_2 = b"\x83\x87\x01\x09localhost\x04\x06/tweet\x0f\x0d\x0560000"
BEGUN_POST = PREFACE + frame(HEADERS, END_HEADERS, 1, POST_2)
SLOW = {
    "head": Slow(b"GET /top HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
    "body": Slow(_POST),
    "rest of a body": Slow(_POST + b" " * 20_000),  # more than HAProxy waits for before it sends it on
}
SLOW_AT_HAPROXY = {
    "a head of HTTP 2": Slow(PREFACE + frame(HEADERS, 0, 1, GET_2), frame(CONTINUATION, 0, 1, b""), "h2"),
    "a body of HTTP 2": Slow(BEGUN_POST, frame(DATA, 0, 1, b"x"), "h2"),
    "the rest of one": Slow(BEGUN_POST + frame(DATA, 0, 1, b" " * 16_000) * 2, frame(DATA, 0, 1, b"x"), "h2"),
    "no request in HTTP 2": Slow(PREFACE, frame(PING, 0, 0, bytes(8)), "h2"),
    "nothing after an answer": Slow(PREFACE + frame(HEADERS, END_HEADERS | END_STREAM, 1, GET_2), b"", "h2"),
    "a handshake": Slow(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", encrypted=False),
    "no handshake": Slow(b"", b"", encrypted=False),
    "no request": Slow(b"", b""),
}


def speaking(authority: Authority, protocol: str) -> ssl.SSLContext:
    tls = trusting(authority)
    tls.set_alpn_protocols([protocol])
    return tls


async def lives(port: int, tls: ssl.SSLContext | None, slow: Slow, gate: asyncio.Semaphore) -> float:
    """How long one is let live, in seconds."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    begun = time.monotonic()
    trickling = asyncio.create_task(trickle(writer, slow))
    with suppress(ConnectionError, ssl.SSLError):
        while await reader.read(65_536):
            pass
    lived = time.monotonic() - begun
    trickling.cancel()
    writer.transport.abort()
    return lived


async def trickle(writer: asyncio.StreamWriter, slow: Slow) -> None:
    with suppress(ConnectionError):
        writer.write(slow.sent)
        while True:
            await writer.drain()
            await asyncio.sleep(0.5)
            writer.write(slow.trickled)


async def go_on(others: httpx.AsyncClient, slow: "asyncio.Future[list[float]]") -> None:
    """Ask while they are slow; each answer has its time."""
    answered = 0
    while not slow.done():
        assert (await others.get("/top")).status_code == 200
        answered += 1
        await asyncio.sleep(0.01)
    assert answered > 10


@pytest.fixture
async def others(proxy: HAProxy, authority: Authority) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(proxy, authority) as http:
        http.timeout = httpx.Timeout(ANSWER_SECONDS)
        yield http


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
async def test_slow_sockets_are_cut_at_haproxy_and_others_go_on(
    proxy: HAProxy, authority: Authority, others: httpx.AsyncClient, slow: Slow
) -> None:
    tls, gate = speaking(authority, slow.protocol), asyncio.Semaphore(200)
    lived = asyncio.gather(*(lives(proxy.tls_port, tls, slow, gate) for _ in range(SLOW_SOCKETS)))
    await go_on(others, lived)
    assert max(await lived) < CUT_SECONDS


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
async def test_slow_sockets_are_cut_at_rookery_itself_and_others_go_on(servers: list[Server], slow: Slow) -> None:
    gate = asyncio.Semaphore(200)
    lived = asyncio.gather(*(lives(servers[0].port, None, slow, gate) for _ in range(SLOW_SOCKETS)))
    async with httpx.AsyncClient(base_url=servers[0].url, timeout=ANSWER_SECONDS) as others:
        await go_on(others, lived)
    assert max(await lived) < CUT_SECONDS


async def test_haproxy_cuts_all_that_rookery_never_sees(
    proxy: HAProxy, authority: Authority, others: httpx.AsyncClient
) -> None:
    gate = asyncio.Semaphore(200)
    kinds = [kind for kind in SLOW_AT_HAPROXY for _ in range(FEW_SOCKETS)]
    all_slow = (SLOW_AT_HAPROXY[kind] for kind in kinds)
    all_tls = {protocol: speaking(authority, protocol) for protocol in ("http/1.1", "h2")}
    lived = asyncio.gather(
        *(lives(proxy.tls_port, all_tls[slow.protocol] if slow.encrypted else None, slow, gate) for slow in all_slow)
    )
    await go_on(others, lived)
    assert {kind: lived for kind, lived in zip(kinds, await lived, strict=True) if lived > CUT_SECONDS} == {}
