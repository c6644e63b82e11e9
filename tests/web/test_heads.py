"""Heads that could be read in two ways are refused, on a real socket; and each path has one form."""

import pytest

from rookery.web.heads import is_canonical
from tests.web.listening import problem, serving

HOST = b"Host: x\r\n"


async def told(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> tuple[int, str] | bytes:
    """What a head is told: status and code of a refusal, or the path that the application was asked for."""
    async with serving() as server:
        answer = await server.send(b"\r\n".join([start, *lines, b"Connection: close", b"", b""]))
        return server.asked[0][0].encode() if server.asked else problem(answer)


@pytest.mark.parametrize("name", [b"Authorization", b"Origin", b"Idempotency-Key"])
async def test_a_header_that_decides_comes_once(name: bytes) -> None:
    assert await told(b"Host: x", name + b": a") == b"/"
    for second in (b": a", b": b", b":"):
        assert await told(b"Host: x", name + b": a", name.lower() + second) == (400, "doubled_header")


async def test_http_1_1_has_one_host() -> None:
    assert await told() == (400, "host_header")
    assert await told(b"Host: x", b"Host: x") == (400, "host_header")
    assert await told(b"Host: x", b"host: y") == (400, "host_header")
    assert await told(start=b"GET / HTTP/1.0") == b"/"
    assert await told(b"Host: x", b"Host: x", start=b"GET / HTTP/1.0") == (400, "host_header")


@pytest.mark.parametrize("version", [b"0.9", b"1.2", b"2.0", b"3.0"])
async def test_other_versions_are_not_spoken(version: bytes) -> None:
    assert await told(b"Host: x", start=b"GET / HTTP/" + version) == (505, "http_version")


@pytest.mark.parametrize(
    "coding",
    [b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"xchunked", b"chunked;q=1", b""],
)
async def test_no_transfer_coding_but_chunked_is_known(coding: bytes) -> None:
    head = b"POST / HTTP/1.1"
    assert await told(b"Host: x", b"Transfer-Encoding: " + coding, start=head) == (501, "transfer_coding")
    doubled = (b"Transfer-Encoding: chunked", b"Transfer-Encoding: " + coding)
    assert await told(b"Host: x", *doubled, start=head) == (501, "transfer_coding")


async def test_chunked_is_known_in_any_case() -> None:
    async with serving() as server:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n"
        assert (await server.send(head + b"3\r\nabc\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert server.asked == [("/", b"abc")]


async def hosts_of(target: bytes) -> list[bytes]:
    """The hosts by which the application was asked, with `Host: x` sent."""
    async with serving() as server:
        await server.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return [value for headers in server.heads for name, value in headers if name == b"host"]


async def test_a_whole_url_goes_by_its_own_host() -> None:
    assert await hosts_of(b"/top") == [b"x"]
    assert await hosts_of(b"http://other.example:8080/top") == [b"other.example:8080"]
    assert await hosts_of(b"HTTPS://other.example?limit=1") == [b"other.example"]
    for target in (b"ftp://other.example/", b"http:///top", b"http://user@other.example/", b"javascript://x/"):
        assert await told(b"Host: x", start=b"GET " + target + b" HTTP/1.1") == (400, "malformed_request")


@pytest.mark.parametrize(
    "path",
    [b"/", b"/top", b"/top/", b"/user/@ada", b"/user/%40ada", b"/api/v1/", b"/%C3%A9", b"/a.b", b"/.well-known/x"],
)
def test_these_paths_are_in_their_one_form(path: bytes) -> None:
    assert is_canonical(path)


@pytest.mark.parametrize(
    "path",
    [
        *(b"//top", b"/top//", b"/api//v1/top", b"/./top", b"/../top", b"/top/.", b"/top/..", b"/x/../top", b"/%2ftop"),
        *(b"/api%2Fv1/top", b"/%74op", b"/t%6fp", b"/t%6Fp", b"/%2e/top", b"/%2E%2e/top", b"/%30", b"/x%5f", b"/x%7e"),
        *(b"/%00", b"/%", b"/%4", b"/%zz", b"/" + b"x" * 512),
    ],
)
def test_these_are_other_forms_of_a_path_or_none(path: bytes) -> None:
    assert not is_canonical(path)


def test_every_escape_of_an_unreserved_character_is_another_form() -> None:
    for number in range(256):
        is_unreserved = chr(number).isascii() and (chr(number).isalnum() or chr(number) in "-._~")
        for escape in (b"%%%02x" % number, b"%%%02X" % number):
            assert is_canonical(b"/x" + escape) == (not is_unreserved and number not in (0, ord("/")))
