"""How many followers, followees and tweets users have, kept for a moment."""

import asyncio
from collections import OrderedDict

from rookery.domain.ids import UserId
from rookery.domain.users import UserCounts
from rookery.ports.clock import Clock
from rookery.ports.store import Store

EXACT_BELOW = 10_000
"""Counts below this are dropped with every change made by this process; greater ones take long to count."""
COUNTS_SECONDS = 1.0
"""How long such counts are shown without asking the store: what another process changes is seen within it."""
GREAT_COUNTS_SECONDS = 60.0
"""The same for a user of whom any count is greater."""
_REMEMBERED = 10_000
"""Users whose counts are kept."""


class Counts:
    """The counts of users as the store counts them, kept for a moment."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: OrderedDict[UserId, tuple[float, UserCounts]] = OrderedDict()
        self._counting: dict[UserId, object] = {}
        """The count under way of each user, taken off by a change that it may not have seen."""

    async def of(self, user: UserId) -> UserCounts:
        """A user's counts: below `EXACT_BELOW` with all that this process changed, and the others a second ago."""
        known = self._known.get(user)
        if known and known[0] > self._clock.monotonic():
            return known[1]
        begun = self._counting[user] = object()
        try:
            counts = await self._store.user_counts(user)
        finally:
            saw_all = self._counting.get(user) is begun
            if saw_all:
                del self._counting[user]
        if saw_all:
            seconds = GREAT_COUNTS_SECONDS if _is_great(counts) else COUNTS_SECONDS
            self._known[user] = (self._clock.monotonic() + seconds, counts)
            self._known.move_to_end(user)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        await asyncio.sleep(0)  # counting takes up to some milliseconds, and a page shows a hundred users
        return counts

    def forget(self, *users: UserId) -> None:
        """Count again what has changed, where that is cheap."""
        for user in users:
            self._counting.pop(user, None)
            known = self._known.get(user)
            if known and not _is_great(known[1]):
                del self._known[user]

    def forget_all(self) -> None:
        """Count everyone's anew."""
        self._counting.clear()
        self._known.clear()


def _is_great(counts: UserCounts) -> bool:
    return max(counts.followers, counts.followees, counts.tweets) >= EXACT_BELOW
