"""Two servers on one store and one memcached: what one accepted, both show, whoever is killed or hangs."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.contract.adapters import cassandra
from tests.model import Model
from tests.servers import running
from tests.serving import Server
from tests.system.commands import rookery
from tools.servers import Memcached, Redis
from tools.servers.rookery import apply_schema

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

READERS = ["bob", "carol", "dan"]
LONG = os.environ.get("TEST_LONG") == "1"
SWEPT_SECONDS = 30
"""Ten until a promise is overdue, and what a busy machine may need besides."""


@pytest.fixture(scope="module")
def memcached() -> Memcached:
    return running(Memcached)


@pytest.fixture(params=["sqlite", "cassandra"])
def store(request: pytest.FixtureRequest) -> list[str]:
    """The settings of the store that the servers share, and of the ranking beside it."""
    if request.param == "sqlite":
        return []
    flags = ["--store", "cassandra", "--store-servers", cassandra.server().address, "--store-replication", "1"]
    flags += ["--store-keyspace", f"two_{os.urandom(4).hex()}"]
    apply_schema(flags)
    return [*flags, "--ranking", "redis", "--ranking-servers", running(Redis).address]


@pytest.fixture
def servers(tmp_path: Path, memcached: Memcached, store: list[str]) -> Iterator[list[Server]]:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to(tmp_path / "one")  # each has its log beside its own name of the folder
    flags = ("--cache", "memcached", "--cache-servers", memcached.address, *store)
    made = [Server(tmp_path / name, *flags, measured=False) for name in ("one", "two")]
    try:
        for server in made:
            server.start()
        yield made
    finally:
        if not memcached.is_running:
            memcached.start()
        memcached.resume()
        for server in made:
            assert server.stop() in (0, -9), server.err()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as http:
        yield http


class Town:
    """What people do, each time at one of the servers."""

    def __init__(self, servers: list[Server], http: httpx.AsyncClient) -> None:
        self.servers = servers
        self._http = http

    async def ask(self, at: int, method: str, path: str, status: int, **sent: Any) -> Any:
        answer = await self._http.request(method, self.servers[at].url + path, **sent)
        assert answer.status_code == status, (path, answer.text)
        return answer.json() if answer.content else None

    async def post(self, at: int, name: str, body: str) -> dict[str, Any]:
        posted: dict[str, Any] = await self.ask(at, "POST", "/tweet", 201, json={"user_name": name, "body": body})
        return posted

    async def follow(self, at: int, one: str, other: str) -> None:
        await self.ask(at, "POST", f"/follow/@{one}", 204, json={"followee_id": f"@{other}"})

    async def feed(self, at: int, name: str, limit: int = 100) -> list[str]:
        return [tweet["body"] for tweet in await self.ask(at, "GET", f"/feed/@{name}?limit={limit}", 200)]

    async def whole_feed(self, at: int, name: str) -> list[str]:
        found: list[str] = []
        path = f"/feed/@{name}?limit=100"
        while path:
            answer = await self._http.get(self.servers[at].url + path)
            assert answer.status_code == 200, answer.text
            found += [tweet["body"] for tweet in answer.json()]
            path = answer.links.get("next", {}).get("url", "")
        return found

    async def until_feed(self, at: int, name: str, want: list[str], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while await self.feed(at, name) != want:
                await asyncio.sleep(0.01)


@pytest.fixture
def town(servers: list[Server], http: httpx.AsyncClient) -> Town:
    return Town(servers, http)


async def test_what_one_accepted_the_other_shows(town: Town, memcached: Memcached) -> None:
    hits = memcached.statistic("touch_hits")
    await town.post(0, "ada", "first")
    await town.post(1, "bob", "I read")
    await town.follow(1, "bob", "ada")
    for at in (0, 1):
        assert await town.feed(at, "bob") == ["first"]
    await asyncio.sleep(1.2)  # until a server uses a cache it has just met
    for number in range(10):
        await town.post(number % 2, "ada", f"tweet {number}")
        want = [f"tweet {earlier}" for earlier in range(number, -1, -1)] + ["first"]
        for at in (1, 0):
            await town.until_feed(at, "bob", want, 1)
    assert memcached.statistic("touch_hits") - hits > 100, "it is the cache that they share"
    posted = await town.post(0, "ada", "to be deleted")
    for at in (0, 1):
        assert (await town.feed(at, "bob"))[0] == "to be deleted"
    await town.ask(0, "DELETE", f"/tweet/@ada?tweet_id={posted['id']}", 204)
    assert "to be deleted" not in await town.feed(1, "bob"), "a delete is seen at once"
    await town.ask(1, "DELETE", "/follow/@bob?followee_id=@ada", 204)
    assert await town.feed(0, "bob") == [], "and so is an unfollow"


async def test_a_load_ends_what_servers_had_cached(town: Town, tmp_path: Path) -> None:
    await town.post(0, "ada", "first")
    await town.post(0, "bob", "I read")
    await town.follow(0, "bob", "ada")
    await asyncio.sleep(1.2)
    assert await town.feed(0, "bob") == ["first"]
    file = tmp_path / "graph.tsv"
    file.write_text("bob\teve\n")
    await town.post(0, "eve", "second")
    flags = ("--data", str(tmp_path / "one"), *town.servers[0].flags)
    if "cassandra" in flags:  # no file that a server could hold: it goes beside them
        rookery("load", "graph", str(file), *flags)
    else:
        assert "database_in_use" in rookery("load", "graph", str(file), *flags, status=1).stderr
        for server in town.servers:
            server.stop()
        rookery("load", "graph", str(file), *flags)
        town.servers[0].start()
    assert await town.feed(0, "bob") == ["second", "first"]


async def test_every_acknowledged_tweet_is_in_every_feed_and_counted_though_servers_are_killed(town: Town) -> None:
    model = Model()
    begin = await town.post(0, "ada", "begin")
    model.post(UUID(begin["id"]).bytes, "ada")
    for name in READERS:
        await town.post(0, name, "I read")
        await town.follow(0, name, "ada")
    acknowledged = ["begin"]
    stop = asyncio.Event()
    chance = random.Random(4)

    async def post_on(number: int, http: httpx.AsyncClient) -> None:
        count = 0
        while not stop.is_set():
            body = f"{number}: {count}"
            count += 1
            parent = chance.choice(list(model.tweets)) if chance.random() < 0.5 else None
            path = "/tweet" if parent is None else "/retweet"
            what = {"user_name": "ada", "body": body} | ({"retweet": str(UUID(bytes=parent))} if parent else {})
            while True:  # also when it is time to stop: what was asked for may have been done
                try:
                    answer = await http.post(
                        f"{town.servers[number % 2].url}{path}", json=what, headers={"Idempotency-Key": body}
                    )
                except httpx.HTTPError:
                    await asyncio.sleep(0.02)
                    continue
                if answer.status_code == 503 and "cassandra" in town.servers[0].flags:  # it is slow for a moment
                    await asyncio.sleep(0.1)
                    continue
                assert answer.status_code == 201, answer.text
                acknowledged.append(body)
                model.post(UUID(answer.json()["id"]).bytes, "ada", parent)
                break

    async def read_on() -> None:
        """So that timelines are resident."""
        while not stop.is_set():
            for name in READERS:
                await town.feed(1, name, 10)
            await asyncio.sleep(0.05)

    async with httpx.AsyncClient(timeout=5) as http:
        tasks = [asyncio.create_task(post_on(number, http)) for number in range(8)]
        tasks.append(asyncio.create_task(read_on()))
        for _ in range(20 if LONG else 4):
            enough = len(acknowledged) + chance.randint(20, 200)
            async with asyncio.timeout(60):
                while len(acknowledged) < enough:
                    await asyncio.sleep(0.005)
            town.servers[0].kill()
            await asyncio.to_thread(town.servers[0].start, town.servers[0].port)
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)

    for at in (0, 1):
        for name in READERS:
            async with asyncio.timeout(SWEPT_SECONDS):
                while missing := set(acknowledged) - set(found := await town.whole_feed(at, name)):
                    await asyncio.sleep(0.2)
            assert not missing
            assert len(found) == len(set(found)), "a tweet is there twice"
    counts = model.counts()
    for tweet in (*model.top(50), *chance.sample(model.live(), 20)):
        path = f"/tweet?tweet_id={UUID(bytes=tweet)}"
        async with asyncio.timeout(SWEPT_SECONDS):
            while (await town.ask(1, "GET", path, 200))["count_retweet"] != counts[tweet]:
                await asyncio.sleep(0.2)


async def test_memcached_killed_hung_and_back_under_load(town: Town, memcached: Memcached) -> None:
    await town.post(0, "ada", "begin")
    for name in READERS:
        await town.post(0, name, "I read")
        await town.follow(0, name, "ada")
    live, gone, stop = ["begin"], set[str](), asyncio.Event()

    async def write_on(writer: int) -> None:
        """Two are posted and one is deleted, which waits a second while memcached is away. By one server only."""
        number = 0
        while not stop.is_set():
            number += 1
            kept = await town.post(0, "ada", f"kept {writer}: {number}")
            doomed = await town.post(0, "ada", f"doomed {writer}: {number}")
            live.append(kept["body"])
            await town.ask(0, "DELETE", f"/tweet/@ada?tweet_id={doomed['id']}", 204)
            gone.add(doomed["body"])
            await asyncio.sleep(0.01)

    async def read_on(at: int) -> None:
        while not stop.is_set():
            for name in READERS:
                known = set(gone)
                back = known & set(await town.feed(at, name, 20))
                assert not back, f"deleted tweets came back: {back}"
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(task) for task in (*map(write_on, range(8)), read_on(0))]
    await asyncio.sleep(2)  # the second server is idle meanwhile
    for _ in range(2):
        memcached.kill()
        await asyncio.sleep(0.5)
        memcached.start()
        await asyncio.sleep(1.5)
        memcached.pause()
        await asyncio.sleep(1.0)
        memcached.resume()
        await asyncio.sleep(1.5)
    tasks.append(asyncio.create_task(read_on(1)))
    await asyncio.sleep(1.5)
    stop.set()
    await asyncio.gather(*tasks)
    assert len(live) > 20
    for at in (0, 1):
        for name in READERS:
            async with asyncio.timeout(SWEPT_SECONDS):
                while set(found := await town.whole_feed(at, name)) != set(live):
                    await asyncio.sleep(0.2)
            assert len(found) == len(live)
