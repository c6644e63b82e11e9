"""Random histories of everything people do: every answer equals brute force, whatever the cache and the threshold."""

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.memcached import MemcachedCache
from rookery.adapters.memory import MemoryCache
from rookery.adapters.redis import RedisRanking, RedisStore
from rookery.adapters.sqlite import SqliteRanking, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.config import Settings
from rookery.domain.ids import TweetId
from rookery.domain.users import UserRecord
from rookery.ports.cache import Cache
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services import fanout
from rookery.services.callers import ANYONE
from rookery.services.jobs import Jobs
from rookery.services.tweets import Draft
from rookery.wiring import Backends, Rookery, join
from tests.clocks import HandClock
from tests.contract.adapters import cassandra
from tests.contract.adapters.memcached import PERIOD, StillClock, servers
from tests.contract.adapters.redis import REDIS, prefix_of, redis_access
from tests.interleaving import InlineDatabase
from tests.model import Model, id_of

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
NAMES = [f"user{number}" for number in range(6)]
CACHES = [0, 2_000, 8_000, 1 << 20]
THRESHOLDS = [None, 0, 1, 2, 3, 5]

people = st.sampled_from(NAMES)


class Histories(RuleBasedStateMachine):
    """One community, from its first user on. Everything is asked through the services that the web calls."""

    tweets = Bundle("tweets")

    @initialize(cache=st.sampled_from(CACHES), threshold=st.sampled_from(THRESHOLDS))
    def found(self, cache: int, threshold: int | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.clock = HandClock()
        self.model = Model()
        self.users: dict[str, UserRecord] = {}
        self.hasher = Argon2Hasher()
        self.start(cache, threshold)

    def start(self, cache: int, threshold: int | None) -> None:
        path = Path(self.folder.name)
        self.database = InlineDatabase(path / "rookery.db")
        backends = self.do(self.open(cache))
        chosen = Settings(data=path, auth="open", pull_threshold="off" if threshold is None else threshold)
        self.rookery: Rookery = join(chosen, backends, self.hasher)

    async def open(self, cache: int) -> Backends:
        """The cache and ranking of the process that starts."""
        memory = MemoryCache(cache, self.clock.monotonic)
        return Backends(SqliteStore(self.database, counts=True), memory, SqliteRanking(self.database), self.clock)

    async def close(self) -> None:
        """The process ends."""
        await self.rookery.promises.flush()
        await self.rookery.backends.cache.close()
        await self.rookery.backends.ranking.close()
        await self.rookery.backends.store.close()
        await self.database.close()

    def do(self, step: Any) -> Any:
        return self.runner.run(step)

    @property
    def services(self) -> Any:
        return self.rookery.services

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.do(self.close())
            self.hasher.close()
            self.runner.close()
            self.folder.cleanup()

    def user(self, name: str) -> UserRecord:
        """A user who is made when he is first needed; under a deleted one's name comes another."""
        if name not in self.users:
            free = name + "_" * sum(gone.startswith(name) for gone in self.model.gone)
            made = self.do(self.services.accounts.register(ANYONE, free, None))
            self.users[name] = self.do(self.services.accounts.find(str(made.user_id)))
        return self.do(self.services.accounts.find_name(self.users[name].name))  # type: ignore[no-any-return]

    @rule(target=tweets, author=people, initial=st.sampled_from([0, 0, 0, 7]))
    def post(self, author: str, initial: int) -> bytes:
        posted = self.do(self.services.tweets.post(ANYONE, self.user(author), Draft("", "x", initial=initial)))
        self.model.post(id_of(posted), self.users[author].name, initial=initial)
        return id_of(posted)

    @rule(target=tweets, author=people, original=tweets)
    def retweet(self, author: str, original: bytes) -> bytes:
        if self.model.tweets[original].deleted:
            return original
        posted = self.do(self.services.tweets.post(ANYONE, self.user(author), Draft("", "", TweetId(original))))
        self.model.post(id_of(posted), self.users[author].name, original)
        return id_of(posted)

    @rule(one=people, other=people)
    def follow(self, one: str, other: str) -> None:
        if one != other:
            self.do(self.services.follows.follow(ANYONE, self.user(one), self.user(other), None))
            self.model.follow(self.users[one].name, self.users[other].name)

    @rule(one=people, other=people)
    def unfollow(self, one: str, other: str) -> None:
        if one != other:
            self.do(self.services.follows.unfollow(ANYONE, self.user(one), self.user(other)))
            self.model.unfollow(self.users[one].name, self.users[other].name)

    @rule(tweet=tweets)
    def delete(self, tweet: bytes) -> None:
        posted = self.model.tweets[tweet]
        if posted.author not in self.model.gone:
            author = self.do(self.services.accounts.find_name(posted.author))
            self.do(self.services.tweets.delete(ANYONE, author, TweetId(tweet)))
            self.model.delete(tweet)

    @rule(name=people, purged=st.booleans())
    def delete_user(self, name: str, purged: bool) -> None:
        user = self.user(name)
        self.do(self.services.accounts.delete(ANYONE, user))
        self.model.delete_user(user.name)
        del self.users[name]
        if purged:
            self.do(self.rookery.chores.purge())

    @rule(name=people, limit=st.integers(1, 12))
    def read_feed(self, name: str, limit: int) -> None:
        got, cursor = [], None
        while True:
            page = self.do(self.services.feeds.home(self.user(name).id, limit, cursor))
            got += [id_of(item) for item in page.items]
            assert len(page.items) == limit or page.next is None
            cursor = page.next
            if cursor is None:
                break
        assert got == self.model.feed(self.users[name].name)

    @rule(tweet=tweets)
    def read_chain(self, tweet: bytes) -> None:
        if self.model.tweets[tweet].deleted:
            return
        page = self.do(self.services.tweets.chain(TweetId(tweet), 100, None))
        assert [id_of(item) for item in page.items] == self.model.chain(tweet)

    @rule()
    def lose_the_cache(self) -> None:
        self.do(self.rookery.backends.cache.clear())

    @rule(cache=st.sampled_from(CACHES), threshold=st.sampled_from(THRESHOLDS))
    def restart(self, cache: int, threshold: int | None) -> None:
        self.do(self.close())
        self.start(cache, threshold)

    @rule(passed=st.sampled_from([1, 61, 3_600, fanout.RISE_SECONDS, fanout.FALL_SECONDS]))
    def time_passes(self, passed: int) -> None:
        self.clock.millis += 1_000 * passed
        self.do(self.rookery.chores.do_all())

    @invariant()
    def the_top_list_is_right(self) -> None:
        if not hasattr(self, "runner"):
            return
        top = [id_of(item) for item in self.do(self.services.top.list(10))]
        if not self.do(self.rookery.backends.store.users_to_purge(1)):  # else counts are on their way
            assert top == self.model.top(10)

    @invariant()
    def counts_of_users_are_right(self) -> None:
        if not hasattr(self, "runner") or self.do(self.rookery.backends.store.users_to_purge(1)):
            return
        for name, user in self.users.items():
            shown = self.do(self.services.accounts.show(user))
            followers = sum(user.name in followees for followees in self.model.following.values())
            followees = len(self.model.following.get(user.name, ()))
            assert (name, shown.count_followers, shown.count_followees, shown.count_tweets) == (
                name,
                followers,
                followees,
                len(self.model.by_author(user.name)),
            )


@dataclass(frozen=True, slots=True)
class Parts:
    """What the settings chose."""

    store: str
    cache: str
    ranking: str

    @property
    def period(self) -> float:
        """Of the epochs, in seconds; half of it is for reading one."""
        return 0.1 if self.store == "cassandra" else PERIOD


class HistoriesElsewhere(Histories):
    """The same with parts that outlive the process and what it promised, in every combination that settings allow."""

    stores: ClassVar[Sequence[str]] = ("sqlite", *REDIS)

    @initialize(
        cache=st.sampled_from(CACHES),
        threshold=st.sampled_from(THRESHOLDS),
        store=st.integers(0, 5),
        shared=st.booleans(),
        ranking=st.sampled_from(["sqlite", *REDIS]),
    )
    def found(self, cache: int, threshold: int | None, store: int, shared: bool, ranking: str) -> None:
        self.parts = Parts(self.stores[store % len(self.stores)], "memcached" if shared else "memory", ranking)
        super().found(cache, threshold)

    async def open(self, cache: int) -> Backends:
        store, ranking = await self.open_store(), self.open_ranking()
        if self.parts.cache == "memory":
            in_file = self.parts.store == self.parts.ranking == "sqlite"
            return Backends(store, MemoryCache(cache, self.clock.monotonic), ranking, self.clock, apart=not in_file)
        return Backends(store, await self.open_memcached(store), ranking, self.clock, apart=True)

    async def open_memcached(self, store: Store) -> Cache:
        clock, period = StillClock(), self.parts.period
        shared = MemcachedCache([servers(1)[0].address], store, clock, run=Jobs(clock).run, timeout=2.0, period=period)
        await shared.__aenter__()
        if not await store.epochs():
            await shared.clear()
        probe = b"probe:" + bytes(16)
        async with asyncio.timeout(60):
            while not all(await shared.add_many([probe], b"", 1)):
                await shared.delete([probe])
                await shared._epochs.read()  # known from now on, if this was in time
                clock.seconds += period
                await shared._epochs.read()  # and used, as long as the clock stands still
        return shared

    def open_ranking(self) -> Ranking:
        if self.parts.ranking == "sqlite":
            return SqliteRanking(self.database)
        access = redis_access(self.parts.ranking)
        return RedisRanking(access, SystemClock(), timeout=30, prefix=prefix_of(Path(self.folder.name)))

    async def open_store(self) -> Store:
        if self.parts.store == "sqlite":
            return SqliteStore(self.database, counts=self.parts.ranking == "sqlite")
        access = redis_access(self.parts.store)
        store = RedisStore(access, self.clock, prefix=prefix_of(Path(self.folder.name)), seconds=30)
        await store.open()
        return store


class HistoriesOnCassandra(HistoriesElsewhere):
    """The same with Cassandra for the store."""

    stores = ("cassandra",)

    async def open_store(self) -> Store:
        if not hasattr(self, "keyspace"):
            self.keyspace = await cassandra.keyspace_of(Path("histories"))
            await cassandra.empty(self.keyspace)
        return await cassandra.opened(self.keyspace, self.clock)


@pytest.mark.parametrize(
    ("machine", "share"),
    [(Histories, 1.0), (HistoriesElsewhere, 0.3), (HistoriesOnCassandra, 0.1)],
    ids=["embedded", "elsewhere", "cassandra"],
)
def test_every_answer_equals_brute_force(machine: type[Histories], share: float) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=round(share * (2_000 if LONG else 40)),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
