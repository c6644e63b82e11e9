"""Authors between push and pull while the wall clock is set: no follower's feed lacks a tweet."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rookery.domain.users import FanoutState, UserRecord
from rookery.services import fanout
from rookery.services.callers import ANYONE
from tests.interleaving import InlineDatabase
from tests.unit.nest import Nest, nest_on

MINUTE, HOUR = 60_000, 3_600_000
THRESHOLD = 3


@pytest.fixture
async def nest(tmp_path: Path) -> AsyncIterator[Nest]:
    database = InlineDatabase(tmp_path / "test.db")
    async with nest_on(database, THRESHOLD) as nest:
        yield nest
    await database.close()


async def state(nest: Nest) -> FanoutState:
    changes = await nest.rookery.backends.store.fanout_changes()
    return changes[0].state if changes else FanoutState.PUSHED


async def risen(nest: Nest, minutes_before: int = 0) -> tuple[UserRecord, list[UserRecord]]:
    """An author who begins to rise so long after the followers read their feeds."""
    author = await nest.user("ada")
    readers = await nest.readers(THRESHOLD, "ada")
    nest.clock.millis += minutes_before * MINUTE
    await nest.post(author, "first")
    await expect(nest, readers, "first")
    assert await state(nest) is FanoutState.RISING
    await nest.rookery.fanout.review()
    return author, readers


async def expect(nest: Nest, readers: list[UserRecord], body: str) -> None:
    missing = [reader.name for reader in readers if body not in await nest.feed(reader)]
    assert not missing, f"{body} is not in the feed of {missing}"


async def pass_minutes(nest: Nest, readers: list[UserRecord], minutes: int) -> None:
    """Time with a review each minute, and with reads, so that what the feeds need stays in the cache."""
    for _ in range(minutes):
        nest.clock.millis += MINUTE
        await nest.rookery.fanout.review()
        for reader in readers:
            await nest.feed(reader)


async def expect_change_after(nest: Nest, seconds: int, before: FanoutState, after: FanoutState) -> None:
    """The state changes when so many seconds have passed, and not a millisecond earlier."""
    nest.clock.millis += 1_000 * seconds - 1
    await nest.rookery.fanout.review()
    assert await state(nest) is before
    nest.clock.millis += 1
    await nest.rookery.fanout.review()
    assert await state(nest) is after


async def test_an_author_rises_and_falls_in_their_time(nest: Nest) -> None:
    author, readers = await risen(nest)
    await expect_change_after(nest, fanout.RISE_SECONDS, FanoutState.RISING, FanoutState.PULLED)
    await nest.post(author, "pulled")
    await expect(nest, readers, "pulled")
    follows = nest.rookery.services.follows
    for reader in readers[1:]:
        await follows.unfollow(ANYONE, reader, author)
    await nest.rookery.fanout.review()
    assert await state(nest) is FanoutState.FALLING
    await expect_change_after(nest, fanout.FALL_SECONDS, FanoutState.FALLING, FanoutState.PUSHED)


async def test_a_clock_an_hour_forth_and_back_moves_nobody_on(nest: Nest) -> None:
    author, readers = await risen(nest)
    nest.clock.set_by = HOUR + 2 * MINUTE
    await nest.rookery.fanout.review()
    nest.clock.set_by = 0
    assert await state(nest) is FanoutState.RISING
    await nest.post(author, "second")
    await expect(nest, readers, "second")


async def test_a_clock_set_back_lengthens_the_wait(nest: Nest) -> None:
    """What the readers know of their authors looks younger then, and is kept for longer."""
    author, readers = await risen(nest, minutes_before=5)
    await pass_minutes(nest, readers, 30)
    nest.clock.set_by = -25 * MINUTE
    await pass_minutes(nest, readers, 33)
    assert await state(nest) is FanoutState.RISING
    await pass_minutes(nest, readers, 29)
    assert await state(nest) is FanoutState.PULLED
    await nest.post(author, "second")
    await expect(nest, readers, "second")


async def test_what_was_cached_by_a_clock_ahead_is_not_believed(nest: Nest) -> None:
    nest.clock.set_by = HOUR
    author = await nest.user("ada")
    readers = await nest.readers(THRESHOLD, "ada")
    nest.clock.set_by = 0
    await nest.post(author, "first")
    await pass_minutes(nest, readers, 62)
    assert await state(nest) is FanoutState.PULLED
    await nest.post(author, "second")
    await expect(nest, readers, "second")


async def test_a_process_that_starts_anew_waits_anew(nest: Nest) -> None:
    await risen(nest)
    nest.clock.millis += 1_000 * fanout.RISE_SECONDS
    other = fanout.Fanout(
        nest.rookery.backends.store,
        nest.rookery.backends.cache,
        nest.clock,
        nest.rookery.fanout._promises,
        THRESHOLD,
    )
    await other.review()
    assert await state(nest) is FanoutState.RISING
    nest.clock.millis += 1_000 * fanout.RISE_SECONDS
    await other.review()
    assert await state(nest) is FanoutState.PULLED
