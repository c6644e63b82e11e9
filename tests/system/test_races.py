"""Races made real: two processes on one store, memcached and Redis, their clocks half a second apart.

Each round has users of its own. The operations of store and cache are held up at random, as on a busy network, so that
every round is another interleaving; several rounds go on at once. What was acknowledged must hold in the end, for both
processes, and what was taken back must not be seen from then on.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.cassandra import CassandraStore, connect
from rookery.adapters.memcached import MemcachedCache
from rookery.adapters.redis import RedisRanking, RedisStore
from rookery.adapters.sqlite import Database, SqliteStore
from rookery.config import Settings
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.users import UserRecord
from rookery.ports.cache import Cache
from rookery.ports.store import Store
from rookery.services import fanout, sweeping
from rookery.services.callers import ANYONE
from rookery.services.jobs import Jobs
from rookery.services.tweets import Draft
from rookery.wiring import Backends, Rookery, join
from tests.clocks import ShiftedClock
from tests.contract.adapters import cassandra
from tests.contract.adapters.memcached import servers
from tests.contract.adapters.redis import REDIS, prefix_of, redis_access
from tests.interleaving import Interleaved, leave_out, small_numbers
from tests.model import Model, id_of

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
ROUNDS = int(os.environ.get("ROUNDS", "1000")) if LONG else 8
AT_ONCE = 8
PAGE = 3
PERIOD = 0.4
"""Of the epochs, in seconds: how long a process waits until it uses a cache."""
THRESHOLD = 3
APART_MILLIS = 500
HOLD_UPS = (0, 0, 0, 0, 0.001, 0.004)
"""How long an operation is held up, one of these seconds."""
SHOWN_SECONDS = 20.0
"""Until what was posted is in every feed: a second, and what a busy machine may need besides."""


class HeldUp(Interleaved):
    """Holds up the operations of a store or cache at random, most of them not at all."""

    async def _pause(self) -> None:
        await hold_up(self._chance)


async def hold_up(chance: random.Random) -> None:
    await asyncio.sleep(chance.choice(HOLD_UPS))


StoreOf = Callable[[ShiftedClock], Awaitable[Store]]


@asynccontextmanager
async def running(store_of: StoreOf, ahead: int, folder: Path, seed: int) -> AsyncIterator[Rookery]:
    """A process: the services, and the jobs without which promises and fan-outs would stay where they are."""
    async with AsyncExitStack() as stack:
        clock, chance = ShiftedClock(ahead), random.Random(seed)
        store = await store_of(clock)
        stack.push_async_callback(store.close)
        addresses = [server.address for server in servers(2)]
        cache = await stack.enter_async_context(
            MemcachedCache(addresses, store, clock, run=Jobs(clock).run, period=PERIOD)
        )
        ranking = RedisRanking(redis_access("redis"), clock, timeout=30, prefix=prefix_of(folder))
        stack.push_async_callback(ranking.close)
        hasher = Argon2Hasher()
        stack.callback(hasher.close)
        held_up = cast("Store", HeldUp(store, chance)), cast("Cache", HeldUp(cache, chance))
        settings = Settings(data=Path(), auth="open", pull_threshold=THRESHOLD)
        rookery = join(settings, Backends(*held_up, ranking, clock, apart=True, forgets=True), hasher)
        await until_used(cache)
        jobs = [asyncio.create_task(job) for job in (rookery.fanout.run(), rookery.promises.run())]
        yield rookery
        await rookery.fanout.drain()
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await rookery.promises.flush()


async def until_used(cache: Cache) -> None:
    """A process uses a cache when it has known its epoch for a period."""
    probes = [b"probe:" + os.urandom(16) for _ in range(20)]
    async with asyncio.timeout(20):
        while not all(await cache.add_many(probes, b"", 1)):
            await cache.delete(probes)
            await asyncio.sleep(0.01)


@dataclass
class Round:
    """A few new people, what they do at either process, and what must come of it."""

    processes: list[Rookery]
    chance: random.Random
    model: Model = field(default_factory=Model)
    users: dict[str, UserRecord] = field(default_factory=dict)
    gone: set[bytes] = field(default_factory=set)
    """Tweets whose delete was answered."""

    @property
    def anywhere(self) -> Rookery:
        return self.chance.choice(self.processes)

    async def people(self, many: int) -> list[str]:
        made = [await self.anywhere.services.accounts.register(ANYONE, _name(), None) for _ in range(many)]
        for each in made:
            self.users[each.name] = await self.anywhere.services.accounts.find(str(each.user_id))
        return [each.name for each in made]

    async def post(self, author: str, retweet: bytes | None = None) -> bytes:
        draft = Draft("", "" if retweet else "x", TweetId(retweet) if retweet else None)
        tweet = id_of(await self._post(self.users[author], draft))
        self.model.post(tweet, author, retweet)
        return tweet

    async def _post(self, author: UserRecord, draft: Draft) -> bytes:
        async with asyncio.timeout(SHOWN_SECONDS):
            while True:
                try:
                    return await self.anywhere.services.tweets.post(ANYONE, author, draft)
                except Unavailable as refused:
                    if refused.code != "busy":  # of others it is not certain that nothing was written
                        raise
                    await asyncio.sleep(0.01)

    async def delete(self, tweet: bytes) -> None:
        author = self.users[self.model.tweets[tweet].author]
        await self.anywhere.services.tweets.delete(ANYONE, author, TweetId(tweet))
        self.model.delete(tweet)
        self.gone.add(tweet)

    async def follow(self, one: str, other: str) -> None:
        await self.anywhere.services.follows.follow(ANYONE, self.users[one], self.users[other], None)
        self.model.follow(one, other)

    async def unfollow(self, one: str, other: str) -> None:
        await self.anywhere.services.follows.unfollow(ANYONE, self.users[one], self.users[other])
        self.model.unfollow(one, other)

    async def read(self, reader: str) -> None:
        gone = set(self.gone)
        page = await self.anywhere.services.feeds.home(self.users[reader].id, PAGE, None)
        shown = [id_of(item) for item in page.items]
        assert shown == sorted(set(shown), reverse=True), "out of order or twice"
        assert not gone & set(shown), "a deleted tweet came back"

    async def review(self) -> None:
        await self.anywhere.fanout.review()

    async def forget(self, reader: str) -> None:
        """The cache loses a timeline."""
        await self.anywhere.backends.cache.delete([b"tl:" + self.users[reader].id])

    async def at_once(self, *acts: Coroutine[Any, Any, object]) -> None:
        """All begin within a few milliseconds of each other, in any order."""

        async def begin(act: Coroutine[Any, Any, object]) -> None:
            await hold_up(self.chance)
            await act

        tasks = [asyncio.create_task(begin(act)) for act in acts]
        try:
            await asyncio.gather(*tasks)
        finally:  # as another round may have failed, which ends this one too
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for act in acts:
                act.close()

    async def expect(self) -> None:
        """At once nobody sees what he should not, soon everybody sees all there is, and so it stays."""
        for process in self.processes:
            for reader in self.users:
                assert set(await self.feed(process, reader)) <= set(self.model.feed(reader)), "what was taken back"
        for process in self.processes:
            for reader in self.users:
                want, got = self.model.feed(reader), await self.feed(process, reader)
                deadline = asyncio.get_running_loop().time() + SHOWN_SECONDS
                while got != want and asyncio.get_running_loop().time() < deadline:
                    await asyncio.sleep(0.01)
                    got = await self.feed(process, reader)
                assert got == want, f"{len(got)} tweets of {len(want)}"

    async def feed(self, process: Rookery, reader: str) -> list[bytes]:
        found: list[bytes] = []
        cursor = None
        while True:
            page = await process.services.feeds.home(self.users[reader].id, PAGE, cursor)
            found += [id_of(item) for item in page.items]
            cursor = page.next
            if cursor is None:
                return found

    async def expect_counts(self) -> None:
        """Each retweet counts once for every tweet above it."""
        counts = self.model.counts()
        for process in self.processes:
            for tweet in self.model.live():
                item = json.loads(await process.services.tweets.get(TweetId(tweet)))
                assert item["count_retweet"] == counts[tweet]


async def post_during_fill(now: Round) -> None:
    reader, author = await now.people(2)
    await now.follow(reader, author)
    await now.post(author)
    await now.at_once(now.read(reader), now.post(author), now.read(reader))


async def follow_during_fill(now: Round) -> None:
    reader, author, other = await now.people(3)
    await now.follow(reader, author)
    for each in (author, other):
        await now.post(each)
    await now.at_once(now.read(reader), now.follow(reader, other), now.read(reader))


async def unfollow_during_fill(now: Round) -> None:
    reader, author, other = await now.people(3)
    for each in (author, other):
        await now.follow(reader, each)
        await now.post(each)
    await now.at_once(now.read(reader), now.unfollow(reader, other), now.read(reader))


async def delete_during_fill(now: Round) -> None:
    reader, author = await now.people(2)
    await now.follow(reader, author)
    tweets = [await now.post(author) for _ in range(PAGE + 1)]
    await now.at_once(now.read(reader), now.delete(now.chance.choice(tweets)), now.read(reader))


async def unfollow_during_fan_out(now: Round) -> None:
    author, *readers = await now.people(6)
    for reader in readers:
        await now.follow(reader, author)
        await now.read(reader)
    leaving = now.chance.sample(readers, 2)
    await now.at_once(now.post(author), now.post(author), *(now.unfollow(reader, author) for reader in leaving))


async def two_fills_with_a_drop_between(now: Round) -> None:
    reader, author, other = await now.people(3)
    for each in (author, other):
        await now.follow(reader, each)
        await now.post(each)
    drop = now.unfollow(reader, other) if now.chance.random() < 0.5 else now.forget(reader)
    await now.at_once(now.read(reader), drop, now.read(reader), now.post(author))


async def trim_during_prepend(now: Round) -> None:
    reader, author = await now.people(2)
    await now.follow(reader, author)
    await now.read(reader)
    for _ in range(4):
        await now.at_once(now.post(author), now.read(reader), now.post(author), now.read(reader))


async def follow_and_unfollow(now: Round) -> None:
    """One at once after the other, whichever clock is ahead; then both together, and either may have won."""
    reader, author = await now.people(2)
    await now.post(author)
    await now.follow(reader, author)
    await now.unfollow(reader, author)
    assert await now.feed(now.anywhere, reader) == []
    await now.follow(reader, author)
    assert await now.feed(now.anywhere, reader) == now.model.feed(reader)
    await now.at_once(now.follow(reader, author), now.unfollow(reader, author), now.read(reader))
    (here, there), ids = now.processes, [now.users[name].id for name in (reader, author)]
    followees = await here.backends.store.followees(ids[0], None, 10)
    now.model.following[reader] = {author} if followees else set()
    assert await there.backends.store.followees(ids[0], None, 10) == followees
    assert list(await there.backends.store.followers(ids[1], None, 10)) == ([ids[0]] if followees else [])


async def a_sweep_beside_the_maker(now: Round) -> None:
    author, other, reader = await now.people(3)
    await now.follow(reader, author)
    await now.follow(reader, other)
    first = await now.post(author)
    second = await now.post(other, first)
    await now.read(reader)
    doomed = await now.post(other, second)
    await now.at_once(
        now.post(author, second),
        now.delete(doomed),
        now.unfollow(reader, other),
        *(early_sweep(process) for process in now.processes),
    )
    await now.at_once(*(early_sweep(process) for process in now.processes))
    await now.expect_counts()


async def early_sweep(process: Rookery) -> None:
    """As of a process that thinks all promises overdue."""
    sweeper = process.chores.sweeping
    ahead = ShiftedClock(2 * APART_MILLIS + sweeping.OVERDUE_MILLIS)
    await replace(sweeper, clock=ahead, delivered=set()).sweep()


RACES = [
    post_during_fill,
    follow_during_fill,
    unfollow_during_fill,
    delete_during_fill,
    unfollow_during_fan_out,
    two_fills_with_a_drop_between,
    trim_during_prepend,
    follow_and_unfollow,
    a_sweep_beside_the_maker,
]


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    small_numbers(monkeypatch, PAGE)


@pytest.fixture(params=["sqlite", "cassandra", *REDIS])
async def processes(request: pytest.FixtureRequest, tmp_path: Path, numbers: None) -> AsyncIterator[list[Rookery]]:
    """Two, one ahead of the machine's clock and one behind."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":

            async def store_of(clock: ShiftedClock) -> Store:
                database = Database(tmp_path / "rookery.db")
                stack.push_async_callback(database.close)
                return SqliteStore(database, counts=False)
        elif request.param in REDIS:

            async def store_of(clock: ShiftedClock) -> Store:
                store = RedisStore(redis_access(request.param), clock, prefix=prefix_of(tmp_path), seconds=30)
                await store.open()
                return store
        else:
            own = request.node.get_closest_marker("own_time")
            keyspace = await (cassandra.new_keyspace() if own else cassandra.keyspace_of(tmp_path))

            async def store_of(clock: ShiftedClock) -> Store:
                stamps = ShiftedClock(clock.ahead)
                session = await connect(cassandra.access(), stamps, keyspace=keyspace, seconds=cassandra.SECONDS)
                return CassandraStore(session, clock)

        half = APART_MILLIS // 2
        made = [running(store_of, ahead, tmp_path, seed) for seed, ahead in enumerate((half, -half))]
        yield list(await asyncio.gather(*(stack.enter_async_context(each) for each in made)))


async def run_rounds(race: Callable[[Round], Awaitable[None]], processes: list[Rookery], rounds: int) -> None:
    """So many of them, a few at once."""
    seeds = iter(range(rounds))

    async def go_on() -> None:
        for seed in seeds:
            now = Round(processes, random.Random(seed))
            try:
                await race(now)
                await now.expect()
            except AssertionError as fault:
                raise AssertionError(f"round {seed}: {fault}") from fault

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(go_on())


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.__name__)
async def test_what_was_acknowledged_holds(race: Callable[[Round], Awaitable[None]], processes: list[Rookery]) -> None:
    await run_rounds(race, processes, ROUNDS)


@pytest.mark.own_time
async def test_a_threshold_crossed_during_posts_loses_nothing(processes: list[Rookery]) -> None:
    """Up and down again, with posts, reads and reviews beside each step."""
    for start in range(0, ROUNDS, AT_ONCE):
        rounds = [Round(processes, random.Random(start + number)) for number in range(AT_ONCE)]
        people = [await now.people(THRESHOLD + 3) for now in rounds]

        async def cross(now: Round, author: str, followers: list[str]) -> None:
            first, *others = followers
            await now.follow(first, author)
            await now.read(first)
            await now.at_once(*(now.follow(each, author) for each in others), now.post(author), now.post(author))
            await now.at_once(now.post(author), now.review(), now.read(first), now.post(author))

        async def go_on(now: Round, author: str, followers: list[str]) -> None:
            await now.at_once(now.post(author), now.review(), now.review(), now.post(author), now.read(followers[0]))

        async def shrink(now: Round, author: str, followers: list[str]) -> None:
            leaving = followers[1:]
            await now.at_once(*(now.unfollow(each, author) for each in leaving), now.post(author), now.review())
            await now.at_once(now.post(author), now.review(), now.read(followers[0]), now.post(author))

        for step, passed in ((cross, fanout.RISE_SECONDS), (go_on, 0), (shrink, fanout.FALL_SECONDS), (go_on, 0)):
            await asyncio.gather(*(step(now, each[0], each[1:]) for now, each in zip(rounds, people, strict=True)))
            await asyncio.gather(*(now.expect() for now in rounds))
            for process in processes:
                await process.fanout.review()  # each counts from when it first saw a change
                cast("ShiftedClock", process.backends.clock).pass_seconds(passed)


@pytest.mark.parametrize("rule", ["nonce", "drop"] if LONG else ["drop"])  # the nonce takes up to thousands of rounds
@pytest.mark.parametrize("processes", ["sqlite"], indirect=True)
async def test_leaving_out_a_rule_is_noticed(
    rule: str, processes: list[Rookery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the rounds are races indeed."""
    monkeypatch.setattr("tests.system.test_races.SHOWN_SECONDS", 1.0)
    leave_out(rule, monkeypatch)
    with pytest.raises(ExceptionGroup) as noticed:
        await run_rounds(follow_during_fill, processes, 10_000)  # most often one of the first few hundred
    assert noticed.group_contains(AssertionError)


def _name() -> str:
    return f"u{os.urandom(12).hex()}"
