"""Rate limits: so many requests a minute for each token, and for each address that comes without one.

The server's clock is stood still, so that no test falls across the end of a minute.
"""

import asyncio
import logging
from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from rookery.domain.errors import Unavailable
from rookery.services.accounts import Accounts
from rookery.services.callers import NOBODY, Caller
from rookery.services.top import Top
from rookery.web import door
from rookery.web.api import users
from rookery.web.limits import NETWORK_PASSWORDS
from tests.web.conftest import Clock, Serve
from tests.web.site import Person, Site, refused

BARE = {"Origin": "https://evil.example"}


async def limited(serve: Serve, **settings: Any) -> Site:
    return await serve(**{"rate_limit": "on", "rate_limit_token": 3, "rate_limit_address": 5, **settings})


def standing(response: httpx.Response) -> tuple[int, int, int]:
    """Limit, remaining requests, and the seconds until it begins anew."""
    limit, remaining, reset = (int(response.headers[f"ratelimit-{name}"]) for name in ("limit", "remaining", "reset"))
    return limit, remaining, reset


async def statuses(client: httpx.AsyncClient, times: int, **sent: Any) -> list[int]:
    return [(await client.get("/top", **sent)).status_code for _ in range(times)]


async def test_more_requests_at_once_than_can_be_served_are_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "MAX_AT_ONCE", 3)
    site = await serve()
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_: object, __: int) -> list[bytes]:
        begun.release()
        await go_on.wait()
        return []

    monkeypatch.setattr(Top, "list", slow)
    asking = [asyncio.create_task(site.get("/top")) for _ in range(3)]
    for _ in range(3):
        await begun.acquire()
    response = await site.get("/top")
    refused(response, 503, "busy")
    assert response.headers["Retry-After"] == "1"
    for path in ("/livez", "/readyz"):
        assert (await site.get(path)).status_code == 200
    refused(await site.post("/user", json={"name": "ada"}), 503, "busy")
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3
    assert (await site.get("/top")).status_code == 200


async def test_writes_that_wait_leave_places_to_reads(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_WRITES_AT_ONCE", 2)
    site = await serve()
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        begun.release()
        await go_on.wait()
        raise Unavailable("busy", "slow")

    monkeypatch.setattr(Accounts, "register", slow)
    posting = [asyncio.create_task(site.post("/user", json={"name": f"ada{number}"})) for number in range(2)]
    for _ in range(2):
        await asyncio.wait_for(begun.acquire(), 30)
    refused(await site.post("/user", json={"name": "bob"}), 503, "busy")
    assert (await site.get("/top")).status_code == 200
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*posting)] == [503] * 2
    monkeypatch.undo()
    assert (await site.post("/user", json={"name": "bob"})).status_code == 201


async def test_a_request_that_finds_no_memory_is_refused_and_no_mistake(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await serve()

    async def exhausted(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Top, "list", exhausted)
        refused(await site.get("/top"), 503, "out_of_memory")
    assert (await site.get("/top")).status_code == 200


async def test_who_is_not_known_yet_is_under_way_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs would keep any number of requests waiting."""
    monkeypatch.setattr(door, "MAX_AT_ONCE", 3)
    site = await serve()
    begun, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(*_: object) -> Caller:
        begun.release()
        await go_on.wait()
        return NOBODY

    monkeypatch.setattr(Accounts, "authenticate", slow)
    asking = [asyncio.create_task(site.get("/top", headers={"Authorization": "Bearer x"})) for _ in range(3)]
    for _ in range(3):
        await begun.acquire()
    refused(await site.get("/top"), 503, "busy")
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 3


async def test_each_answer_tells_where_its_address_stands(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    clock.now = 6_017.5
    assert standing(await site.get("/top")) == (5, 4, 43)
    assert standing(await site.get("/user", params={"name": "nobody"})) == (5, 3, 43)
    assert standing(await site.client.head("/api/v1/top")) == (5, 2, 43)
    assert standing(await site.client.get("/nowhere")) == (5, 1, 43)
    assert standing(await site.ask("PATCH", "/top")) == (5, 0, 43)


async def test_whoever_asks_too_often_is_told_when_to_come_back(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    clock.now = 6_050.0
    assert await statuses(site.client, 5) == [200] * 5
    for _ in range(3):
        response = await site.get("/top")
        refused(response, 429, "rate_limited")
        assert standing(response) == (5, 0, 10)
        assert response.headers["retry-after"] == "10"
    clock.now = 6_059.9
    assert int((await site.get("/top")).headers["retry-after"]) >= 1
    clock.now = 6_060.0
    assert standing(await site.get("/top")) == (5, 4, 60)


async def test_nothing_happens_past_the_limit(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    ada = await site.register("ada")
    for number in range(3):
        await ada.posts(str(number))
    refused(await site.post("/tweet/@ada", ada, json={"tweet": "too much"}), 429, "rate_limited")
    clock.now += 60
    assert (await site.user("ada"))["count_tweets"] == 3


async def test_each_token_and_the_address_are_counted_apart(serve: Serve, clock: Clock) -> None:
    site = await limited(serve, rate_limit_address=8)
    ada, bob = await site.register_all("ada", "bob")
    for who in (ada, bob):
        assert await statuses(site.client, 4, headers=who.auth) == [200, 200, 200, 429]
    assert standing(await site.get("/top")) == (8, 5, 60), "two registrations and this"
    assert await statuses(site.client, 6) == [200] * 5 + [429]
    refused(await site.get("/top", ada), 429, "rate_limited")


async def test_tokens_do_not_multiply_what_their_address_may_ask(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    people = await site.register_all("ada", "bob", "eve", "dan", "kim")
    found = [await statuses(site.client, 2, headers=who.auth) for who in people]
    assert [status for each in found for status in each] == [200] * 5 + [429] * 5
    response = await site.get("/top", people[4])
    refused(response, 429, "rate_limited")
    assert standing(response) == (5, 0, 60), "the limit that is told is the one that was reached"
    async with site.client_at("192.0.2.1") as elsewhere:
        assert await statuses(elsewhere, 1, headers=people[3].auth) == [200]


async def test_a_token_past_its_limit_costs_its_neighbours_nothing(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    ada, bob = await site.register_all("ada", "bob")
    assert await statuses(site.client, 20, headers=ada.auth) == [200] * 3 + [429] * 17
    assert await statuses(site.client, 2, headers=bob.auth) == [200] * 2


async def test_a_token_is_counted_wherever_it_comes_from(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    ada = await site.register("ada")
    for number in range(3):
        async with site.client_at(f"192.0.2.{number}") as client:
            assert await statuses(client, 1, headers=ada.auth) == [200]
    async with site.client_at("192.0.2.9") as client:
        assert await statuses(client, 1, headers=ada.auth) == [429]


async def test_addresses_are_counted_apart(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    for address in ("192.0.2.1", "192.0.2.2", "198.51.100.1"):
        async with site.client_at(address) as client:
            assert await statuses(client, 6) == [200] * 5 + [429]


async def test_an_ipv6_network_of_one_customer_is_one_address(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    for number in range(5):
        async with site.client_at(f"2001:db8:1:2:{number}::{number}") as client:
            assert await statuses(client, 1) == [200]
    async with site.client_at("2001:db8:1:2:ffff:ffff:ffff:ffff") as client:
        assert await statuses(client, 1) == [429]
    async with site.client_at("2001:db8:1:3::1") as client:
        assert await statuses(client, 1) == [200]


async def test_an_ipv4_address_on_an_ipv6_socket_is_an_ipv4_address(serve: Serve, clock: Clock) -> None:
    """With `host = "::"` the system gives every IPv4 peer as ::ffff:a.b.c.d, which are all in one /64."""
    site = await limited(serve, trusted_proxies=(ip_network("10.0.0.0/8"),))
    async with site.client_at("::ffff:192.0.2.1") as client:
        assert await statuses(client, 6) == [200] * 5 + [429]
    async with site.client_at("::ffff:192.0.2.2") as client:
        assert await statuses(client, 1) == [200]
    async with site.client_at("192.0.2.1") as client:
        assert await statuses(client, 1) == [429]
    async with site.client_at("::ffff:10.0.0.1") as client:
        assert await statuses(client, 1, headers={"X-Forwarded-For": "192.0.2.1"}) == [429]
        assert await statuses(client, 1, headers={"X-Forwarded-For": "192.0.2.3"}) == [200]


async def test_invalid_tokens_count_for_their_address(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    ada = await site.register("ada")
    for number in range(4):
        response = await site.get("/top", headers={"Authorization": f"Bearer rk_made_up_{number}"})
        refused(response, 401, "token_invalid")
        assert standing(response) == (5, 3 - number, 60)
    for header in ("Bearer rk_another", "Bearer", "Basic x", ""):
        refused(await site.get("/top", headers={"Authorization": header}), 429, "rate_limited")
    assert await statuses(site.client, 1, headers=ada.auth) == [200], "his neighbours do not lock him out"


async def test_revoked_tokens_count_for_their_address(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    ada = await site.register("ada")
    assert (await site.delete("/token", ada)).status_code == 204
    assert await statuses(site.client, 5, headers=ada.auth) == [401] * 4 + [429]


async def test_refused_requests_are_counted_too(serve: Serve, clock: Clock) -> None:
    site = await limited(serve)
    for _ in range(4):
        assert (await site.post("/user", headers=BARE)).status_code == 403
    assert (await site.post("/user", content=b"x")).status_code == 415
    refused(await site.get("/top"), 429, "rate_limited")


async def test_a_forwarded_header_of_a_stranger_is_ignored_and_warned_of_once(
    serve: Serve, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    site = await limited(serve, trusted_proxies=(ip_network("10.0.0.0/8"),))
    with caplog.at_level(logging.WARNING):
        sent = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(6)]
        found = [(await site.get("/top", headers=headers)).status_code for headers in sent]
    assert found == [200] * 5 + [429]
    warnings = [record for record in caplog.records if "forwarded" in record.getMessage()]
    assert len(warnings) == 1


async def forwarded(client: httpx.AsyncClient, header: str) -> int:
    """How many requests the address is left that this header stands for."""
    response = await client.get("/top", headers={"X-Forwarded-For": header})
    return standing(response)[1]


async def test_behind_a_trusted_proxy_the_last_stranger_is_the_client(serve: Serve, clock: Clock) -> None:
    site = await limited(serve, trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("::1")))
    async with site.client_at("10.1.2.3") as client:
        assert await forwarded(client, "192.0.2.1") == 4
        assert await forwarded(client, "192.0.2.2") == 4
        assert await forwarded(client, "203.0.113.7, 192.0.2.1") == 3, "what the client itself wrote does not count"
        assert await forwarded(client, "192.0.2.1, 10.9.9.9") == 2, "nor does a second proxy of ours"
        assert await forwarded(client, " 192.0.2.1 ,10.9.9.9 ") == 1
        assert await forwarded(client, "2001:db8::1") == 4
        assert await forwarded(client, "2001:db8::2") == 3
    async with site.client_at("::1") as client:
        assert await forwarded(client, "192.0.2.1") == 0


async def test_what_a_proxy_forwards_in_words_counts_for_the_proxy(serve: Serve, clock: Clock) -> None:
    site = await limited(serve, trusted_proxies=(ip_network("10.0.0.0/8"),))
    async with site.client_at("10.1.2.3") as client:
        left = [await forwarded(client, header) for header in ("unknown", "", "192.0.2.1, _hidden", "x" * 9_000)]
    assert left == [4, 3, 2, 1]


async def test_health_probes_are_not_limited(serve: Serve, clock: Clock) -> None:
    site = await limited(serve, rate_limit_address=1)
    for path in ("/livez", "/readyz", "/api/v1/livez", "/api/v1/readyz"):
        for _ in range(3):
            response = await site.client.get(path)
            assert response.status_code == 200
            assert "ratelimit-limit" not in response.headers


async def test_in_open_mode_addresses_are_counted(serve: Serve, clock: Clock) -> None:
    site = await limited(serve, auth="open")
    headers = {"Authorization": "Bearer x"}
    assert await statuses(site.client, 6, headers=headers) == [200] * 5 + [429]


async def test_without_limits_no_header_speaks_of_them(site: Site) -> None:
    for _ in range(20):
        response = await site.get("/top")
        assert response.status_code == 200
        assert not [name for name in response.headers if name.startswith("ratelimit")]


# Registrations


async def register(client: httpx.AsyncClient, *names: str, **sent: Any) -> list[int]:
    return [(await client.post("/api/v1/user", json={"name": name}, **sent)).status_code for name in names]


async def test_registrations_are_limited_by_network_and_hour(serve: Serve, clock: Clock) -> None:
    site = await serve(rate_limit="on", rate_limit_registrations=3)
    clock.now = 7_300.0
    async with site.client_at("192.0.2.1") as one, site.client_at("192.0.2.200") as other:
        assert await register(one, "a1", "a2") == [201, 201]
        assert await register(other, "a3") == [201]
        response = await one.post("/api/v1/user", json={"name": "a4"})
        refused(response, 429, "rate_limited")
        assert standing(response) == (3, 0, 3_500)
        assert response.headers["retry-after"] == "3500"
        assert standing(await one.get("/top"))[0] == 2_400, "and only registrations are refused"
    async with site.client_at("192.0.3.1") as elsewhere:
        assert await register(elsewhere, "b1") == [201]
    async with site.client_at("2001:db8:1:1::1") as one, site.client_at("2001:db8:1:2::1") as other:
        assert await register(one, "c1", "c2") == [201, 201]
        assert await register(other, "c3", "c4") == [201, 429], "a /48 is one network"
    async with site.client_at("2001:db8:2::1") as elsewhere:
        assert await register(elsewhere, "d1") == [201]
    clock.now = 10_800.0
    async with site.client_at("192.0.2.1") as one:
        assert await register(one, "a4") == [201]


async def test_a_registration_that_is_sent_again_is_not_counted(serve: Serve, clock: Clock) -> None:
    site = await serve(rate_limit="on", rate_limit_registrations=1)
    key = {"Idempotency-Key": "a key that nobody guesses"}
    assert await register(site.client, "ada", "ada", headers=key) == [201, 201]
    assert await register(site.client, "bob") == [429]


async def test_names_that_can_not_be_do_not_count_as_registrations(serve: Serve, clock: Clock) -> None:
    site = await serve(rate_limit="on", rate_limit_registrations=1)
    assert await register(site.client, "a b", "admin", "ada", "bob") == [422, 403, 201, 429]


async def test_administrators_and_open_mode_register_without_limit(serve: Serve, clock: Clock) -> None:
    site = await serve(rate_limit="on", rate_limit_registrations=1)
    root = await site.add_admin()
    assert await register(site.client, "a1", "a2", "a3", headers=root.auth) == [201] * 3
    open_mode = await serve(rate_limit="on", rate_limit_registrations=1, auth="open")
    assert await register(open_mode.client, "a1", "a2", "a3") == [201] * 3


# Passwords


async def test_passwords_of_one_address_and_of_a_network_are_limited(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users, "SIGN_INS", 2)
    site = await serve(rate_limit="on", trusted_proxies=(ip_network("127.0.0.1"),))

    async def tried(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        return (await site.post("/token", headers=headers, json={"name": "x", "password": "wrong"})).status_code

    assert [await tried("192.0.2.1") for _ in range(3)] == [401, 401, 429]
    assert [await tried("192.0.2.2") for _ in range(3)] == [401, 401, 429]
    most = 2 * NETWORK_PASSWORDS
    found = [await tried(f"192.0.2.{number}") for number in range(3, 10)]
    assert found == [401] * (most - 4) + [429] * (7 - most + 4)
    assert await tried("192.0.3.1") == 401


async def test_a_page_of_an_allowed_site_can_read_that_it_was_limited(serve: Serve, clock: Clock) -> None:
    site = await limited(serve, rate_limit_address=1, cors_origins=("https://app.example",))
    headers = {"Origin": "https://app.example"}
    assert await statuses(site.client, 1, headers=headers) == [200]
    response = await site.get("/top", headers=headers)
    refused(response, 429, "rate_limited")
    assert response.headers["access-control-allow-origin"] == "https://app.example"


async def test_the_limits_as_they_come_are_generous(serve: Serve, clock: Clock) -> None:
    site = await serve(rate_limit="on")
    assert standing(await site.get("/top"))[:2] == (2_400, 2_399)
    ada: Person = await site.register("ada")
    assert standing(await site.get("/top", ada))[:2] == (1_200, 1_199)
