"""No input that the limits admit is dear to read."""

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from time import thread_time

import msgspec
import pytest

from rookery.domain.cursors import read_cursor
from rookery.domain.errors import Failure
from rookery.domain.idempotency import once
from rookery.domain.ids import parse_id
from rookery.domain.text import clean_body, clean_display_name, clean_title
from rookery.domain.users import check_name, check_password
from rookery.web.api.shapes import PostTweet
from rookery.web.decoding import decode, read_query
from rookery.web.heads import check_head, is_canonical, origin_form
from rookery.web.origins import Addresses, check_host, check_origin, limited_as
from rookery.web.pages.front import prefers_json

pytestmark = pytest.mark.no_cover  # CPU time is measured

HEAD = 32_000
BODY = 64_000
MOST_SECONDS = 0.001
"""Of CPU, on a core that reads the reference in `REFERENCE_SECONDS`."""
REFERENCE_SECONDS = 0.00007
"""What it takes to decode 3,000 small numbers, measured on the machine of the figures in docs/performance.md."""

JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PROXIED = Addresses((ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8")))


def forwarded(value: str) -> Callable[[], object]:
    return lambda: PROXIED.client("127.0.0.1", {b"x-forwarded-for": value.encode()})


def origin(value: bytes, host: bytes = b"x") -> Callable[[], object]:
    return lambda: check_origin("POST", {b"origin": value, b"host": host}, frozenset())


def body(content: bytes, kind: str = JSON) -> Callable[[], object]:
    return lambda: decode(content[:BODY], kind, PostTweet)


def query(content: bytes) -> Callable[[], object]:
    return lambda: read_query(content[:HEAD], frozenset({"a"}), frozenset())


def texts(content: str) -> Callable[[], object]:
    """As long as is not refused for its length alone, and all that a body can hold."""

    def clean() -> None:
        for text in (content[:8_000], content[:BODY]):
            for read in (lambda text: clean_body(text, may_be_empty=True), clean_title, clean_display_name):
                with suppress(Failure):
                    read(text)

    return clean


HEADERS = {
    "Accept: commas": lambda: prefers_json("," * HEAD),
    "Accept: semicolons": lambda: prefers_json(";" * HEAD),
    "Accept: weights": lambda: prefers_json("a;q=1," * (HEAD // 6)),
    "Accept: one weight": lambda: prefers_json("a;q=" + "9" * HEAD),
    "Accept: blanks": lambda: prefers_json(" " * HEAD),
    "X-Forwarded-For: hops": forwarded(",".join(["10.0.0.1"] * (HEAD // 9))),
    "X-Forwarded-For: commas": forwarded("," * HEAD),
    "X-Forwarded-For: colons": forwarded(":" * HEAD),
    "X-Forwarded-For: digits": forwarded("1" * HEAD),
    "an address": lambda: limited_as("1" * HEAD),
    "Origin: a name": origin(b"http://" + b"a" * HEAD),
    "Origin: a port": origin(b"http://a:" + b"1" * HEAD),
    "Origin: brackets": origin(b"http://[" + b":" * HEAD + b"]"),
    "Origin: not ASCII": origin(b"http://" + b"\xc3" * HEAD),
    "Origin and Host: digits": origin(b"http://a", b"a:" + b"1" * HEAD),
    "Host: colons": lambda: check_host({b"host": b":" * HEAD}, frozenset()),
    "Content-Type: semicolons": lambda: decode(b"{}", JSON + ";" * HEAD, PostTweet),
    "Content-Type: charsets": lambda: decode(b"{}", JSON + ";charset=utf-8" * (HEAD // 14), PostTweet),
    "query: ampersands": query(b"&" * HEAD),
    "query: names": query(b"&".join(b"a%d=1" % number for number in range(4_000))),
    "query: percent": query(b"a=" + b"%" * HEAD),
    "query: percent encoding": query(b"a=" + b"%41" * HEAD),
    "Idempotency-Key: letters": lambda: once(b"", "a" * HEAD, b"", 0),
    "Idempotency-Key: not ASCII": lambda: once(b"", "\xe9" * HEAD, b"", 0),
    "many headers": lambda: check_head("1.1", [(b"x-%d" % number, b"," * 200) for number in range(128)]),
    "Transfer-Encoding: blanks": lambda: check_head("1.0", [(b"transfer-encoding", b" " * HEAD)]),
    "target: a host": lambda: origin_form(b"http://" + b"a" * HEAD, []),
    "target: brackets": lambda: origin_form(b"http://[" + b":" * HEAD + b"]/", []),
    "target: slashes": lambda: origin_form(b"/" * HEAD, []),
    "target: a long query": lambda: origin_form(b"/?" + b"%" * HEAD, []),
    "path: percent encoding": lambda: is_canonical(b"/" + b"%40" * (HEAD // 3)),
    "path: the longest that is routed": lambda: is_canonical(b"/" + b"%40" * 341),
    "path: slashes": lambda: is_canonical(b"/" * HEAD),
    "cursor": lambda: read_cursor("f", "A" * HEAD),
    "id": lambda: parse_id("0" * HEAD),
}
BODIES = {
    "JSON: nested arrays": body(b"[" * BODY),
    "JSON: nested objects": body(b'{"a":' * BODY),
    "JSON: many objects": body(b'{"body":[' + b"{}," * 20_000 + b"{}]}"),
    "JSON: many arrays": body(b'{"body":[' + b"[]," * 20_000 + b"[]]}"),
    "JSON: a list of objects": body(b"[" + b"{}," * 20_000 + b"{}]"),
    "JSON: many names": body(b"{" + b",".join(b'"k%d":1' % number for number in range(6_000)) + b"}"),
    "JSON: one name": body(b"{" + b",".join([b'"a":1'] * 9_000) + b"}"),
    "JSON: digits": body(b'{"body":' + b"9" * 60_000 + b"}"),
    "JSON: an exponent": body(b'{"body":1e' + b"9" * 60_000 + b"}"),
    "JSON: escapes": body(b'{"body":"' + b"\\u0301" * 10_000 + b'"}'),
    "JSON: halves of pairs": body(b'{"body":"' + b"\\ud83d" * 10_000 + b'"}'),
    "JSON: blanks": body(b" " * BODY),
    "form: ampersands": body(b"&" * BODY, FORM),
    "form: signs of equality": body(b"body=" + b"=" * BODY, FORM),
    "form: percent": body(b"body=" + b"%" * BODY, FORM),
    "form: percent encoding": body(b"body=" + b"%41" * BODY, FORM),
    "form: marks": body(b"body=" + b"%cc%81" * BODY, FORM),
    "form: pluses": body(b"body=" + b"+" * BODY, FORM),
    "name": lambda: check_name("a" * BODY),
    "name of marks": lambda: check_name("\u0301" * BODY),
    "password": lambda: check_password("a" * BODY),
}
TEXTS = {
    "letters": texts("a" * BODY),
    "joined emoji": texts("👩\u200d" * BODY),
    "flags": texts("🇮🇪" * BODY),
    "marks": texts("e" + "\u0301" * BODY),
    "marks out of order": texts(("a" + "\u0300\u0315" * 100) * 400),
    "marks in short runs": texts("a\u0315\u0300\u05ae" * BODY),
    "line ends": texts("\r\n" * BODY),
    "jamo": texts("\u1100\u1161\u11a8" * BODY),
    "ligatures": texts("\ufdfa" * BODY),
    "controls of direction": texts("\u202e" * BODY),
}


def cost(act: Callable[[], object]) -> float:
    """CPU seconds of this thread, the least of five: what else runs on the core is not counted."""
    took = []
    for _ in range(5):
        begun = thread_time()
        with suppress(Failure):
            act()
        took.append(thread_time() - begun)
    return min(took)


@pytest.fixture(scope="module")
def slowness() -> float:
    """How many times slower this machine is than the one of the figures, never less than one."""
    numbers = msgspec.json.encode(list(range(3_000)))
    return max(1.0, cost(lambda: msgspec.json.decode(numbers)) / REFERENCE_SECONDS)


@pytest.mark.parametrize("name", HEADERS)
def test_no_part_of_a_head_costs_a_millisecond(name: str, slowness: float) -> None:
    assert cost(HEADERS[name]) < MOST_SECONDS * slowness


@pytest.mark.parametrize("name", BODIES)
def test_no_body_costs_two_milliseconds(name: str, slowness: float) -> None:
    assert cost(BODIES[name]) < 2 * MOST_SECONDS * slowness


@pytest.mark.parametrize("name", TEXTS)
def test_no_text_costs_ten_milliseconds(name: str, slowness: float) -> None:
    """Six texts of four scripts' worst: NFC and clusters of 8,000 code points are what a legal text costs, too."""
    assert cost(TEXTS[name]) < 10 * MOST_SECONDS * slowness
