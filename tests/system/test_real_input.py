"""Whole graphs loaded, whole feeds read: every answer over HTTP against brute force from the raw files."""

import asyncio
import os
import random
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import pytest

from rookery.client import Client
from rookery.domain.tweets import Tweet
from tests.contract.adapters import cassandra
from tests.model import Model
from tests.servers import running
from tests.serving import Server
from tests.system.clients import leading
from tests.system.commands import rookery
from tests.system.worlds import World, counted_file, counted_rows, generated_world, real_world
from tools.servers import Memcached, Redis, RedisCluster
from tools.servers.rookery import apply_schema

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

T = TypeVar("T")

AT_ONCE = 8
MOST_CHANGES = 500
LONG = os.environ.get("TEST_LONG") == "1"
FOLLOWED_TO_THE_END = 200 if LONG else 20
SHARE_AGAIN = 1 if LONG else 3
"""Of so many users the short form reads one's feed again, after the changes and after the restart."""


class Town:
    """Servers with a world loaded into them, asked in turn, and the model of what they must answer."""

    def __init__(self, clients: Sequence[Client], world: World, chance: random.Random) -> None:
        self.clients = cycle(clients)
        self.world = world
        self.chance = chance
        self.model = Model()
        self.texts: dict[bytes, str] = {}
        for follower, followee in world.edges:
            self.model.follow(follower, followee)

    @property
    def client(self) -> Client:
        """The next one."""
        return next(self.clients)

    async def everyone_posts(self) -> None:
        names = self.world.names
        authors = [names[number % len(names)] for number in range(len(self.world.texts))]

        async def post(author: str, text: str) -> None:
            tweet = await self.client.post(author, text)
            self.model.post(tweet.id.bytes, author)
            self.texts[tweet.id.bytes] = text

        await each(zip(authors, self.world.texts, strict=True), post)

    async def change_much(self) -> None:
        """Deletes, unfollows and new follows, all at once."""
        many = min(MOST_CHANGES, len(self.world.edges) // 10)
        doomed = self.chance.sample(self.model.live(), many)
        lost = self.chance.sample([(u, f) for u in sorted(self.model.following) for f in self.model.following[u]], many)
        names = self.world.names
        won = set[tuple[str, str]]()
        while len(won) < many:
            follower, followee = self.chance.sample(names, 2)
            if followee not in self.model.following.get(follower, set()):
                won.add((follower, followee))

        async def delete(tweet: bytes) -> None:
            await self.client.delete_tweet(f"@{self.model.tweets[tweet].author}", as_uuid(tweet))
            self.model.delete(tweet)

        async def unfollow(follower: str, followee: str) -> None:
            await self.client.unfollow(f"@{follower}", f"@{followee}")
            self.model.unfollow(follower, followee)

        async def follow(follower: str, followee: str) -> None:
            await self.client.follow(f"@{follower}", f"@{followee}")
            self.model.follow(follower, followee)

        await asyncio.gather(
            each(((tweet,) for tweet in doomed), delete), each(lost, unfollow), each(sorted(won), follow)
        )

    async def expect_every_feed(self, share: int = 1) -> None:
        """The first page of each user, or of one of so many, and for some users all pages, of ten and of a hundred."""
        feeds = self.model.feeds(self.world.names)
        asked = self.chance.sample(self.world.names, len(self.world.names) // share)

        async def first_page(name: str) -> None:
            page = await self.client.feed_page(f"@{name}", 10)
            assert ids(page.items) == feeds[name][:10], name
            for tweet in page.items:
                assert tweet.body == normal(self.texts[tweet.id.bytes])

        async def all_pages(name: str, limit: int) -> None:
            found = [tweet async for tweet in self.client.feed(f"@{name}", limit)]
            assert ids(found) == feeds[name], (name, limit)

        await each(((name,) for name in asked), first_page)
        some = self.chance.sample(self.world.names, min(FOLLOWED_TO_THE_END, len(self.world.names)))
        await each(((name, limit) for name in some for limit in (10, 100)), all_pages)


@dataclass(frozen=True, slots=True)
class Place:
    """Where Rookery runs: so many servers, with these settings."""

    servers: int
    flags: tuple[str, ...]


shared = cache(running)
"""A server of this kind for all tests of this file."""


def own_ranking() -> tuple[str, str]:
    return "--ranking-keyspace", f"real_{os.urandom(4).hex()}"


def redis_alone() -> Place:
    """One server that has everything in one Redis."""
    address = shared(Redis, fsync="always").address
    flags = ["--store", "redis", "--store-servers", address, "--ranking", "redis", "--ranking-servers", address]
    return Place(1, (*flags, "--store-keyspace", f"real_{os.urandom(4).hex()}", *own_ranking()))


def redis_counting() -> Place:
    """One server on its own file whose retweets are counted by Redis."""
    return Place(1, ("--ranking", "redis", "--ranking-servers", shared(Redis).address, *own_ranking()))


def cluster() -> Place:
    """Two servers on a store, cache and ranking of their own."""
    flags = ["--store", "cassandra", "--store-servers", cassandra.server().address, "--store-replication", "1"]
    flags += ["--store-keyspace", f"real_{os.urandom(4).hex()}"]
    apply_schema(flags)
    flags += ["--cache", "memcached", "--cache-servers", shared(Memcached).address]
    return Place(2, (*flags, "--ranking", "redis", "--ranking-servers", shared(RedisCluster).address, *own_ranking()))


PLACES: Mapping[str, Callable[[], Place]] = {
    "embedded": lambda: Place(1, ()),
    "redis": redis_alone,
    "redis-ranking": redis_counting,
    "cassandra": cluster,
}


@pytest.fixture(params=PLACES.values(), ids=list(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    made: Callable[[], Place] = request.param
    return made()


@pytest.fixture(params=["real", "generated"])
def world(request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> World:
    if request.param == "real" and place.flags and not LONG:
        pytest.skip("3,726 feeds take a minute and more through other servers: make test-long")
    if request.param == "real":
        return real_world()
    return generated_world(tmp_path) if LONG else generated_world(tmp_path, 1, 100, 1_000, 700)


@asynccontextmanager
async def serving(place: Place, data: Path) -> AsyncIterator[list[Client]]:
    servers = [
        Server(data.with_name(f"{data.name}-{number}"), *place.flags, measured=False) for number in range(place.servers)
    ]
    async with AsyncExitStack() as stack:
        for server in servers:
            if server.data != data and not server.data.exists():
                data.mkdir(exist_ok=True)
                server.data.symlink_to(data)
            server.start()
            stack.callback(server.stop)
        yield [await stack.enter_async_context(Client(server.url)) for server in servers]


async def test_every_feed_equals_brute_force(world: World, place: Place, tmp_path: Path) -> None:
    data = tmp_path / "data"
    rookery("load", "graph", str(world.graph_file), "--data", str(data), *place.flags)
    async with serving(place, data) as clients:
        town = Town(clients, world, random.Random(7))
        await town.everyone_posts()
        await town.expect_every_feed()
        await town.change_much()
        await town.expect_every_feed(SHARE_AGAIN)
    async with serving(place, data) as clients:
        town.clients = cycle(clients)
        await town.expect_every_feed(SHARE_AGAIN)


async def test_the_top_ten_is_the_files_own(place: Place, tmp_path: Path) -> None:
    accounts = ["BarackObama", "realDonaldTrump"]
    if not LONG and place.servers > 1:
        accounts.pop()  # thirty thousand tweets take a minute there
    rows = [row for account in accounts for row in counted_rows(account)]
    data = tmp_path / "data"
    for _ in range(2):  # a load that is run again loads nothing twice
        for account in accounts:
            rookery(
                *("load", "tweets", str(counted_file(account)), "--data", str(data), "--encoding", "mac_roman"),
                *("--author-column", "user", "--body-column", "text", "--date-format", "%m/%d/%y %H:%M"),
                *("--count-column", "retweets", "--key-column", "url"),
                *place.flags,
            )
    async with serving(place, data) as clients:
        leaders = sorted(rows, key=lambda row: int(row["retweets"]), reverse=True)[:10]
        top = await leading(clients[0], 10)
        for client in clients:
            assert await leading(client, 10) == top
            assert [tweet.count_retweet for tweet in top] == [int(row["retweets"]) for row in leaders]
            assert [tweet.body for tweet in top] == [normal(row["text"]) for row in leaders]
            for account in accounts:
                mine = [row for row in rows if row["user"] == account]
                assert (await client.user(f"@{account}")).count_tweets == len(mine)
        # The dates are the file's, and retweeting goes on from the file's counts.
        assert (
            f"{top[0].created_at:%m/%d/%y %H:%M}".replace("/0", "/").lstrip("0").replace(" 0", " ")
            == (leaders[0]["created_at"])
        )
        await clients[0].retweet("someone", top[0].id)
        again = await clients[-1].tweet(top[0].id)
        assert again.count_retweet == int(leaders[0]["retweets"]) + 1


async def each(items: Iterable[tuple[object, ...]], step: Callable[..., Awaitable[None]]) -> None:
    """A step for each item, some at once."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await step(*item)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


def normal(text: str) -> str:
    """What a text is stored as."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def ids(tweets: list[Tweet]) -> list[bytes]:
    return [tweet.id.bytes for tweet in tweets]


def as_uuid(raw: bytes) -> str:
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
