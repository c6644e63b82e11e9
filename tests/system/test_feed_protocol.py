"""The fill protocol under random interleavings of posts, follows, deletes, evictions, celebrities and reads."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rookery.adapters.argon2 import Argon2Hasher
from rookery.config import Settings
from rookery.domain.errors import Failure
from rookery.domain.ids import TweetId
from rookery.domain.users import UserRecord
from rookery.services import fanout, feeds, filling
from rookery.services.callers import ANYONE
from rookery.services.tweets import Draft
from rookery.wiring import Backends, Rookery, join
from tests.clocks import HandClock
from tests.interleaving import InlineDatabase, interleaved_backends, leave_out, small_numbers
from tests.model import Model, id_of

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
SEEDS = int(os.environ.get("SEEDS", "20000")) if LONG else 25
USERS = 5
STEPS = 100
PAGE = 3
HALF_AN_HOUR = 30 * 60 * 1000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[InlineDatabase]:
    made = InlineDatabase(tmp_path / "test.db")
    yield made
    asyncio.run(made.close())


@pytest.fixture(autouse=True)
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    small_numbers(monkeypatch, PAGE)


class History:
    """One seed's history: actors begin at random and run interleaved; what they acknowledged is noted in the model."""

    def __init__(self, rookery: Rookery, clock: HandClock, seed: int) -> None:
        self.rookery = rookery
        self.clock = clock
        self.chance = random.Random(seed)
        self.model = Model()
        self.users: dict[str, UserRecord] = {}
        self.faults: list[str] = []
        self.changing: set[tuple[str, str]] = set()
        self.changes: Counter[tuple[str, str]] = Counter()
        """How often each relation began to change: a read that overlaps with one may see either."""
        self.deleted: set[bytes] = set()
        """Tweets whose delete was answered."""
        self.seen: dict[bytes, str] = {}
        """Tweets seen in their author's list, answered or not, and who that is."""

    async def run(self) -> list[str]:
        for number in range(USERS):
            name = f"user{number}"
            made = await self.rookery.services.accounts.register(ANYONE, name, None)
            self.users[name] = await self.rookery.services.accounts.find(str(made.user_id))
        worker = asyncio.create_task(self.rookery.fanout.run())
        running: set[asyncio.Task[None]] = set()
        for _ in range(STEPS):
            if self.chance.random() < 0.02:
                await asyncio.gather(*running)
                await self._jump()
            task = asyncio.create_task(self._act())
            running.add(task)
            for _ in range(self.chance.choice((0, 1, 3, 9, 27))):
                await asyncio.sleep(0)
            if len(running) > 8:
                await asyncio.gather(*running)
                running.clear()
        await asyncio.gather(*running)
        await self.rookery.fanout.drain()
        for _ in range(5):  # what was read twice an hour is still there hours later, and must still be right
            for name in self.users:
                await self._expect_feed(name)
            self.clock.millis += HALF_AN_HOUR
        worker.cancel()
        return self.faults

    async def _act(self) -> None:
        one, other = self.chance.sample(sorted(self.users), 2)
        kind = self.chance.random()
        services = self.rookery.services
        if kind < 0.35:
            await self._read_while_others_write(one)
        elif kind < 0.40:
            await self._read_list(other)
        elif kind < 0.65:
            await self._post(one)
        elif kind < 0.75:
            await self._change_follow(one, other)
        elif kind < 0.84:  # a fan-out may have read the followers before
            posting = asyncio.create_task(self._post(other))
            await self._change_follow(one, other)
            await self._read_while_others_write(one)
            await posting
            await self._read_while_others_write(one)
        elif kind < 0.90 and (live := self.model.live()):
            tweet = self.chance.choice(live)
            author = self.users[self.model.tweets[tweet].author]
            self.model.tweets[tweet].deleted = True  # from now on it may be gone
            await services.tweets.delete(ANYONE, author, TweetId(tweet))
            self.deleted.add(tweet)
        else:
            await self._evict()

    async def _post(self, name: str) -> None:
        author = await self.rookery.services.accounts.find(f"@{name}")
        posted = await self.rookery.services.tweets.post(ANYONE, author, Draft("", "x"))
        self.model.post(id_of(posted), name)

    async def _change_follow(self, one: str, other: str) -> None:
        if (one, other) in self.changing:
            return
        self.changing.add((one, other))
        self.changes[one, other] += 1
        follower, followee = self.users[one], self.users[other]
        if other in self.model.following.get(one, set()):
            await self.rookery.services.follows.unfollow(ANYONE, follower, followee)
            self.model.unfollow(one, other)
        else:
            await self.rookery.services.follows.follow(ANYONE, follower, followee, None)
            self.model.follow(one, other)
        self.changing.remove((one, other))

    async def _evict(self) -> None:
        cache = self.rookery.backends.cache
        kinds = (filling.TIMELINE, filling.TAIL, filling.RELATION, filling.EXCEPTIONS, filling.TWEET, filling.AUTHOR)
        user = self.users[self.chance.choice(sorted(self.users))].id
        await cache.delete([self.chance.choice(kinds) + user])

    async def _jump(self) -> None:
        """Time passes while nothing is under way: celebrities rise and fall, values grow old."""
        await self.rookery.fanout.drain()
        await self.rookery.fanout.review()
        self.clock.millis += 1_000 * self.chance.choice((1, 40, fanout.RISE_SECONDS, fanout.FALL_SECONDS))
        await self.rookery.fanout.review()

    async def _read_while_others_write(self, name: str) -> None:
        """What was acknowledged before the read must be there, and what was gone before it must not."""
        before = {tweet: self.model.tweets[tweet].author for tweet in self.model.live()} | self.seen
        followed = set(self.model.following.get(name, set()))
        gone = set(self.deleted)
        unsure = {followee for follower, followee in self.changing if follower == name}
        changes = self.changes.copy()
        page = await self.rookery.services.feeds.home(self.users[name].id, PAGE, None)
        shown = [id_of(item) for item in page.items]
        unsure |= {followee for follower, followee in self.changes - changes if follower == name}
        for tweet, author in before.items():
            posted = self.model.tweets.get(tweet)
            due = author in followed - unsure and not (posted and posted.deleted)
            if due and tweet not in shown and (len(shown) < PAGE or tweet > shown[-1]):
                self.faults.append(f"{name}: a tweet of {author} is missing that was acknowledged or seen elsewhere")
        authors = {msgspec.json.decode(item)["user_name"] for item in page.items}
        if authors - followed - unsure:
            self.faults.append(f"{name}: a tweet of one who was unfollowed came back")
        if gone & set(shown):
            self.faults.append(f"{name}: a deleted tweet came back")
        if shown != sorted(set(shown), reverse=True):
            self.faults.append(f"{name}: out of order or twice")

    async def _read_list(self, name: str) -> None:
        """What anyone has seen in its author's list must be in every feed that is read from then on."""
        author = await self.rookery.services.accounts.find(f"@{name}")
        page = await self.rookery.services.tweets.by_author(author, PAGE, None)
        self.seen.update((id_of(item), name) for item in page.items)

    async def _expect_feed(self, name: str) -> None:
        want = self.model.feed(name)
        got: list[bytes] = []
        cursor = None
        while True:
            page = await self.rookery.services.feeds.home(self.users[name].id, PAGE, cursor)
            got += [id_of(item) for item in page.items]
            cursor = page.next
            if cursor is None:
                break
        if got != want:
            self.faults.append(f"{name}: {len(got)} tweets, not the {len(want)} of brute force")


def run_seed(database: InlineDatabase, seed: int, settings: Settings) -> list[str]:
    """The faults of one history. Exceptions hold no, one or two unfollows in turn, so that more come soon."""
    feeds.MOST_UNFOLLOWED = seed % 3  # the fixture `numbers` puts it back

    async def run() -> list[str]:
        with interleaved_backends(database, seed, settings.cache_bytes) as (store, cache, ranking, clock):
            hasher = Argon2Hasher()
            try:
                rookery = join(settings, Backends(store, cache, ranking, clock), hasher)
                return await History(rookery, clock, seed).run()
            except Failure as failure:
                return [failure.code]
            finally:
                hasher.close()

    return [f"seed {seed}: {fault}" for fault in asyncio.run(run())]


def settings_of(seed: int) -> Settings:
    """Every kind of cache and threshold in turn."""
    cache_bytes = (1 << 20, 1 << 20, 20_000, 3_000, 0)[seed % 5]
    threshold = (None, 0, 1, 2, 3, 4)[seed % 6]
    return Settings(
        data=Path(),
        auth="open",
        cache_bytes=cache_bytes,
        pull_threshold="off" if threshold is None else threshold,
    )


def test_every_interleaving_ends_as_brute_force_says(database: InlineDatabase) -> None:
    faults = [fault for seed in range(SEEDS) for fault in run_seed(database, seed, settings_of(seed))]
    assert faults == []


@pytest.mark.parametrize("rule", ["nonce", "footer", "floor", "exceptions", "overflow", "drop"])
def test_leaving_out_a_rule_is_noticed(rule: str, database: InlineDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out(rule, monkeypatch)
    settings = Settings(data=Path(), auth="open", cache_bytes=1 << 20, pull_threshold=2)
    # One in hundreds of seeds notices some of them; the first one soon from here on.
    assert any(run_seed(database, seed, settings) for seed in range(100, 2_100))
