"""HTTP itself: HEAD, Allow, unknown paths, request ids, and problems wherever something is refused."""

import logging
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.web.routes import all_routes, filled
from tests.web.site import API, JSON, NOBODY, Json, Person, Site, found, listed, problem, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = all_routes()
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "FOO", "M-SEARCH"]


class Town:
    """A server with a little of everything on it."""

    def __init__(self, site: Site, ada: Person, tweet: Json) -> None:
        self.client = site.client
        self.site = site
        self.ada = ada
        self.tweet = tweet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(shared: Site) -> AsyncIterator[Town]:
    ada, bob = await shared.register_all("ada", "bob")
    await bob.follows(ada)
    await ada.follows(bob)
    for number in range(12):
        await bob.posts(str(number))
    tweet = await ada.posts("hello")
    for _ in range(12):
        tweet = await ada.retweets(tweet)
    yield Town(shared, ada, tweet)


def allowed(path: str) -> set[str]:
    methods = ROUTES[path] | {"OPTIONS"}
    return methods | {"HEAD"} if "GET" in methods else methods


def allow_of(response: httpx.Response) -> set[str]:
    return set(response.headers.get_list("allow", split_commas=True))


def lasting(headers: Mapping[str, str]) -> dict[str, str]:
    """What does not differ from one answer to the next."""
    return {name: value for name, value in headers.items() if name != "x-request-id"}


# --- HEAD ------------------------------------------------------------------------------------------------------------


async def test_head_is_answered_as_get_is_without_the_body(town: Town) -> None:
    asked = {
        "/tweet": f"/tweet?tweet_id={town.tweet['id']}",
        "/chain": f"/chain?tweet_id={town.tweet['id']}",
        "/user": "/user?name=ada",
    }
    readable = [path for path, methods in ROUTES.items() if "GET" in methods]
    assert len(readable) > 20
    for path in readable:
        short = path.removeprefix(API)
        urls = [filled(path), path.removesuffix(short) + asked[short] if short in asked else filled(path) + "?limit=1"]
        for url in urls:
            got, headed = await town.client.get(url), await town.client.head(url)
            assert headed.status_code == got.status_code, url
            assert headed.content == b"", url
            assert lasting(headed.headers) == lasting(got.headers), url
            assert int(headed.headers["content-length"]) == len(got.content), url


async def test_head_tells_of_the_next_page(town: Town) -> None:
    for path in ("/feed/@ada", "/tweet/@bob", f"/chain?tweet_id={town.tweet['id']}"):
        assert 'rel="next"' in (await town.client.head(API + path)).headers["link"]


async def test_head_where_get_is_not_is_refused(town: Town) -> None:
    for path, methods in ROUTES.items():
        if "GET" not in methods:
            response = await town.client.head(filled(path))
            assert (response.status_code, response.content) == (405, b"")
            assert allow_of(response) == allowed(path)


# --- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ROUTES)
async def test_options_names_every_method(town: Town, path: str) -> None:
    response = await town.client.options(filled(path))
    assert response.status_code in (200, 204)
    assert allow_of(response) == allowed(path)
    assert response.content == b""


@pytest.mark.parametrize("path", ROUTES)
async def test_a_method_that_is_not_taken_is_refused_with_those_that_are(town: Town, path: str) -> None:
    for method in {*METHODS} - allowed(path):
        response = await town.client.request(method, filled(path), headers=town.ada.auth)
        refused(response, 405, "method_not_allowed")
        assert allow_of(response) == allowed(path), method


async def test_a_method_in_lower_case_is_another_method(town: Town) -> None:
    sent = await town.site.client.send(_verbatim("get", f"{API}/top"))
    refused(sent, 405, "method_not_allowed")


def _verbatim(method: str, path: str) -> httpx.Request:
    request = httpx.Request("GET", f"http://127.0.0.1{path}")
    request.method = method
    return request


# --- paths -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_path_is_a_problem_whatever_the_method(town: Town) -> None:
    unknown = [
        "/nowhere",
        "/favicon.ico",
        "/api",
        "/api/v2/top",
        "/api/v1/nowhere",
        "/api/v1/top/10",
        "/api/v1/user/@ada",
        "/api/v1/tweet/@ada/x",
        "/api/v1/assets/",
        "/api/v1/assets/nowhere.js",
        "/api/v1/assets/../openapi.json/x",
        "/static/",
        "/static/nowhere.css",
        "/token",
        "/chain",
        "/openapi.json",
        "/docs",
        "/schema",
        "/schema/openapi.json",
        "/schema/swagger",
        "/schema/nowhere",
        "/api/v1/%00",
        "/\u00e9",
        "/%ff",
        "/" + "x" * 5_000,
    ]
    for path in unknown:
        refused(await town.client.get(path), 404, "unknown_path")
        assert (await town.client.head(path)).status_code == 404
        for method in ("POST", "DELETE", "PUT", "OPTIONS", "TRACE"):
            if not path.endswith((".js", ".css")):
                refused(await town.client.request(method, path), 404, "unknown_path")


async def test_the_paths_at_the_root_are_those_of_the_api(town: Town) -> None:
    for path in ("/user?name=ada", "/follow/@ada", "/followers/@ada", "/tweet/@ada", "/feed/@ada", "/top"):
        at_root, below = await town.client.get(path), await town.client.get(API + path)
        assert at_root.status_code == below.status_code == 200
        assert at_root.content == below.content
    for path in ("/livez", "/readyz", "/status"):
        assert found(await town.client.get(path)).keys() == found(await town.client.get(API + path)).keys()
    assert {path for path in ROUTES if not path.startswith(API)} == {
        "/",
        "/static/{name}",
        "/user",
        "/follow/{follower_id}",
        "/followers/{user_id}",
        "/tweet",
        "/tweet/{user_id}",
        "/retweet",
        "/feed/{user_id}",
        "/top",
        "/status",
        "/livez",
        "/readyz",
    }


# --- parameters ------------------------------------------------------------------------------------------------------


async def test_a_parameter_that_is_not_known_is_refused(town: Town) -> None:
    # Some are names inside the program, which are nobody's business: an Idempotency-Key in the query would be lost.
    for path in ("/feed/@ada", "/top", "/livez", "/follow/@ada", "/user", "/tweet/@ada", "/openapi.json", "/"):
        for name in ("x", "Limit", "request", "data", "self", "idempotency_key", "tweet_query", "state", "follower_id"):
            refused(await town.site.get(path, params={name: "1"}), 400, "unknown_parameter")
    refused(await town.site.get("/feed/@ada", params={"user_id": "@bob"}), 400, "unknown_parameter")
    for path in ("/tweet", "/user", "/token", "/follow/@ada"):
        response = await town.site.post(path, town.ada, params={"idempotency_key": "x"}, json={})
        assert response.status_code == 400
        assert "parameter" in problem(response)["code"]


async def test_a_parameter_that_is_there_twice_is_refused(town: Town) -> None:
    for query in ("limit=1&limit=1", "limit=1&l%69mit=2"):
        refused(await town.site.get(f"/top?{query}"), 400, "duplicate_parameter")


async def test_a_query_that_is_none_is_refused(town: Town) -> None:
    for query in ("limit", "limit=1&&", "&", "=&=", "limit=1&x", "?"):
        assert (await town.site.get(f"/top?{query}")).status_code == 400
    refused(await town.site.get("/user?name=%ff"), 400, "not_utf8")
    assert listed(await town.site.get("/top?limit=1"))


async def test_a_long_or_odd_query_breaks_nothing(town: Town) -> None:
    for query in ("name=" + "x" * 50_000, "name=%00", "name=%ED%A0%80", "&".join(f"a{n}=1" for n in range(200))):
        response = await town.site.get(f"/user?{query}")
        assert response.status_code in (400, 404)
        assert len(problem(response)["detail"]) < 300


# --- headers ---------------------------------------------------------------------------------------------------------


async def test_no_answer_is_sniffed_and_none_with_data_is_kept(town: Town) -> None:
    for path, methods in ROUTES.items():
        for method in sorted(methods):
            response = await town.client.request(method, filled(path))
            assert response.headers["x-content-type-options"] == "nosniff", path
            if response.headers.get("content-type", "").endswith("json") and "openapi" not in path:
                assert response.headers["cache-control"] == "no-store", path
            assert "server" not in response.headers


# --- problems --------------------------------------------------------------------------------------------------------


async def test_every_error_is_a_problem_with_a_code(town: Town) -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/feed/ada", {}),
        ("GET", "/feed/@nobody", {}),
        ("GET", "/top?limit=0", {}),
        ("GET", "/top?x=1", {}),
        ("GET", "/top?x", {}),
        ("GET", "/user", {}),
        ("GET", "/tweet", {}),
        ("GET", "/nowhere", {}),
        ("PUT", "/top", {}),
        ("POST", "/user", {}),
        ("POST", "/user", {"content": b"x"}),
        ("POST", "/user", {"json": {}}),
        ("POST", "/user", {"json": {"name": "ada"}}),
        ("POST", "/user", {"json": {"name": "a b"}}),
        ("POST", "/user", {"json": {"name": "x"}, "headers": {"Origin": "null"}}),
        ("POST", "/user", {"content": b" " * 70_000, "headers": JSON}),
        ("POST", "/token", {"json": {"name": "nobody", "password": "12345678"}}),
        ("POST", "/tweet/@ada", {"json": {"tweet": "x"}}),
        ("POST", "/tweet/@bob", {"json": {"tweet": "x"}, "headers": town.ada.auth}),
        ("POST", "/tweet/@ada", {"json": {"tweet": "x"}, "headers": {**town.ada.auth, "Idempotency-Key": "\x7f"}}),
        ("POST", "/follow/@ada", {"json": {"followee_id": "@ada"}, "headers": town.ada.auth}),
        ("POST", "/follow/@ada", {"headers": town.ada.auth}),
        ("DELETE", "/token", {"headers": {"Authorization": "x"}}),
        ("DELETE", f"/tweet/@ada?tweet_id={NOBODY}", {"headers": town.ada.auth}),
    ]
    codes = set()
    for method, path, sent in asked:
        response = await town.client.request(method, API + path, **sent)
        told = problem(response)
        assert 400 <= response.status_code < 500, (path, told)
        assert re.fullmatch("[a-z][a-z0-9_]+", told["code"]), told
        codes.add(told["code"])
    assert len(codes) > 15


async def test_the_title_of_a_problem_is_that_of_its_status(town: Town) -> None:
    told = problem(await town.client.get("/nowhere"))
    assert (told["title"], told["type"]) == ("Not Found", "urn:rookery:problem:unknown_path")


async def test_a_malformed_parameter_is_called_by_its_own_name(town: Town) -> None:
    for path, name in (("/tweet", "tweet_id"), ("/chain", "tweet_id"), ("/top?limit=x", "limit")):
        detail = problem(await town.site.get(path))["detail"]
        assert name in detail
        assert "tweet_query" not in detail
    response = await town.site.post("/tweet/@ada", town.ada, headers={"Idempotency-Key": ""}, json={"tweet": "x"})
    assert "Idempotency-Key" in problem(response)["detail"]


async def test_who_hangs_up_in_the_middle_of_a_body_is_no_crash(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    parts: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/user",
        "raw_path": b"/user",
        "query_string": b"",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
    }
    await town.site.app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b'"incomplete_body"' in sent[1]["body"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
