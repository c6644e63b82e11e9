"""Three real Cassandra nodes under two servers: one node is killed under load, then two, and all of it comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import acsylla
import httpx
import pytest

from rookery.domain.ids import parse_id
from tests.servers import running, started
from tests.serving import Server
from tools.servers import Cassandra, Memcached, Redis, Ring
from tools.servers.rookery import apply_schema

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

READERS = ["bob", "carol"]
WRITERS = 2
NOTICED_SECONDS = 60
HEALED_SECONDS = 120
WARM_SECONDS = 300


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    with started(Ring(tmp_path_factory.mktemp("ring"))) as ring:  # and ended: three Java programs are a load for others
        yield ring


@pytest.fixture(scope="module")
def servers(ring: Ring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    flags = ["--store", "cassandra", "--store-servers", ring.address, "--store-replication", "3"]
    apply_schema(flags)
    flags += ["--cache", "memcached", "--cache-servers", running(Memcached).address]
    flags += ["--ranking", "redis", "--ranking-servers", running(Redis).address]
    made = [Server(tmp_path_factory.mktemp("ring") / name, *flags, measured=False) for name in ("one", "two")]
    try:
        for server in made:
            server.start()
        yield made
    finally:
        for server in made:
            assert server.stop() == 0, server.err()


@dataclass
class Town:
    """What people do at the two servers in turn, and what they were told."""

    servers: list[Server]
    http: httpx.AsyncClient
    acknowledged: dict[str, str] = field(default_factory=dict)
    """The id of each tweet by its text."""
    refused: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    turn: int = 0

    async def ask(self, method: str, path: str, **sent: Any) -> httpx.Response:
        self.turn += 1
        begun = time.monotonic()
        answer = await self.http.request(method, self.servers[self.turn % 2].url + path, **sent)
        self.slowest = max(self.slowest, time.monotonic() - begun)
        return answer

    async def post(self, body: str, author: str = "ada") -> httpx.Response:
        sent = {"user_name": author, "body": body}
        answer = await self.ask("POST", "/tweet", json=sent, headers={"Idempotency-Key": f"key of {body}"})
        if answer.status_code == 201:
            self.acknowledged[body] = answer.json()["id"]
        elif answer.status_code == 503:
            self.refused.append(body)
        return answer

    async def feed(self, name: str) -> list[str]:
        found: list[str] = []
        path = f"/feed/@{name}?limit=100"
        while path:
            answer = await until_answered(lambda path=path: self.ask("GET", path))  # a ring may be warming up
            found += [tweet["body"] for tweet in answer.json()]
            path = answer.links.get("next", {}).get("url", "")
        return found

    async def live_on(self, number: int, stop: asyncio.Event) -> None:
        """Post, follow, unfollow, delete and read; whatever is not answered well is a failure."""
        count = 0
        while not stop.is_set():
            count += 1
            posted = await self.post(f"{len(self.acknowledged)} by {number}, the {count}th")
            answers = [posted]
            if count % 3 == 0:
                answers.append(await self.ask("POST", f"/follow/@r{number}", json={"followee_id": "@ada"}))
                answers.append(await self.ask("DELETE", f"/follow/@r{number}?followee_id=@ada"))
            if count % 4 == 0:
                doomed = await self.ask("POST", "/tweet", json={"user_name": "eve", "body": f"{number}: {count}"})
                path = f"/tweet/@eve?tweet_id={doomed.json().get('id')}"
                answers += [doomed, await self.ask("DELETE", path)]
            answers.append(await self.ask("GET", f"/feed/@{READERS[count % 2]}"))
            self.failures += [
                f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}"
                for answer in answers
                if answer.status_code >= 400
            ]
            await asyncio.sleep(0.05)


@pytest.fixture
async def town(servers: list[Server]) -> AsyncIterator[Town]:
    async with httpx.AsyncClient(timeout=10) as http:
        town = Town(servers, http)
        names = ["ada", "eve", *READERS, *(f"r{number}" for number in range(WRITERS))]
        for name in names:
            await until_answered(lambda name=name: town.post(f"I am {name}", name))
        for reader in READERS:
            await until_answered(
                lambda reader=reader: town.ask("POST", f"/follow/@{reader}", json={"followee_id": "@ada"})
            )
        town.acknowledged = {body: made for body, made in town.acknowledged.items() if body == "I am ada"}
        town.refused.clear()  # all of it was answered in the end
        yield town


async def until_answered(ask: Any, seconds: float = HEALED_SECONDS) -> httpx.Response:
    """Ask until the answer is not 503, as a client does who honours Retry-After."""
    async with asyncio.timeout(seconds):
        while (answer := await ask()).status_code == 503:
            await asyncio.sleep(0.2)
    assert answer.status_code < 400, answer.text
    made: httpx.Response = answer
    return made


async def held_by(node: Cassandra, tweets: list[str]) -> int:
    """How many of these tweets one node has by itself."""
    return await _read(node, tweets, acsylla.Consistency.ONE)


async def repair(node: Cassandra, tweets: list[str]) -> None:
    """Have all nodes compare what they have of these tweets, which mends those that lack some."""
    assert await _read(node, tweets, acsylla.Consistency.ALL) == len(tweets)


async def _read(node: Cassandra, tweets: list[str], consistency: acsylla.Consistency) -> int:
    cluster = acsylla.create_cluster(
        [node.host], port=node.port, whitelist_hosts=node.host, consistency=consistency, log_level="disabled"
    )
    session = await cluster.create_session("rookery")
    try:
        query = await session.create_prepared("SELECT author FROM tweet_by_id WHERE id = ?")
        found = [len(await session.execute(query.bind([parse_id(tweet)]))) for tweet in tweets]
        return sum(found)
    finally:
        await session.close()


async def test_one_node_killed_under_load_and_back(town: Town, ring: Ring) -> None:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(town.live_on(number, stop)) for number in range(WRITERS)]
    async with asyncio.timeout(WARM_SECONDS):
        while len(town.acknowledged) < 100:  # a Java program that has just begun answers late
            await asyncio.sleep(0.1)
    town.failures.clear()
    ring.nodes[1].kill()
    before = set(town.acknowledged)
    enough = len(before) + 100
    await asyncio.sleep(12)  # longer than the ring needs to notice
    async with asyncio.timeout(WARM_SECONDS):
        while len(town.acknowledged) < enough:
            await asyncio.sleep(0.1)
    failures = list(town.failures)
    while_away = [made for body, made in town.acknowledged.items() if body not in before]
    await asyncio.to_thread(ring.nodes[1].start)
    stop.set()
    await asyncio.gather(*tasks)
    assert failures == []
    for body in dict.fromkeys(town.refused):  # while the ring warmed up: it may have taken effect, which its key tells
        await until_answered(lambda body=body: town.post(body))
    for reader in READERS:
        async with asyncio.timeout(HEALED_SECONDS):
            while set(found := await town.feed(reader)) != set(town.acknowledged):
                await asyncio.sleep(0.5)
        assert len(found) == len(town.acknowledged)
    async with asyncio.timeout(HEALED_SECONDS):  # the others kept for it what it missed
        while await held_by(ring.nodes[1], while_away) < len(while_away):
            await asyncio.sleep(0.5)
    everything = list(town.acknowledged.values())
    await repair(ring.nodes[0], everything)  # what it had kept for others while they warmed up was killed with it
    for node in ring.nodes:
        assert await held_by(node, everything) == len(everything)


async def test_two_nodes_killed_and_back(town: Town, ring: Ring) -> None:
    for number in range(20):
        await until_answered(lambda number=number: town.post(f"before {number}"))
    want = [f"before {number}" for number in reversed(range(20))]
    for reader in READERS:
        async with asyncio.timeout(10):
            while (await town.feed(reader))[:20] != want:
                await asyncio.sleep(0.05)
    bob = (await town.ask("GET", "/user?name=bob")).json()["user_id"]  # names are not cached
    town.refused.clear()
    for node in ring.nodes[1:]:
        node.kill()
    town.slowest, number, quick = 0.0, 0, 0
    async with asyncio.timeout(NOTICED_SECONDS):
        while quick < 10:
            number += 1
            begun = time.monotonic()
            answer = await town.post(f"while away {number}")
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] == "store_unavailable"
            assert answer.headers["Retry-After"]
            quick = quick + 1 if time.monotonic() - begun < 0.05 else 0
            first = await town.ask("GET", f"/feed/{bob}?limit=10")
            assert first.status_code == 200, "what is cached is not read any more"
            assert [tweet["body"] for tweet in first.json()] == want[:10]
    assert town.slowest < 1.2, "a refusal takes a second at most, and what two busy cores need besides"

    for node in ring.nodes[1:]:
        await asyncio.to_thread(node.start)
    for body in list(dict.fromkeys(town.refused)):
        await until_answered(lambda body=body: town.post(body))
    for reader in READERS:
        async with asyncio.timeout(HEALED_SECONDS):
            while not set(town.acknowledged) <= set(found := await town.feed(reader)):
                await asyncio.sleep(0.5)
        assert len(found) == len(set(found)), "a write that was refused and asked for again was done twice"
