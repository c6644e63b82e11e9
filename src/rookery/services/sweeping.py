"""Sweeping: promises that were not kept in time, as their maker died or something was away, are kept by anyone."""

import logging
from dataclasses import dataclass

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.promises import Promise, Work
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
"""How old a promise must be before others than its maker keep it: older than any that is on its way."""
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Sweeping:
    """Keeps overdue promises. Many processes may do so at once: all work can be done twice."""

    store: Store
    filler: Filler
    clock: Clock
    fanout: Fanout
    top: Top
    promises: Promises

    async def sweep(self) -> int:
        """Keep those that are overdue; how many were."""
        swept = 0
        before = self.clock.now() - OVERDUE_MILLIS
        while found := await self.store.promises(before, _AT_ONCE):
            kept = [promise for promise in found if await self._keep(promise)]
            await self.promises.flush()
            swept += len(kept)
            if len(kept) < len(found) or len(found) < _AT_ONCE:
                break  # what could not be kept is tried again in the next sweep
        return swept

    async def _keep(self, promise: Promise) -> bool:
        try:
            match promise.work:
                case Work.POST:
                    await self._deliver(TweetId(promise.subject))
                case Work.DELETE:
                    await self._take_back(TweetId(promise.subject))
                case Work.FOLLOWS:
                    await drop_relation(self.filler, UserId(promise.subject))
                case Work.USER:
                    await self.filler.drop([AUTHOR + promise.subject])
        except Unavailable:
            _log.warning("a promise waits for what is away")
            return False
        self.promises.keep(promise)
        return True

    async def _deliver(self, tweet: TweetId) -> None:
        record = (await self.store.tweets([tweet])).get(tweet)
        if record is None or record.deleted:  # its delete has a promise of its own
            return
        await self.top.count(record)
        await self.fanout.admit()
        # To all followers, whatever the author has become since: who pulls him as well sees each tweet once.
        await self.fanout.deliver(tweet, record.author, FanoutState.RISING)

    async def _take_back(self, tweet: TweetId) -> None:
        record = (await self.store.tweets([tweet])).get(tweet)
        await self.filler.drop([TWEET + tweet])
        if record is not None and record.deleted:
            await self.top.uncount(record)
