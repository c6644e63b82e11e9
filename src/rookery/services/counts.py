"""How many followers, followees and tweets users have, kept for a moment."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from rookery.domain.ids import UserId
from rookery.domain.users import UserCounts
from rookery.ports.clock import Clock
from rookery.ports.store import Store

CHEAP_BELOW = 10_000
"""Counts below this are counted anew after every change made by this process, however long that takes."""
COUNTS_SECONDS = 1.0
"""How long counts are shown without asking the store: what another process changes is seen within it."""
MOST_COUNTS_SECONDS = 60.0
"""The same where counting takes very long."""
_SHARE = 20
"""Counts of `CHEAP_BELOW` and more are kept for so many times as long as it took to count them, if that is more."""
_REMEMBERED = 10_000
"""Users whose counts are kept."""


@dataclass(frozen=True, slots=True)
class _Known:
    counts: UserCounts
    until: float
    """When they are counted anew, by the monotonic clock."""
    is_dear: bool
    """Whether they stay until then though this process changed them."""


class Counts:
    """The counts of users as the store counts them, kept for a moment. Concurrent readers share one count."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: OrderedDict[UserId, _Known] = OrderedDict()
        self._counting: dict[UserId, asyncio.Task[UserCounts]] = {}
        """The count under way of each user, taken out by a change that it may not have seen."""
        self._running: set[asyncio.Task[UserCounts]] = set()
        self._epoch = 0
        """How often everything was forgotten."""

    async def of(self, user: UserId) -> UserCounts:
        """A user's counts, with all that this process changed unless they are dear, and what others did a second ago.

        Raises:
            Unavailable: as the store.
        """
        known = self._known.get(user)
        if known and known.until > self._clock.monotonic():
            return known.counts
        counting = self._counting.get(user)
        if counting is None:
            counting = self._counting[user] = asyncio.create_task(self._count(user))
            self._running.add(counting)
            counting.add_done_callback(self._end)
        return await asyncio.shield(counting)

    def forget(self, *users: UserId) -> None:
        """Count again what has changed, where that is cheap."""
        for user in users:
            self._counting.pop(user, None)
            known = self._known.get(user)
            if known and not known.is_dear:
                del self._known[user]

    def forget_all(self) -> None:
        """Count everyone's anew."""
        self._epoch += 1
        self._counting.clear()
        self._known.clear()

    async def _count(self, user: UserId) -> UserCounts:
        begun, epoch = self._clock.monotonic(), self._epoch
        try:
            counts = await self._store.user_counts(user)
        finally:
            saw_all = self._counting.get(user) is asyncio.current_task()
            if saw_all:
                del self._counting[user]
        now = self._clock.monotonic()
        seconds = _kept_seconds(counts, now - begun)
        is_dear = seconds > COUNTS_SECONDS
        until = (now if is_dear else begun) + seconds
        if saw_all or (is_dear and epoch == self._epoch):
            self._known[user] = _Known(counts, until, is_dear)
            self._known.move_to_end(user)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        await asyncio.sleep(0)  # counting takes up to some milliseconds, and a page shows a hundred users
        return counts

    def _end(self, counting: "asyncio.Task[UserCounts]") -> None:
        self._running.discard(counting)
        if not counting.cancelled():
            counting.exception()  # those who wait are told; there may be none any more


def _kept_seconds(counts: UserCounts, took: float) -> float:
    if max(counts.followers, counts.followees, counts.tweets) < CHEAP_BELOW:
        return COUNTS_SECONDS
    return min(max(COUNTS_SECONDS, _SHARE * took), MOST_COUNTS_SECONDS)
