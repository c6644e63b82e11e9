"""Two servers behind HAProxy: who asks it sees one server, whatever becomes of the two."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.serving import Server
from tests.system.haproxy.asking import StandIn, before, client_of, wait_until_all_are_up
from tools.certificates import Authority
from tools.servers import HAProxy

LONG = os.environ.get("TEST_LONG") == "1"
RESTARTS = 20 if LONG else 3
CLIENTS = 8


# Servers that break off


async def test_only_what_may_be_done_twice_is_sent_again(
    certificate: Path, authority: Authority, tmp_path: Path
) -> None:
    async with StandIn().listening(breaks=True) as breaking, before(tmp_path, [breaking] * 2, certificate) as proxy:
        for path, headers in (("/once", {}), ("/again", {"Idempotency-Key": "key"})):
            async with client_of(proxy, authority) as http:
                assert (await http.post(path, json={}, headers=headers)).status_code in (502, 503)
        async with client_of(proxy, authority) as http:
            assert (await http.get("/")).status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):  # behind another request there is no answer
                await http.post("/behind", json={})
    assert breaking.sent["/once"] == breaking.sent["/behind"] == 1
    assert breaking.sent["/again"] == 4, "and three more"


async def test_what_no_server_saw_is_sent_to_another_whatever_it_is(
    certificate: Path, authority: Authority, tmp_path: Path
) -> None:
    async with StandIn().listening() as live, AsyncExitStack() as stack:
        gone = await stack.enter_async_context(StandIn().listening())
        async with before(tmp_path, [gone, live], certificate) as proxy:
            await stack.aclose()
            answers: list[int] = []
            for number in range(20):
                async with client_of(proxy, authority) as http:
                    answers.append((await http.post(f"/{number}", json={})).status_code)
    assert answers == [200] * 20
    assert [live.sent[f"/{number}"] for number in range(20)] == [1] * 20


# Servers that come and go


@dataclass
class Load:
    """Clients that post and read; a post has a key, so it may be sent again."""

    http: httpx.AsyncClient
    failed: Counter[str] = field(default_factory=Counter)
    posted: set[str] = field(default_factory=set)
    asked: int = 0
    stopped: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.gather(*self.tasks)

    async def go_on(self, number: int) -> None:
        count = 0
        while not self.stopped:
            count += 1
            body = f"{number}: {count}"
            sent = {"user_name": f"user{number}", "body": body}
            await self._ask("POST", "/tweet", 201, json=sent, headers={"Idempotency-Key": body})
            await self._ask("GET", f"/tweet/@user{number}", 200)

    async def _ask(self, method: str, path: str, status: int, **sent: object) -> None:
        self.asked += 1
        try:
            answer = await self.http.request(method, path, **sent)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            self.failed[f"{method} {type(error).__name__}: {error}"] += 1
            return
        if answer.status_code != status:
            self.failed[f"{method} {answer.status_code} {answer.text[:80]}"] += 1
        elif method == "POST":
            self.posted.add(answer.json()["body"])

    async def expect_each_once(self) -> None:
        found: Counter[str] = Counter()
        for number in range(CLIENTS):
            path = f"/tweet/@user{number}?limit=100"
            while path:
                answer = await self.http.get(path)
                found.update(tweet["body"] for tweet in answer.json())
                path = answer.links.get("next", {}).get("url", "")
        assert self.posted <= found.keys(), "nothing is lost"
        assert {body for body in self.posted if found[body] > 1} == set(), "nothing is there twice"


@pytest.fixture
async def load(http: httpx.AsyncClient) -> AsyncIterator[Load]:
    load = Load(http)
    load.tasks = [asyncio.create_task(load.go_on(number)) for number in range(CLIENTS)]
    while load.asked < 10 * CLIENTS:
        await asyncio.sleep(0.01)
    yield load
    await load.stop()


async def restart(server: Server, proxy: HAProxy) -> None:
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start, server.port)
    await asyncio.to_thread(wait_until_all_are_up, proxy)


async def finish(load: Load) -> None:
    await load.stop()
    await load.expect_each_once()


async def test_rolling_restarts_fail_nobody(load: Load, proxy: HAProxy, servers: list[Server]) -> None:
    for turn in range(RESTARTS):
        await restart(servers[turn % 2], proxy)
    await finish(load)
    assert load.failed == Counter()


async def test_a_reload_of_haproxy_fails_nobody(load: Load, proxy: HAProxy) -> None:
    for _ in range(3):
        before, asked = children(proxy), load.asked
        proxy.reload()
        async with asyncio.timeout(30):
            while children(proxy) & before or load.asked < asked + 100:  # the old process answers its own, and ends
                await asyncio.sleep(0.05)
    await finish(load)
    assert load.failed == Counter()


def children(proxy: HAProxy) -> set[str]:
    """The processes that answer."""
    return set(Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split())


async def test_a_server_that_is_killed_fails_nobody_who_may_be_answered_by_another(
    load: Load, proxy: HAProxy, servers: list[Server]
) -> None:
    chance = random.Random(7)
    for turn in range(RESTARTS):
        before = load.asked
        while load.asked < before + chance.randint(20, 100):
            await asyncio.sleep(0.01)
        server = servers[turn % 2]
        server.kill()
        await asyncio.to_thread(server.start, server.port)
        await asyncio.to_thread(wait_until_all_are_up, proxy)
    await finish(load)
    assert load.failed == Counter()
