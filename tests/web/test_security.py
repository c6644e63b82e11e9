"""Who may do what: tokens, open mode, closed registration, and what a foreign page may not do."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import rookery.web
from rookery.adapters.sqlite import SqliteStore
from rookery.domain.errors import Unavailable
from rookery.services.accounts import Accounts
from tests.web.conftest import Serve
from tests.web.site import JSON, NOBODY, Person, Site, done, found, listed, problem, refused

Asked = tuple[str, str, dict[str, Any]]


def writes_of(person: Person) -> list[Asked]:
    """Every write that takes the token of a person. Each is well-formed."""
    return [
        ("POST", f"/tweet/{person.id}", {"json": {"tweet": "x"}}),
        ("POST", "/tweet", {"json": {"user_name": person.name, "body": "x"}}),
        ("POST", "/retweet", {"json": {"user_name": person.name, "retweet": NOBODY}}),
        ("DELETE", f"/tweet/{person.id}", {"params": {"tweet_id": NOBODY}}),
        ("POST", f"/follow/{person.id}", {"json": {"followee_id": "@eve"}}),
        ("DELETE", f"/follow/{person.id}", {"json": {"followee_id": "@eve"}}),
        ("DELETE", "/user", {"json": {"user_id": person.id}}),
    ]


READS = [
    "/user?name=ada",
    "/follow/@ada",
    "/followers/@ada",
    "/tweet/@ada",
    f"/tweet?tweet_id={NOBODY}",
    f"/chain?tweet_id={NOBODY}",
    "/feed/@ada",
    "/top",
]


async def test_a_write_without_a_token_is_unauthenticated(site: Site) -> None:
    ada, _ = await site.register_all("ada", "eve")
    for method, path, sent in [*writes_of(ada), ("DELETE", "/token", {})]:
        response = await site.ask(method, path, **sent)
        refused(response, 401, "token_missing")
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_write_with_an_invalid_token_is_unauthenticated(site: Site) -> None:
    ada, _ = await site.register_all("ada", "eve")
    assert ada.token
    wrong = [
        "Bearer",
        "Bearer ",
        "Bearer x",
        f"Bearer {ada.token}x",
        f"Bearer {ada.token[:-1]}",
        f"Bearer {ada.token.upper()}",
        f"Bearer {ada.token} {ada.token}",
        f"Basic {ada.token}",
        ada.token,
        "",
        "Bearer \u00e9",
        "Bearer " + "x" * 10_000,
    ]
    for header in wrong:
        headers: Any = {"Authorization": header.encode("latin-1")}
        refused(await site.post("/tweet/@ada", headers=headers, json={"tweet": "x"}), 401, "token_invalid")
        refused(await site.get("/top", headers=headers), 401, "token_invalid")
    assert listed(await site.get("/tweet/@ada")) == []


async def test_a_write_with_anothers_token_is_forbidden(site: Site) -> None:
    ada, bob, _ = await site.register_all("ada", "bob", "eve")
    for method, path, sent in writes_of(ada):
        refused(await site.ask(method, path, bob, **sent), 403, "not_yours")


async def test_an_administrator_deletes_but_does_not_act_as_another(site: Site) -> None:
    ada, eve = await site.register_all("ada", "eve")
    root = await site.add_admin()
    tweet, retweet = await ada.posts("x"), await eve.posts("y")
    for method, path, sent in writes_of(ada):
        if method == "POST" or path.startswith("/follow"):
            refused(await site.ask(method, path, root, **sent), 403, "not_yours")
    assert (await site.delete("/tweet/@ada", root, params={"tweet_id": tweet["id"]})).status_code == 204
    assert (await site.delete("/user", root, params={"user_id": "@eve"})).status_code == 204
    refused(await site.get("/tweet", params={"tweet_id": retweet["id"]}), 404, "deleted_tweet")


async def test_nobody_makes_himself_an_administrator(site: Site) -> None:
    for field in ("is_admin", "admin"):
        refused(await site.post("/user", json={"name": "ada", field: True}), 400, "unknown_field")


async def test_reading_is_public_unless_the_settings_say_otherwise(site: Site, serve: Serve) -> None:
    closed = await serve(reads="token")
    for server in (site, closed):
        await server.register("ada")
    for path in READS:
        assert (await site.get(path)).status_code in (200, 404)
        refused(await closed.get(path), 401, "token_missing")
        assert (await closed.client.head("/api/v1" + path)).status_code == 401


async def test_where_reading_takes_a_token_anyones_will_do(serve: Serve) -> None:
    site = await serve(reads="token")
    _, bob = await site.register_all("ada", "bob")
    for path in READS:
        assert (await site.get(path, bob)).status_code in (200, 404)
        refused(await site.get(path, headers={"Authorization": "Bearer x"}), 401, "token_invalid")
    for path in ("/livez", "/readyz", "/status", "/openapi.json", "/"):
        assert (await site.get(path)).status_code == 200


async def test_open_mode_takes_no_token_and_minds_none(open_mode: Site) -> None:
    ada, eve = await open_mode.register_all("ada", "eve")
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "nonsense"}):
        tweet = done(await open_mode.post("/tweet/@ada", headers=headers, json={"tweet": "x"}), 201)
        assert listed(await open_mode.get("/top", headers=headers)) == [tweet]
        await ada.deletes(tweet)
    await ada.follows(eve)
    await eve.leaves()


async def test_where_registration_is_closed_open_mode_makes_no_authors(serve: Serve) -> None:
    site = await serve(auth="open", registration="closed")
    refused(await site.post("/tweet", json={"user_name": "ada", "body": "x"}), 404, "unknown_user")


async def test_a_deleted_users_token_ends_with_him(site: Site) -> None:
    ada = await site.register("ada")
    await ada.posts("x")
    await ada.leaves()
    refused(await site.post("/tweet", ada, json={"user_name": "ada", "body": "x"}), 401, "token_invalid")


# --- pages of other sites --------------------------------------------------------------------------------------------

FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://127.0.0.1:8080"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://evil.example/127.0.0.1"},
    {"Origin": "http://127.0.0.1@evil.example"},
    {"Origin": "ftp://127.0.0.1"},
    {"Origin": "file://"},
    {"Origin": "http://127.0.0.1:x"},
    {"Origin": "http://["},
    {"Origin": "http://localhost"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "cross-site"},
]
OWN: list[dict[str, str]] = [
    {},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "https://127.0.0.1"},
    {"Origin": "http://127.0.0.1:80"},
    {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
]


async def test_a_page_of_another_site_does_not_write(site: Site, open_mode: Site) -> None:
    for server in (site, open_mode):
        ada, _ = await server.register_all("ada", "eve")
        for method, path, sent in [
            *writes_of(ada),
            ("DELETE", "/token", {}),
            ("POST", "/user", {"json": {"name": "x"}}),
        ]:
            for headers in FOREIGN:
                response = await server.ask(method, path, ada, headers=headers, **sent)
                refused(response, 403, "foreign_origin")
                assert "access-control-allow-origin" not in response.headers
        assert listed(await server.get("/tweet/@ada")) == []
        refused(await server.post("/nowhere", ada, headers=FOREIGN[0]), 403, "foreign_origin")


async def test_a_page_of_another_site_may_look_but_its_browser_keeps_the_answer(site: Site) -> None:
    for headers in FOREIGN:
        response = await site.get("/top", headers=headers)
        assert listed(response) == []
        assert "access-control-allow-origin" not in response.headers


async def test_a_page_of_the_server_itself_writes(site: Site) -> None:
    ada = await site.register("ada")
    for headers in OWN:
        done(await site.post("/tweet/@ada", ada, headers=headers, json={"tweet": "x"}), 201)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("rookery.example", "https://rookery.example"),
        ("Rookery.Example:443", "https://rookery.example"),
        ("rookery.example:8080", "http://rookery.example:8080"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("[::1]", "http://[::1]"),
    ],
)
async def test_the_server_is_known_by_the_name_it_was_called(serve: Serve, host: str, origin: str) -> None:
    site = await serve(allowed_hosts=("rookery.example",))
    ada = await site.register("ada")
    done(await site.post("/tweet/@ada", ada, headers={"Host": host, "Origin": origin}, json={"tweet": "x"}), 201)
    elsewhere = {"Host": host, "Origin": origin + "1" if origin[-1].isdigit() else "http://127.0.0.1"}
    refused(await site.post("/tweet/@ada", ada, headers=elsewhere, json={"tweet": "x"}), 403, "foreign_origin")


@pytest.mark.parametrize("port", [b"\xb2", b"9" * 5_000, b"-1", b" ", b"80x", b"", b"\xd9\xa3"])
async def test_an_odd_host_header_breaks_nothing(site: Site, port: bytes) -> None:
    ada = await site.register("ada")
    headers = {"Host": b"127.0.0.1:" + port, "Origin": b"http://127.0.0.1"}
    response = await site.post("/tweet/@ada", ada, headers=headers, json={"tweet": "x"})
    assert response.status_code in (201, 400, 403, 421), response.text


async def test_the_sites_of_the_settings_write_and_read_answers(serve: Serve) -> None:
    site = await serve(cors_origins=("https://app.example", "http://localhost:3000"))
    ada = await site.register("ada")
    for origin in site.settings.cors_origins:
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        response = await site.post("/tweet/@ada", ada, headers=headers, json={"tweet": "x"})
        done(response, 201)
        assert response.headers["access-control-allow-origin"] == origin
        exposed = response.headers.get_list("access-control-expose-headers", split_commas=True)
        assert {"Link", "Retry-After", "RateLimit-Remaining", "X-Request-Id"} <= set(exposed)
        wrong = await site.post("/tweet/@ada", ada, headers=headers, json={"tweet": ""})
        assert wrong.status_code >= 400
        assert wrong.headers["access-control-allow-origin"] == origin, "or the page can't read what was wrong"
    for origin in ("https://app.example.evil.example", "http://app.example", "https://app.example:8443", "null"):
        response = await site.post("/tweet/@ada", ada, headers={"Origin": origin}, json={"tweet": "x"})
        refused(response, 403, "foreign_origin")
        assert "access-control-allow-origin" not in response.headers
    assert "Origin" in (await site.get("/top")).headers.get_list("vary", split_commas=True)


async def test_a_preflight_tells_the_sites_of_the_settings_what_they_may_send(serve: Serve) -> None:
    site = await serve(cors_origins=("https://app.example",), reads="token")
    await site.register("ada")
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    # A browser asks at the very address that it is going to call, with its query.
    for path in ("/tweet", "/user", "/token", "/feed/@ada", "/feed/@ada?limit=5", f"/tweet/@ada?tweet_id={NOBODY}"):
        response = await site.ask("OPTIONS", path, headers=asked)
        assert response.status_code in (200, 204), (path, response.text)
        assert response.headers["access-control-allow-origin"] == "https://app.example"
        methods = response.headers.get_list("access-control-allow-methods", split_commas=True)
        assert {"GET", "POST", "DELETE"} <= set(methods)
        headers = response.headers["access-control-allow-headers"].lower()
        assert {"authorization", "content-type", "idempotency-key"} <= set(headers.replace(" ", "").split(","))
        assert "access-control-allow-credentials" not in response.headers
    foreign = await site.ask("OPTIONS", "/tweet", headers={**asked, "Origin": "https://evil.example"})
    assert not [name for name in foreign.headers if name.startswith("access-control")]


# --- what a refusal tells --------------------------------------------------------------------------------------------

LEAKS = re.compile(
    r"traceback|\.py\b|site-packages|sqlite|litestar|msgspec|select |insert |/(?:work|tmp|home|usr)/", re.IGNORECASE
)


async def test_no_refusal_shows_a_stack_a_query_or_a_path(site: Site) -> None:
    ada = await site.register("ada")
    responses = [
        await site.post("/tweet", ada, headers=JSON, content=b"\xff"),
        await site.post("/tweet", ada, json={"user_name": "ada' OR 1=1 --", "body": "x"}),
        await site.post("/tweet", ada, json={"user_name": 5, "body": []}),
        await site.post("/tweet", ada, headers=JSON, content=b"["),
        await site.post("/user", json={"name": "ada"}),
        await site.post("/user"),
        await site.get("/user", params={"user_id": "'; DROP TABLE user; --"}),
        await site.get("/user", params={"name": "\0"}),
        await site.get("/feed/@ada", params={"limit": "x"}),
        await site.get("/feed/@ada", params={"cursor": "../../etc/passwd"}),
        await site.client.get("/static/..%2f..%2fapp.py"),
        await site.client.get("/api/v1/assets/..%2f..%2f__init__.py"),
        await site.client.get("/nowhere"),
        await site.ask("PATCH", "/tweet", ada),
    ]
    for response in responses:
        told = problem(response)
        assert 400 <= response.status_code < 500
        assert not LEAKS.search(response.text), told


async def test_a_mistake_of_ours_is_told_without_its_text(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError(f"secret detail in {Path(rookery.web.__file__)}")

    monkeypatch.setattr(Accounts, "find_name", fail)
    response = await site.get("/user", params={"name": "ada"})
    told = refused(response, 500, "internal_error")
    assert "secret" not in response.text
    assert not LEAKS.search(told["detail"])
    assert response.headers["x-request-id"]


async def test_a_store_that_is_away_is_told_with_when_to_try_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("store_unavailable", "The database can't be read or written now.", retry_after=2)

    ada = await site.register("ada")
    for method in ("check", "add_tweet"):
        monkeypatch.setattr(SqliteStore, method, fail)
    response = await site.post("/tweet/@ada", ada, json={"tweet": "x"})
    refused(response, 503, "store_unavailable")
    assert response.headers["retry-after"] == "2"
    not_ready = await site.get("/readyz")
    refused(not_ready, 503, "not_ready")
    assert int(not_ready.headers["retry-after"]) > 0
    assert found(await site.get("/livez")) == {"status": "live"}
    assert found(await site.get("/status"))["store"] == "store_unavailable"


async def test_the_log_tells_neither_tokens_nor_texts_nor_queries(site: Site) -> None:
    with capture_logs() as logged:
        ada = await site.register("ada")
        await ada.posts("a private text", title="a private title")
        await site.get("/user", params={"name": "a_private_name"})
        await site.post("/token", json={"name": "ada", "password": "a private password"})
        await site.get("/top", headers={"Authorization": "Bearer rk_private"})
    assert len(logged) == 5
    text = repr(logged)
    assert "private" not in text
    assert ada.token
    assert ada.token not in text
    assert [(line["method"], line["status"], line["user"]) for line in logged] == [
        ("POST", 201, None),
        ("POST", 201, "ada"),
        ("GET", 404, None),
        ("POST", 401, None),
        ("GET", 401, None),
    ]


async def test_a_request_id_of_a_trusted_proxy_comes_back(serve: Serve) -> None:
    site = await serve(trusted_proxies=(ip_network("127.0.0.1"),))
    for given in ("a", "Abc-1_2.3:4", "x" * 64):
        for path in ("/api/v1/top", "/nowhere", "/api/v1/", "/"):
            response = await site.client.get(path, headers={"X-Request-Id": given})
            assert response.headers.get_list("x-request-id") == [given]
            async with site.client_at("192.0.2.1") as stranger:
                forged = await stranger.get(path, headers={"X-Request-Id": given})
            assert re.fullmatch("[0-9a-f]{16}", forged.headers["x-request-id"]), "whose it is decides"


async def test_a_request_without_an_id_or_with_an_odd_one_gets_one(serve: Serve) -> None:
    site = await serve(trusted_proxies=(ip_network("127.0.0.1"),))
    seen = set()
    for given in (None, "", "x" * 65, "a b", "\u00e9", "<script>", 'a"b'):
        headers: Any = {} if given is None else {"X-Request-Id": given.encode("latin-1")}
        response = await site.client.get("/api/v1/top", headers=headers)
        assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])
        seen.add(response.headers["x-request-id"])
    assert len(seen) == 7
