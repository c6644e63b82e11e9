"""Store and ranking in different places: the services do the counts that the store owes, and go on while they can't."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.config import Settings
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, parse_id
from rookery.domain.tweets import Tweet
from rookery.domain.users import UserRecord
from rookery.services.callers import ANYONE
from rookery.services.tweets import Draft
from rookery.wiring import Backends, Rookery, join
from tests.clocks import HandClock


class Apart:
    """The services on two files, the second of which holds the ranking alone."""

    def __init__(self, rookery: Rookery, ranking: Database) -> None:
        self.rookery = rookery
        self.ranking = ranking

    async def user(self, name: str) -> UserRecord:
        return await self.rookery.services.accounts.find_or_make(ANYONE, name)

    async def post(self, name: str, retweet: bytes | None = None) -> bytes:
        draft = Draft("", "x", TweetId(retweet) if retweet else None)
        posted = await self.rookery.services.tweets.post(ANYONE, await self.user(name), draft)
        return parse_id(str(msgspec.json.decode(posted, type=Tweet).id))

    async def count(self, tweet: bytes) -> int | None:
        shown = await self.rookery.services.tweets.get(TweetId(tweet))
        return msgspec.json.decode(shown, type=Tweet).count_retweet


@asynccontextmanager
async def apart(folder: Path, ranking_file: str = "ranking.db") -> AsyncIterator[Apart]:
    clock = HandClock(len(ranking_file), start=1_750_000_000_000 + 1_000 * len(ranking_file))
    store, ranking = Database(folder / "store.db"), Database(folder / ranking_file)
    backends = Backends(
        SqliteStore(store, counts=False), MemoryCache(1 << 20, clock.monotonic), SqliteRanking(ranking), clock
    )
    hasher = Argon2Hasher()
    try:
        yield Apart(join(Settings(data=folder, auth="open"), backends, hasher), ranking)
    finally:
        hasher.close()
        await store.close()
        await ranking.close()


async def test_retweets_and_deletes_are_counted_along_the_chain(tmp_path: Path) -> None:
    async with apart(tmp_path) as town:
        root = await town.post("ada")
        middle = await town.post("bob", root)
        last = await town.post("carol", middle)
        assert [await town.count(tweet) for tweet in (root, middle, last)] == [2, 1, 0]
        await town.rookery.services.tweets.delete(ANYONE, await town.user("carol"), TweetId(last))
        await town.rookery.services.tweets.delete(ANYONE, await town.user("carol"), TweetId(last))
        assert [await town.count(tweet) for tweet in (root, middle)] == [1, 0]


async def test_a_ranking_that_knows_nothing_learns_the_chain_from_the_store(tmp_path: Path) -> None:
    async with apart(tmp_path) as town:
        root = await town.post("ada")
        middle = await town.post("bob", root)
        last = await town.post("carol", middle)
    async with apart(tmp_path, "empty.db") as town:
        await town.post("dave", last)
        assert [await town.count(tweet) for tweet in (root, middle, last)] == [3, 2, 1]
    async with apart(tmp_path, "empty too.db") as town:
        await town.rookery.services.tweets.delete(ANYONE, await town.user("carol"), TweetId(last))
        found = await town.rookery.services.top.recount(lambda _: None)
        assert found.tweets == 4
        assert [await town.count(tweet) for tweet in (root, middle)] == [2, 1]


async def test_a_deleted_users_retweets_are_taken_back(tmp_path: Path) -> None:
    async with apart(tmp_path) as town:
        root = await town.post("ada")
        for _ in range(3):
            await town.post("bob", root)
        await town.rookery.services.accounts.delete(ANYONE, await town.user("bob"))
        await town.rookery.chores.do_all()
        assert await town.count(root) == 0


async def test_tweets_go_on_without_the_ranking(tmp_path: Path) -> None:
    async with apart(tmp_path) as town:
        root = await town.post("ada")
        bob = await town.user("bob")
        await town.rookery.services.follows.follow(ANYONE, bob, await town.user("ada"), None)
        town.ranking.reader.close()
        assert await town.count(root) is None
        assert len((await town.rookery.services.feeds.home(bob.id, 10, None)).items) == 1
        with pytest.raises(Unavailable) as refused:
            await town.rookery.services.top.list(10)
        assert refused.value.code == "ranking_unavailable"
        report = await town.rookery.services.health.look()
        assert (report.ready, report.ranking) == (True, "ranking_unavailable")
