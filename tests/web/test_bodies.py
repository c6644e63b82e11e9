"""What a request's body may be: JSON or a form, read strictly. What is refused leaves no trace."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.web.site import FORM, JSON, Person, Site, done, listed, problem, refused, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST = 64 * 1024
TWEET = '{"user_name":"ada","body":"x"}'


class Writer:
    """Someone who sends bodies byte by byte as they are given."""

    def __init__(self, ada: Person) -> None:
        self.ada = ada
        self.site = ada.site

    async def sends(
        self, body: bytes | str, headers: Mapping[str, str] = JSON, path: str = "/tweet", method: str = "POST"
    ) -> httpx.Response:
        content = body if isinstance(body, bytes) else body.encode()
        return await self.site.ask(method, path, self.ada, headers=headers, content=content)

    async def is_told(self, body: bytes | str, headers: Mapping[str, str] = JSON, **more: str) -> tuple[int, str]:
        return said(await self.sends(body, headers, **more))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def writer(shared: Site) -> AsyncIterator[Writer]:
    yield Writer(await shared.register("ada"))


def padded(size: int) -> bytes:
    """A good JSON body of so many bytes."""
    return TWEET.encode() + b" " * (size - len(TWEET))


async def test_json_and_forms_are_read_alike(writer: Writer) -> None:
    as_json = await writer.sends('{"user_name": "ada", "body": "a b&c=d+e%", "title": "\\u00e9"}')
    as_form = await writer.sends("user_name=ada&body=a+b%26c%3Dd%2Be%25&title=%C3%A9", FORM)
    raw = await writer.sends("user_name=ada&body=a b%26c=d%2be%&title=\u00e9", FORM)
    for response in (as_json, as_form, raw):
        tweet = done(response, 201)
        assert (tweet["body"], tweet["title"]) == ("a b&c=d+e%", "\u00e9")


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; charset=utf8",
    ],
)
async def test_json_may_say_that_it_is_utf8(writer: Writer, media_type: str) -> None:
    done(await writer.sends(TWEET, {"Content-Type": media_type}), 201)


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "text/json",
        "application/jsonx",
        "application/problem+json",
        "application/x-www-form-urlencoded-not",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/x-www-form-urlencoded; charset=iso-8859-1",
        "json",
        "*/*",
        "",
        ";",
    ],
)
async def test_other_media_types_are_refused(writer: Writer, media_type: str) -> None:
    assert await writer.is_told(TWEET, {"Content-Type": media_type}) == (415, "unsupported_media_type")
    assert await writer.is_told(b"\xff", {"Content-Type": media_type}) == (415, "unsupported_media_type")


async def test_a_body_without_a_media_type_is_refused(writer: Writer) -> None:
    assert await writer.is_told(TWEET, {}) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "nonsense",
        "{'user_name':'ada'}",
        '{"user_name":"ada","body":"x",}',
        '{"user_name":"ada" "body":"x"}',
        TWEET + "x",
        TWEET + TWEET,
        "\ufeff" + TWEET,
        "user_name=ada&body=x",
        "[]",
        f"[{TWEET}]",
        '"text"',
        "5",
        "null",
        "true",
        " ",
        '{"user_name":"ada","body":"a\nb"}',
        '{"user_name":"ada","body":"\\x41"}',
        '{"user_name":"ada","body":"x","count_retweet":NaN}',
        '{"user_name":"ada","body":"x","count_retweet":Infinity}',
        '{"user_name":"ada","body":"x","count_retweet":-Infinity}',
        '{"user_name":"ada","body":"x","count_retweet":01}',
        '{"user_name":"ada","body":"x","count_retweet":+1}',
        '{"user_name":"ada","body":"x","count_retweet":0x1}',
        '{"user_name":"ada","body":"\\ud800"}',
        '{"user_name":"ada","body":"\\udc00\\ud800"}',
        '{"user_name":"ada","body":"x","\\ud800":1}',
    ],
)
async def test_what_is_not_a_json_object_is_refused(writer: Writer, body: str) -> None:
    assert await writer.is_told(body) == (400, "malformed_json")


async def test_a_whole_surrogate_pair_is_one_character(writer: Writer) -> None:
    tweet = done(await writer.sends('{"user_name":"ada","body":"\\ud83d\\ude00"}'), 201)
    assert tweet["body"] == "\N{GRINNING FACE}"


@pytest.mark.parametrize("media_type", [JSON, FORM])
async def test_an_empty_body_says_what_is_missing(writer: Writer, media_type: dict[str, str]) -> None:
    response = await writer.sends(b"", media_type)
    told = problem(response)
    assert told["status"] == 400
    assert told["code"] in ("malformed_json", "missing_field")


async def test_no_body_at_all_says_what_is_missing(writer: Writer) -> None:
    told = problem(await writer.site.post("/tweet", writer.ada))
    assert (told["status"], told["code"]) in ((400, "missing_field"), (415, "unsupported_media_type"))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\xff", "not_utf8"),
        (b'{"user_name":"ada","body":"\xff"}', "not_utf8"),
        (b'{"user_name":"ada","body":"\xed\xa0\x80"}', "not_utf8"),
        (b'{"user_name":"ada","body":"\xc0\x80"}', "not_utf8"),
        (TWEET.encode("utf-16"), "not_utf8"),
        (TWEET.encode("utf-16-le"), "malformed_json"),
    ],
)
async def test_json_that_is_not_utf8_is_refused(writer: Writer, body: bytes, code: str) -> None:
    assert await writer.is_told(body) == (400, code)


async def test_a_form_that_is_not_utf8_is_refused(writer: Writer) -> None:
    for body in (b"user_name=ada&body=\xff", b"user_name=ada&body=%FF", b"user_name=ada&body=%ED%A0%80", b"%FF=x"):
        assert await writer.is_told(body, FORM) == (400, "not_utf8")


@pytest.mark.parametrize("body", ["user_name", "user_name=ada&body", "&", "user_name=ada&&body=x", "a=1&" * 40 + "b=1"])
async def test_what_is_not_a_form_is_refused(writer: Writer, body: str) -> None:
    assert await writer.is_told(body, FORM) == (400, "malformed_form")


async def test_a_field_that_is_there_twice_is_refused(writer: Writer) -> None:
    for body in (
        '{"user_name":"ada","body":"x","body":"x"}',
        '{"user_name":"ada","body":"x","b\\u006fdy":"y"}',
        '{"body":"x","user_name":"ada","user_name":"ada"}',
    ):
        assert await writer.is_told(body) == (400, "duplicate_field")
    assert await writer.is_told("user_name=ada&body=x&body=x", FORM) == (400, "duplicate_field")
    assert await writer.is_told("user_name=ada&body=x&b%6Fdy=y", FORM) == (400, "duplicate_field")


async def test_a_field_that_is_not_known_is_refused(writer: Writer) -> None:
    for name in ("Body", "body ", "", "id", "__proto__", "x" * 10_000, "<script>"):
        response = await writer.sends(json.dumps({"user_name": "ada", "body": "x", name: "y"}))
        told = refused(response, 400, "unknown_field")
        assert len(told["detail"]) < 300
    assert await writer.is_told("user_name=ada&body=x&=y", FORM) == (400, "unknown_field")
    assert await writer.is_told("user_name=ada&body=x&\ufeffz=y", FORM) == (400, "unknown_field")


async def test_a_field_that_is_missing_is_named(writer: Writer) -> None:
    for body, missing in ('{"body":"x"}', "user_name"), ('{"user_name":"ada"}', "body"), ("{}", "user_name"):
        assert missing in refused(await writer.sends(body), 400, "missing_field")["detail"]
    assert "body" in refused(await writer.sends("user_name=ada", FORM), 400, "missing_field")["detail"]


@pytest.mark.parametrize("value", ["5", "true", "null", "[]", "{}", '["x"]', '{"x":1}', "1.5"])
async def test_text_is_text(writer: Writer, value: str) -> None:
    told = refused(await writer.sends(f'{{"user_name":"ada","body":{value}}}'), 400, "wrong_type")
    assert "body" in told["detail"]


@pytest.mark.parametrize("value", ['"0"', "true", "null", "0.5", "1e400", "-1e400", "[]", '""', "1e-5"])
async def test_in_json_a_number_is_a_number(writer: Writer, value: str) -> None:
    body = f'{{"user_name":"ada","body":"x","count_retweet":{value}}}'
    told = refused(await writer.sends(body), 400, "wrong_type")
    assert "count_retweet" in told["detail"]


@pytest.mark.parametrize("value", ["x", "", "0.5", "1e400", "true", "null", "NaN", "0x0", "1_0", "\u0663", "--1"])
async def test_in_a_form_a_number_is_text_that_is_one(writer: Writer, value: str) -> None:
    body = str(httpx.QueryParams({"user_name": "ada", "body": "x", "count_retweet": value}))
    assert await writer.is_told(body, FORM) == (400, "wrong_type")
    assert done(await writer.sends("user_name=ada&body=x&count_retweet=0", FORM), 201)["count_retweet"] == 0


async def test_great_numbers_are_read_and_refused(writer: Writer) -> None:
    for digits in (13, 19, 20, 40, 4_000):
        number = "9" * digits
        assert await writer.is_told(f'{{"user_name":"ada","body":"x","count_retweet":{number}}}') == (
            422,
            "initial_count_range",
        )
        assert (await writer.is_told(f"user_name=ada&body=x&count_retweet={number}", FORM))[0] in (400, 422)
    status, _ = await writer.is_told(f'{{"user_name":"ada","body":"x","count_retweet":{"9" * 60_000}}}')
    assert status in (400, 422)


async def test_deep_nesting_is_refused(writer: Writer) -> None:
    assert await writer.is_told("[" * 100_000) == (413, "too_large")
    for body in (
        "[" * 65_000,
        "[" * 32_000 + "]" * 32_000,
        '{"body":' + "[" * 60_000,
        '{"a":' * 10_000,
        '{"user_name":"ada","body":' + "[" * 30_000 + "]" * 30_000 + "}",
    ):
        assert await writer.is_told(body) == (400, "malformed_json")
    response = await writer.sends('{"user_name":"ada","body":' + "[" * 500 + "]" * 500 + "}")
    refused(response, 400, "wrong_type")


async def test_a_body_has_64_kib_at_most(writer: Writer) -> None:
    done(await writer.sends(padded(MOST)), 201)
    for size in (MOST + 1, 100_000, 1_000_000):
        assert await writer.is_told(padded(size)) == (413, "too_large")
    assert await writer.is_told("user_name=ada&body=" + "x" * MOST, FORM) == (413, "too_large")
    assert await writer.is_told(b"x" * (MOST + 1), {"Content-Type": "text/plain"}) == (413, "too_large")


async def test_a_body_without_a_length_has_64_kib_at_most_too(writer: Writer) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        body = padded(size)
        for at in range(0, size, 1_000):
            yield body[at : at + 1_000]

    async def send(size: int, method: str, path: str) -> httpx.Response:
        response = await writer.site.ask(method, path, writer.ada, headers=JSON, content=pieces(size))
        assert "content-length" not in response.request.headers
        return response

    done(await send(MOST, "POST", "/tweet"), 201)
    for method, path in (("POST", "/tweet"), ("DELETE", "/tweet/@ada"), ("POST", "/user"), ("DELETE", "/token")):
        refused(await send(MOST + 1, method, path), 413, "too_large")


async def test_an_endless_body_is_not_read_to_its_end(writer: Writer) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            assert sent < 1_000, "it goes on reading"
            yield b" " * 1_024

    response = await writer.site.post("/tweet", writer.ada, headers=JSON, content=endless())
    refused(response, 413, "too_large")
    assert sent < 100


async def test_the_body_of_a_delete_is_read_as_strictly(writer: Writer) -> None:
    for body, headers, answer in (
        ('{"tweet_id":"x","tweet_id":"x"}', JSON, (400, "duplicate_field")),
        ('{"tweet":"x"}', JSON, (400, "unknown_field")),
        ("{}", JSON, (400, "missing_field")),
        ("{", JSON, (400, "malformed_json")),
        ("tweet_id=x", {"Content-Type": "text/plain"}, (415, "unsupported_media_type")),
        ("tweet_id=x", FORM, (400, "malformed_id")),
        ("[" * 60_000, JSON, (400, "malformed_json")),
    ):
        assert await writer.is_told(body, headers, path="/tweet/@ada", method="DELETE") == answer


async def test_every_post_reads_its_body_by_the_same_rules(writer: Writer) -> None:
    for path in ("/user", "/token", "/tweet", "/retweet", "/tweet/@ada", "/follow/@ada"):
        for body, headers, answer in (
            (b"\xff", JSON, (400, "not_utf8")),
            (b"{", JSON, (400, "malformed_json")),
            (b'{"surprise":1}', JSON, (400, "unknown_field")),
            (b"surprise=1", FORM, (400, "unknown_field")),
            (b"x", {"Content-Type": "text/plain"}, (415, "unsupported_media_type")),
            (b" " * (MOST + 1), JSON, (413, "too_large")),
        ):
            assert await writer.is_told(body, headers, path=path) == answer, path


async def test_nothing_of_a_body_that_was_refused_is_kept(writer: Writer) -> None:
    before = listed(await writer.site.get("/tweet/@ada"))
    assert await writer.is_told('{"user_name":"ada","body":"x","body":"y"}') == (400, "duplicate_field")
    assert listed(await writer.site.get("/tweet/@ada")) == before


async def test_a_refusal_repeats_little_of_what_was_sent(writer: Writer) -> None:
    for body in ('{"<script>alert(1)</script>":1}', '{"user_name":"' + "<b>" * 9_000 + '","body":"x"}'):
        response: Any = await writer.sends(body)
        assert len(response.content) < 500
        assert response.headers["x-content-type-options"] == "nosniff"
