"""Sweeping: promises that were not kept in time, as their maker died or something was away, are kept by anyone."""

import logging
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId, millis_of
from rookery.domain.promises import Promise, Work, made_ahead
from rookery.domain.tallies import Reading
from rookery.domain.users import FanoutState
from rookery.ports.clock import Clock
from rookery.ports.store import Store
from rookery.services.fanout import Fanout
from rookery.services.filling import AUTHOR, TWEET, Filler
from rookery.services.follows import drop_relation
from rookery.services.promises import Promises
from rookery.services.top import Top

_log = logging.getLogger(__name__)

OVERDUE_MILLIS = 10_000
"""How old a promise must be before others than its maker keep it: older than most that are on their way."""
_AT_ONCE = 100


@dataclass(slots=True)
class Sweeping:
    """Keeps overdue promises. Many processes may do so at once: all work can be done twice."""

    store: Store
    filler: Filler
    clock: Clock
    fanout: Fanout
    top: Top
    promises: Promises
    delivered: set[bytes] = field(default_factory=set)
    """Promises of posts that were delivered here and can't be counted yet, so that they are not delivered again."""

    oldest: int | None = None
    """When the oldest was made that the last sweep could not keep (milliseconds since 1970)."""
    waiting: int = 0
    """How many those were."""

    def readings(self) -> Iterable[Reading]:
        """What is behind."""
        oldest = self.oldest
        age = (self.clock.now() - oldest) / 1000 if oldest is not None else 0.0
        yield Reading("pending_overdue", "Promises that the last sweep could not keep.", self.waiting)
        yield Reading("pending_oldest_seconds", "Age of the oldest of them; 0 where there is none.", age)

    async def sweep(self) -> int:
        """Keep those that are overdue; how many were kept. What can't be kept now holds up nobody."""
        swept, waiting, unkept = 0, 0, 0
        oldest: int | None = None
        seen: set[bytes] = set()
        async for found in self._overdue():
            seen.update(promise.id for promise in found)
            for promise in found:
                try:
                    if await self._keep(promise):
                        self.promises.keep(promise)
                        swept += 1
                        continue
                except Unavailable:
                    waiting += 1
                except Exception:  # noqa: BLE001 - one that can't be kept must not keep the others
                    _log.exception("a promise could not be kept")
                unkept += 1
                oldest = min(oldest or sys.maxsize, millis_of(promise.id))
            if not await self.promises.flush():
                break
        else:
            self.delivered &= seen  # the others were kept by somebody else
        self.oldest, self.waiting = oldest, unkept
        if waiting:
            _log.warning("%d promises wait for what is away", waiting)
        return swept

    async def _overdue(self) -> AsyncIterator[Sequence[Promise]]:
        """Those that are old enough, some at a time, and those that were made while the clock was ahead."""
        now = self.clock.now()
        for before, start in ((now - OVERDUE_MILLIS, b""), made_ahead(now)):
            after = start
            while found := await self.store.promises(before, after, _AT_ONCE):
                after = found[-1].id
                yield found

    async def _keep(self, promise: Promise) -> bool:
        """Do what was promised, again if it was done; False if it is still on its way."""
        match promise.work:
            case Work.POST:
                return await self._deliver(promise, TweetId(promise.subject))
            case Work.DELETE:
                await self._take_back(TweetId(promise.subject))
            case Work.FOLLOWS:
                await drop_relation(self.filler, UserId(promise.subject))
            case Work.USER:
                await self.filler.drop([AUTHOR + promise.subject])
        return True

    async def _deliver(self, promise: Promise, tweet: TweetId) -> bool:
        record = (await self.store.tweets([tweet])).get(tweet)
        if record is None or record.deleted:  # its delete has a promise of its own
            return True
        if self.fanout.is_under_way(tweet, record.author):
            return False
        uncounted: Exception | None = None
        try:
            await self.top.count(record)
        except Exception as error:  # noqa: BLE001 - his followers get it all the same
            uncounted = error
        if promise.id not in self.delivered:
            if not self.fanout.admit_if_idle(record.author):
                return False
            # To all followers, whatever the author has become since: who pulls him as well sees each tweet once.
            await self.fanout.deliver(tweet, record.author, FanoutState.RISING)
            self.delivered.add(promise.id)
            if self.fanout.is_under_way(tweet, record.author):
                return False
        if uncounted:
            raise uncounted
        self.delivered.discard(promise.id)
        return True

    async def _take_back(self, tweet: TweetId) -> None:
        record = (await self.store.tweets([tweet])).get(tweet)
        await self.filler.drop([TWEET + tweet])
        if record is not None and record.deleted:
            await self.top.uncount(record)
