"""Where the ids of a process begin, from start to start."""

from typing import Any, cast

from rookery.adapters.system import SystemClock
from rookery.domain.ids import millis_of
from rookery.services.timekeeping import NOTED_SECONDS, Timekeeping


class Noting:
    """A store that keeps the newest time it was told."""

    def __init__(self, newest: int) -> None:
        self.newest = newest

    async def latest(self) -> int:
        return self.newest

    async def note_latest(self, millis: int) -> None:
        self.newest = max(self.newest, millis)


async def start(store: Noting) -> tuple[SystemClock, Timekeeping]:
    clock = SystemClock()
    made = Timekeeping(cast("Any", store), clock)
    await made.begin()
    await made.note()
    return clock, made


async def test_starts_without_a_tweet_change_nothing() -> None:
    """Each begins a second above what was noted: noted itself, it would add up."""
    now = SystemClock().now()
    store = Noting(now)
    for _ in range(8):
        await start(store)
    assert store.newest == now


async def test_the_newest_id_of_a_process_is_noted_and_the_next_one_begins_above_it() -> None:
    ahead = SystemClock().now() + 3_600_000
    store = Noting(ahead)
    clock, timekeeping = await start(store)
    first = millis_of(clock.new_tweet_id())
    assert first > ahead + NOTED_SECONDS * 1_000
    await timekeeping.note()
    assert store.newest == first
    clock, _ = await start(store)
    assert millis_of(clock.new_tweet_id()) > first + NOTED_SECONDS * 1_000
