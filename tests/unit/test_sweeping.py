"""Promises: made with a write, kept at once, and swept up by anyone when their maker died or something was away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.config import Settings
from rookery.domain.errors import Unavailable
from rookery.domain.idempotency import once
from rookery.domain.ids import TweetId, UserId
from rookery.domain.promises import Work
from rookery.domain.tweets import Link
from rookery.domain.users import UserRecord
from rookery.ports.cache import Cache
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services import fanout
from rookery.services.callers import ANYONE
from rookery.services.sweeping import OVERDUE_MILLIS
from rookery.services.telling import LATE_MILLIS
from rookery.services.tweets import Draft
from rookery.wiring import Backends, Rookery, join
from tests.clocks import HandClock
from tests.model import id_of


class Away:
    """Stands before a cache or ranking, which fails while it is away."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object, **kwargs: object) -> object:
            if self.is_away:
                raise Unavailable("away", "away")
            return await getattr(self.inner, name)(*args, **kwargs)

        return call


class Town:
    """Two processes on one store, cache and ranking; the first one's ways to cache and ranking can be cut."""

    def __init__(self, one: Rookery, other: Rookery, cache: Away, ranking: Away, clock: HandClock) -> None:
        self.one, self.other = one, other
        self.cache, self.ranking = cache, ranking
        self.clock = clock

    async def user(self, name: str, *following: str) -> UserRecord:
        made = await self.one.services.accounts.find_or_make(ANYONE, name)
        for followee in following:
            found = await self.one.services.accounts.find_name(followee)
            await self.one.services.follows.follow(ANYONE, made, found, None)
        return made

    async def feed(self, user: UserRecord) -> list[str]:
        page = await self.other.services.feeds.home(user.id, 10, None)
        return [item.split(b'"body":"')[1].split(b'"')[0].decode() for item in page.items]

    async def sweep(self) -> int:
        self.clock.millis += OVERDUE_MILLIS + 1
        swept = await self.other.chores.sweeping.sweep()
        await self.other.promises.flush()
        return swept

    async def count(self, root: TweetId) -> int:
        return (await self.other.backends.ranking.counts([(root, root)]))[0]

    async def promised(self) -> list[Work]:
        await self.one.promises.flush()
        found = await self.one.backends.store.promises(self.clock.now() + 1_000, b"", 100)
        return sorted(promise.work for promise in found)


@asynccontextmanager
async def town_in(folder: Path) -> AsyncIterator[Town]:
    clock = HandClock()
    files = Database(folder / "store.db"), Database(folder / "ranking.db")
    store = SqliteStore(files[0], counts=False)
    shared, ranking = MemoryCache(1 << 20, clock.monotonic), SqliteRanking(files[1])
    cut_cache, cut_ranking = Away(shared), Away(ranking)
    settings = Settings(data=folder, auth="open")
    hasher = Argon2Hasher()
    cut = cast("Store", store), cast("Cache", cut_cache), cast("Ranking", cut_ranking), clock, True
    try:
        one = join(settings, Backends(*cut), hasher)
        other = join(settings, Backends(store, shared, ranking, clock, apart=True), hasher)
        yield Town(one, other, cut_cache, cut_ranking, clock)
    finally:
        hasher.close()
        for file in files:
            await file.close()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with town_in(tmp_path) as town:
        yield town


async def test_what_was_kept_is_not_swept(town: Town) -> None:
    ada = await town.user("ada")
    bob = await town.user("bob", "ada")
    await town.one.services.tweets.post(ANYONE, ada, Draft("", "hello"))
    await town.one.services.follows.unfollow(ANYONE, bob, ada)
    assert await town.promised() == []
    assert await town.sweep() == 0


async def test_a_tweet_whose_fanout_and_count_never_came_is_delivered_and_counted_once(town: Town) -> None:
    ada = await town.user("ada")
    bob = await town.user("bob", "ada")
    root = await town.one.services.tweets.post(ANYONE, ada, Draft("", "root"))
    assert await town.feed(bob) == ["root"]
    town.cache.is_away = town.ranking.is_away = True
    original = id_of(root)
    await town.one.services.tweets.post(ANYONE, ada, Draft("", "retweet", original))
    assert await town.promised() == [Work.POST]
    assert await town.feed(bob) == ["root"]
    assert await town.sweep() == 1
    assert await town.feed(bob) == ["retweet", "root"]
    assert await town.count(original) == 1
    assert await town.sweep() == 0
    assert await town.count(original) == 1


async def test_a_delete_that_was_cut_off_is_swept(town: Town) -> None:
    ada = await town.user("ada")
    bob = await town.user("bob", "ada")
    posted = await town.one.services.tweets.post(ANYONE, ada, Draft("", "gone"))
    tweet = id_of(posted)
    again = await town.one.services.tweets.post(ANYONE, bob, Draft("", "", tweet))
    retweet = id_of(again)
    assert await town.feed(bob) == ["gone"]
    town.cache.is_away = town.ranking.is_away = True
    for author, one in ((ada, tweet), (bob, retweet)):
        with pytest.raises(Unavailable):
            await town.one.services.tweets.delete(ANYONE, author, one)
    assert await town.promised() == [Work.DELETE, Work.DELETE]
    assert await town.sweep() == 2
    assert await town.feed(bob) == []
    assert await town.count(tweet) == 0
    assert await town.other.backends.ranking.top(10) == []


async def test_follows_and_users_that_were_cut_off_are_swept(town: Town) -> None:
    ada, eve = await town.user("ada"), await town.user("eve")
    bob = await town.user("bob", "ada", "eve")
    for author in (ada, eve):
        await town.one.services.tweets.post(ANYONE, author, Draft("", author.name))
    assert await town.feed(bob) == ["eve", "ada"]
    town.cache.is_away = True
    with pytest.raises(Unavailable):
        await town.one.services.follows.unfollow(ANYONE, bob, ada)
    with pytest.raises(Unavailable):
        await town.one.services.accounts.delete(ANYONE, eve)
    assert await town.feed(bob) == ["eve", "ada"]
    assert await town.promised() == [Work.FOLLOWS, Work.USER]
    assert await town.sweep() == 2
    assert await town.feed(bob) == []


async def test_what_can_not_be_kept_yet_stays_and_holds_up_nobody(town: Town) -> None:
    ada = await town.user("ada")
    town.ranking.is_away = True
    await town.one.services.tweets.post(ANYONE, ada, Draft("", "uncounted"))
    assert await town.promised() == [Work.POST]
    town.clock.millis += OVERDUE_MILLIS + 1
    assert await town.one.chores.sweeping.sweep() == 0, "it is away for this one still"
    assert await town.promised() == [Work.POST]
    town.ranking.is_away = False
    assert await town.one.chores.sweeping.sweep() == 1
    assert await town.promised() == []


async def test_a_delivery_that_is_still_on_its_way_is_not_swept(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "SLICE", 1)
    monkeypatch.setattr(fanout, "ANSWER_SECONDS", 0.0)
    ada = await town.user("ada")
    readers = [await town.user(name, "ada") for name in ("bob", "eve")]
    for reader in readers:
        assert await town.feed(reader) == []
    await town.one.services.tweets.post(ANYONE, ada, Draft("", "slowly"))  # its worker does not run
    assert await town.promised() == [Work.POST]
    town.clock.millis += OVERDUE_MILLIS + 1
    assert await town.one.chores.sweeping.sweep() == 0
    assert await town.promised() == [Work.POST]
    assert await town.sweep() == 0, "another process begins with it as well"
    worker = asyncio.create_task(town.other.fanout.run())
    await asyncio.wait_for(town.other.fanout.drain(), 10)
    worker.cancel()
    assert [await town.feed(reader) for reader in readers] == [["slowly"]] * 2
    assert await town.sweep() == 1
    assert await town.promised() == []


async def test_what_can_not_be_kept_does_not_hide_what_can(town: Town) -> None:
    ada = await town.user("ada")
    bob = await town.user("bob", "ada")
    town.ranking.is_away = True
    for number in range(120):
        await town.one.services.tweets.post(ANYONE, ada, Draft("", f"uncounted {number}"))
    town.cache.is_away = True
    with pytest.raises(Unavailable):
        await town.one.services.follows.unfollow(ANYONE, bob, ada)
    town.cache.is_away = False
    await town.promised()
    town.clock.millis += OVERDUE_MILLIS + 1
    assert await town.one.chores.sweeping.sweep() == 1
    assert await town.promised() == [Work.POST] * 100
    town.ranking.is_away = False
    assert await town.one.chores.sweeping.sweep() == 120


async def test_a_sweep_ends_though_nothing_can_be_taken_off_the_list(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await town.user("ada"), await town.user("bob")
    town.cache.is_away = True
    for _ in range(120):
        with pytest.raises(Unavailable):
            await town.one.services.follows.follow(ANYONE, bob, ada, None)

    async def refuse(_: object, __: object) -> None:
        raise Unavailable("store_unavailable", "the disk is full")

    monkeypatch.setattr(SqliteStore, "fulfil", refuse)
    async with asyncio.timeout(10):
        await town.sweep()


async def test_tweets_that_were_purged_while_the_ranking_was_away_are_taken_back(town: Town) -> None:
    ada, eve = await town.user("ada"), await town.user("eve")
    root = id_of(await town.one.services.tweets.post(ANYONE, ada, Draft("", "root")))
    for _ in range(3):
        await town.one.services.tweets.post(ANYONE, eve, Draft("", "", root))
    await town.one.services.accounts.delete(ANYONE, eve)
    town.ranking.is_away = True
    await town.one.chores.purge()
    assert await town.count(root) == 3
    town.ranking.is_away = False
    await town.one.chores.purge()
    await town.sweep()
    assert await town.count(root) == 0
    assert await town.promised() == []


async def test_who_is_busy_leaves_the_tweets_of_others_and_keeps_the_rest(town: Town) -> None:
    ada = await town.user("ada")
    bob = await town.user("bob", "ada")
    doomed = id_of(await town.one.services.tweets.post(ANYONE, ada, Draft("", "doomed")))
    town.ranking.is_away = True
    await town.one.services.tweets.post(ANYONE, ada, Draft("", "waits"))
    await town.one.services.tweets.delete(ANYONE, ada, doomed)
    assert await town.promised() == [Work.POST, Work.DELETE]
    town.ranking.is_away = False
    authors = [UserId(number.to_bytes(16, "big")) for number in range(fanout.MAX_WAITING // 4)]
    for author in authors:
        await town.other.fanout.admit(author)
    async with asyncio.timeout(2):
        assert await town.sweep() == 1
    assert await town.promised() == [Work.POST]
    for author in authors:
        town.other.fanout.withdraw(author)
    assert await town.sweep() == 1
    assert await town.feed(bob) == ["waits"]


class Forgetful(SqliteRanking):
    """A ranking that begins anew when it is told to."""

    current = b"first"
    told = 0

    async def run(self) -> bytes:
        return self.current

    async def add(self, link: Link) -> bool:
        self.told += 1
        return await super().add(link)


async def test_a_new_run_is_told_once_whoever_was_there_when_it_began(tmp_path: Path) -> None:
    clock = HandClock()
    files = Database(tmp_path / "store.db"), Database(tmp_path / "ranking.db")
    store, ranking = SqliteStore(files[0], counts=False), Forgetful(files[1])
    backends = Backends(store, MemoryCache(1 << 20, clock.monotonic), ranking, clock, apart=True, forgets=True)
    hasher = Argon2Hasher()
    try:
        one, other = (join(Settings(data=tmp_path, auth="open"), backends, hasher) for _ in range(2))
        author = await one.services.accounts.find_or_make(ANYONE, "ada")
        for body in ("early", "too", "last"):
            await one.services.tweets.post(ANYONE, author, Draft("", body))
            await one.promises.flush()
            await one.chores.telling.tell_again()
            clock.millis += 20 * 60_000
        clock.millis += 3 * 3_600_000  # it is away for hours, and who told it is gone
        ranking.told, ranking.current = 0, b"second"
        for _ in range(2):
            await other.chores.telling.tell_again()
            assert ranking.told == 1, "the last ten minutes before it answered last"
            clock.millis += 61_000
        await other.services.tweets.post(ANYONE, author, Draft("", "late"))
        await other.promises.flush()
        ranking.told, ranking.current = 0, b"third"
        await other.chores.telling.tell_again()
        assert ranking.told == 2, "what was told again a moment ago may be lost as well"
        await one.chores.telling.tell_again()
        assert ranking.told == 2, "another process told it"
    finally:
        hasher.close()
        for file in files:
            await file.close()


async def test_what_a_dead_server_owes_the_ranking_is_counted_long_before_it_is_overdue(tmp_path: Path) -> None:
    clock = HandClock()
    files = Database(tmp_path / "store.db"), Database(tmp_path / "ranking.db")
    store, ranking = SqliteStore(files[0], counts=False), Forgetful(files[1])
    cut = Away(ranking)
    hasher = Argon2Hasher()
    try:
        dead, other = (
            join(
                Settings(data=tmp_path, auth="open"),
                Backends(
                    store, MemoryCache(1 << 20, clock.monotonic), cast("Ranking", to), clock, apart=True, forgets=True
                ),
                hasher,
            )
            for to in (cut, ranking)
        )
        author = await other.services.accounts.find_or_make(ANYONE, "ada")
        root = id_of(await other.services.tweets.post(ANYONE, author, Draft("", "root")))
        await other.promises.flush()
        await other.chores.telling.tell_again()
        cut.is_away = True
        retweet = id_of(await dead.services.tweets.post(ANYONE, author, Draft("", "x", root)))
        assert await ranking.counts([(root, root)]) == [0]
        told = 0
        for _ in range(3):
            clock.millis += LATE_MILLIS + 1
            told = ranking.told
            await other.chores.telling.tell_again()
            assert await ranking.counts([(root, root)]) == [1]
        assert ranking.told == told, "once is enough"
        await other.services.tweets.delete(ANYONE, author, retweet)
        assert await ranking.counts([(root, root)]) == [0]
        left = await store.promises(clock.now() + 1_000, b"", 10)
        assert Work.POST in [promise.work for promise in left], "it is delivered when it is overdue"
    finally:
        hasher.close()
        for file in files:
            await file.close()


async def test_promises_of_a_time_when_the_clock_was_ahead_are_kept_too(town: Town) -> None:
    ada = await town.user("ada")
    bob = await town.user("bob", "ada")
    assert await town.feed(bob) == []
    hour = 60 * 60 * 1000
    town.clock.millis += hour
    town.cache.is_away = town.ranking.is_away = True
    tweet = await town.one.services.tweets.post(ANYONE, ada, Draft("", "from the future"))
    town.cache.is_away = town.ranking.is_away = False
    assert await town.promised() == [Work.POST]
    town.clock.millis -= hour
    async with asyncio.timeout(5):
        while await town.sweep() == 0:
            town.clock.millis += 100
    assert await town.feed(bob) == ["from the future"]
    assert id_of(tweet) in {item.tweet for item in await town.other.backends.ranking.top(10)}
    assert await town.promised() == []


async def test_a_follow_asked_for_again_drops_what_is_cached_again(town: Town) -> None:
    """The first server may have ended between its write and that."""
    ada, bob = await town.user("ada"), await town.user("bob")
    await town.one.services.tweets.post(ANYONE, ada, Draft("", "x"))
    assert await town.feed(bob) == []
    key = once(b"", "key", b"digest", town.clock.now())
    await town.one.backends.store.follow(bob.id, ada.id, town.clock.now(), 10, key)  # and there it ended
    assert await town.feed(bob) == [], "what is cached is of before"
    assert await town.other.services.follows.is_done(key, "@bob")
    assert await town.feed(bob) == ["x"]
    assert await town.other.services.follows.is_done(key, "@nobody"), "also for one who is gone"
