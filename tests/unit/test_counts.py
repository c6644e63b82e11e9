"""Counts of users that are kept for a moment: what a process changed itself it shows at once."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId
from rookery.domain.users import UserCounts
from rookery.services.counts import CHEAP_BELOW, COUNTS_SECONDS, MOST_COUNTS_SECONDS, Counts

ADA = UserId(b"a" * 16)


class Counting:
    """A store that counts when the test says so."""

    def __init__(self, followers: int = 0, takes: Callable[[], None] = lambda: None) -> None:
        self.followers = followers
        self._takes = takes
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def user_counts(self, _: UserId) -> UserCounts:
        self.asked += 1
        found = UserCounts(self.followers, 0, 0)
        await self.go_on.wait()
        self._takes()
        return found


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def counts_of(store: Counting, clock: Clock | None = None) -> Counts:
    return Counts(cast("Any", store), cast("Any", clock or Clock()))


@pytest.mark.parametrize(
    ("followers", "took", "kept"),
    [
        (CHEAP_BELOW - 1, 0.4, COUNTS_SECONDS - 0.4),  # what changed while it was counted is seen in time, too
        (CHEAP_BELOW, 0.01, COUNTS_SECONDS - 0.01),
        (CHEAP_BELOW, 0.2, 4.0),
        (CHEAP_BELOW, 100.0, MOST_COUNTS_SECONDS),
    ],
)
async def test_they_are_kept_for_a_second_or_as_long_as_they_are_dear(followers: int, took: float, kept: float) -> None:
    clock = Clock()
    store = Counting(followers, lambda: clock.pass_seconds(took))
    counts = counts_of(store, clock)
    await counts.of(ADA)
    clock.now += kept - 0.001
    await counts.of(ADA)
    assert store.asked == 1
    clock.now += 0.002
    await counts.of(ADA)
    assert store.asked == 2


@pytest.mark.parametrize(("followers", "took"), [(1, 10.0), (CHEAP_BELOW, 0.01)])
async def test_what_this_process_changed_is_counted_at_once_where_that_is_cheap(followers: int, took: float) -> None:
    clock = Clock()
    store = Counting(followers, lambda: clock.pass_seconds(took))
    counts = counts_of(store, clock)
    assert (await counts.of(ADA)).followers == followers
    store.followers += 1
    counts.forget(ADA)
    assert (await counts.of(ADA)).followers == followers + 1


async def test_what_is_dear_to_count_stays_for_its_time() -> None:
    clock = Clock()
    store = Counting(CHEAP_BELOW, lambda: clock.pass_seconds(1.0))
    counts = counts_of(store, clock)
    await counts.of(ADA)
    store.followers += 1
    counts.forget(ADA)
    assert (await counts.of(ADA)).followers == CHEAP_BELOW
    counts.forget_all()
    assert (await counts.of(ADA)).followers == CHEAP_BELOW + 1


async def test_readers_at_once_share_one_count() -> None:
    store = Counting(1)
    counts = counts_of(store)
    store.go_on.clear()
    reading = [asyncio.create_task(counts.of(ADA)) for _ in range(20)]
    await asyncio.sleep(0)
    reading[0].cancel()  # the one that began it
    await asyncio.sleep(0)
    store.go_on.set()
    assert [found.followers for found in await asyncio.gather(*reading[1:])] == [1] * 19
    assert store.asked == 1
    await counts.of(ADA)
    assert store.asked == 1, "and it is kept"


async def test_what_is_dear_is_kept_though_it_changes_all_the_time() -> None:
    clock = Clock()
    store = Counting(CHEAP_BELOW, lambda: clock.pass_seconds(1.0))
    counts = counts_of(store, clock)
    for _ in range(8):
        store.go_on.clear()
        reading = asyncio.create_task(counts.of(ADA))
        await asyncio.sleep(0)
        counts.forget(ADA)
        store.go_on.set()
        await reading
    assert store.asked == 1


async def test_a_change_while_it_is_counted_is_not_missed() -> None:
    for second_reader in (False, True):
        store = Counting(1)
        counts = counts_of(store)
        store.go_on.clear()
        reading = [asyncio.create_task(counts.of(ADA))]
        await asyncio.sleep(0)
        store.followers = 2
        counts.forget(ADA)
        if second_reader:
            reading.append(asyncio.create_task(counts.of(ADA)))
            await asyncio.sleep(0)
        store.go_on.set()
        await asyncio.gather(*reading)
        assert (await counts.of(ADA)).followers == 2


async def test_a_count_that_fails_is_counted_again() -> None:
    def fail() -> None:
        raise unavailable

    unavailable = Unavailable("store_unavailable", "It is away.")
    counts = counts_of(Counting(1, fail))
    for answer in await asyncio.gather(counts.of(ADA), counts.of(ADA), return_exceptions=True):
        assert answer is unavailable
    counts._store = cast("Any", Counting(1))
    assert (await counts.of(ADA)).followers == 1
    assert not counts._counting
    assert not counts._running
