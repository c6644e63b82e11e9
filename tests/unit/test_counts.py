"""Counts of users that are kept for a moment: what a process changed itself it shows at once."""

import asyncio
from typing import Any, cast

from rookery.domain.ids import UserId
from rookery.domain.users import UserCounts
from rookery.services.counts import COUNTS_SECONDS, EXACT_BELOW, GREAT_COUNTS_SECONDS, Counts

ADA = UserId(b"a" * 16)


class Counting:
    """A store that counts when the test says so."""

    def __init__(self, followers: int = 0) -> None:
        self.followers = followers
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def user_counts(self, _: UserId) -> UserCounts:
        self.asked += 1
        found = UserCounts(self.followers, 0, 0)
        await self.go_on.wait()
        return found


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def counts_of(store: Counting, clock: Clock | None = None) -> Counts:
    return Counts(cast("Any", store), cast("Any", clock or Clock()))


async def test_they_are_kept_for_a_second_and_great_ones_for_a_minute() -> None:
    for followers, seconds in ((EXACT_BELOW - 1, COUNTS_SECONDS), (EXACT_BELOW, GREAT_COUNTS_SECONDS)):
        store, clock = Counting(followers), Clock()
        counts = counts_of(store, clock)
        await counts.of(ADA)
        clock.now += seconds - 0.01
        await counts.of(ADA)
        assert store.asked == 1
        clock.now += 0.02
        await counts.of(ADA)
        assert store.asked == 2


async def test_what_this_process_changed_is_counted_at_once_where_that_is_cheap() -> None:
    store = Counting(1)
    counts = counts_of(store)
    assert (await counts.of(ADA)).followers == 1
    store.followers = 2
    counts.forget(ADA)
    assert (await counts.of(ADA)).followers == 2
    store.followers = EXACT_BELOW
    counts.forget_all()
    assert (await counts.of(ADA)).followers == EXACT_BELOW
    store.followers = EXACT_BELOW + 1
    counts.forget(ADA)
    assert (await counts.of(ADA)).followers == EXACT_BELOW


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
    store = Counting(1)
    counts = counts_of(store)
    store.go_on.clear()
    failing = asyncio.create_task(counts.of(ADA))
    await asyncio.sleep(0)
    failing.cancel()
    await asyncio.gather(failing, return_exceptions=True)
    store.go_on.set()
    assert (await counts.of(ADA)).followers == 1
    assert not counts._counting
