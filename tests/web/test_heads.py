"""What a head may say: servers and proxies read it in one way, or it is refused. On real sockets."""

import gc
import tracemalloc
from typing import Any
from urllib.parse import unquote

import pytest

from rookery.web.heads import MAX_PATH_BYTES, is_canonical
from tests.web.listening import Server, problem
from tests.web.site import Site

CLOSED = b"Host: x\r\nConnection: close\r\n"


REFUSED: list[tuple[bytes, tuple[int, str]]] = [
    (b"GET / HTTP/1.1\r\n\r\n", (400, "missing_host")),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", (400, "duplicate_header")),
    (b"GET / HTTP/1.0\r\nHost: x\r\nhost: y\r\n\r\n", (400, "duplicate_header")),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", (400, "missing_host")),
    *[
        (b"GET / HTTP/1.1\r\nHost: x\r\n%b: a\r\n%b: a\r\n\r\n" % (name, name.lower()), (400, "duplicate_header"))
        for name in (b"Authorization", b"Origin", b"Idempotency-Key")
    ],
    *[
        (b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version, (505, "http_version"))
        for version in (b"0.9", b"1.2", b"2.0", b"3.0")
    ],
    (b"GET /\r\n\r\n", (505, "http_version")),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "http_version")),
    *[
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %b\r\n\r\n0\r\n\r\n" % coding, (501, "transfer_coding"))
        for coding in (
            *(b"gzip", b"gzip, chunked", b"chunked, gzip", b"identity", b"xchunked", b"chunked;a=b"),
            b"chunked\r\nTransfer-Encoding: chunked",
            b"gzip\r\nTransfer-Encoding: chunked",
        )
    ],
    *[
        (b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target, (400, "malformed_request"))
        for target in (b"http://u@a/", b"http://:80/", b"http:///", b"ftp://a/", b"/#a", b"http://a#b")
    ],
]
"""Heads that can be read in two ways, and what is answered."""


@pytest.mark.parametrize(("head", "told"), REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused(server: Server, head: bytes, told: tuple[int, str]) -> None:
    assert problem(await server.send(head)) == told
    assert server.asked == []
    assert server.refused() == {told[1]: 1}


@pytest.mark.parametrize("head", [head for head, _ in REFUSED])
async def test_refused_heads_do_not_pile_up_in_memory(server: Server, head: bytes) -> None:
    """With an error that is raised again and again, or is a key, each left seventy kilobytes behind for ever."""
    long = head.replace(b"\r\n", b"\r\nFiller: " + b"f" * 30_000 + b"\r\n", 1)
    await server.send(long)
    tracemalloc.start()
    try:
        for _ in range(8):
            await server.send(long)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 150_000


async def test_what_can_be_read_in_one_way_is_answered(server: Server) -> None:
    for head in (
        b"GET / HTTP/1.1\r\n" + CLOSED + b"\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + CLOSED + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + CLOSED + b"Accept: a\r\nAccept: b\r\n\r\n",
    ):
        assert (await server.send(head)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        (b"http://other:80/one?x=1", "/one", b"other:80"),
        (b"HTTPS://other/one", "/one", b"other"),
        (b"http://[::1]:80/one", "/one", b"[::1]:80"),
        (b"http://other", "/", b"other"),
        (b"http://other?x=/one", "/", b"other"),
    ],
)
async def test_an_absolute_target_goes_by_its_host(server: Server, target: bytes, path: str, host: bytes) -> None:
    assert (await server.send(b"GET %b HTTP/1.1\r\n" % target + CLOSED + b"\r\n")).startswith(b"HTTP/1.1 200 OK")
    assert server.asked == [(path, b"")]
    assert server.hosts == [[host]]


@pytest.mark.parametrize(
    "path",
    ["/", "/top", "/feed/@ada", "/feed/%40ada", "/api/v1/user", "/tweet/%C3%A9", "/" + "x" * (MAX_PATH_BYTES - 1)],
)
def test_a_path_in_its_only_form_is_canonical(path: str) -> None:
    assert is_canonical(path.encode())


OTHER_FORMS = [
    *("/top//", "//top", "/api//v1/top", "/./top", "/x/../top", "/%74op", "/to%70", "/api%2fv1/top", "/api%2Fv1/top"),
    *("/%2e/top", "/x/%2E%2e/top", "/%2ftop", "/top%2f", "/top%5c", "/feed/@%61da", "/feed/@ada//", "//", "/livez//"),
    *("/top/.", "/api/v1/%74op"),
]


@pytest.mark.parametrize("path", [*OTHER_FORMS, "", "*", "/%", "/%4", "/%4x", "/top\\", "/" + "x" * MAX_PATH_BYTES])
def test_a_path_in_another_form_is_not(path: str) -> None:
    assert not is_canonical(path.encode())


async def test_another_form_of_a_path_is_no_way_around_a_proxys_rules(site: Site) -> None:
    await site.register("ada")
    for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
        for path in OTHER_FORMS:
            assert await _status(site, method, path) == 404, (method, path)
    for path in ("/feed/%40ada", "/api/v1", "/api/v1/"):
        assert await _status(site, "GET", path) == 200, path


async def _status(site: Site, method: str, path: str) -> int:
    """Of the answer to exactly this path: a client would take dots out."""
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    scope: Any = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode()}
    scope |= {
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    await site.app(scope | {"scheme": "http", "server": ("127.0.0.1", 1), "root_path": ""}, receive, send)
    return statuses[0]


async def test_paths_do_not_pile_up_in_memory(site: Site) -> None:
    """The router keeps a thousand answers to where a path leads, with the path."""
    await _status(site, "GET", "/feed/@first")
    tracemalloc.start()
    try:
        for number in range(2_000):
            long = f"/feed/@{number:05}" + "x" * 30_000
            assert await _status(site, "GET", long) == 404
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5_000_000
