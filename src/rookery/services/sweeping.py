"""Sweeping: promises that were not kept in time, as their maker died or something was away, are kept by anyone."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

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
COUNTED_MILLIS = 10 * 60 * 1000
"""How long before its end a ranking may forget what it was told: more than any of its logs is behind."""
UNKNOWN_MILLIS = 60 * 60 * 1000
"""As long ago it may have ended where nobody saw it: a process that begins tells it all that was noted since."""
COUNTED = frozenset({Work.POST, Work.DELETE})


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
    run: bytes | None = None
    """The ranking's run that was told all that was counted lately; none yet in this process."""
    answered: int = 0
    """When that run answered last."""
    telling: bytes = b""
    """The run that is being told, and how far that has come."""
    told: bytes = b""

    async def sweep(self) -> int:
        """Keep those that are overdue; how many were kept. What can't be kept now holds up nobody."""
        await self._tell_again()
        swept, waiting, after = 0, 0, b""
        before = self.clock.now() - OVERDUE_MILLIS
        while found := await self.store.promises(before, after, _AT_ONCE):
            after = found[-1].id
            for promise in found:
                try:
                    if await self._keep(promise):
                        self.promises.keep(promise)
                        swept += 1
                except Unavailable:
                    waiting += 1
                except Exception:  # noqa: BLE001 - one that can't be kept must not keep the others
                    _log.exception("a promise could not be kept")
            if not await self.promises.flush():
                break
        if waiting:
            _log.warning("%d promises wait for what is away", waiting)
        return swept

    async def _tell_again(self) -> None:
        """Count again what was counted lately, if the ranking may have forgotten it. Each counts once."""
        try:
            run = await self.top.ranking.run()
            if run not in {b"", self.run}:
                await self._tell_all(run)
        except Unavailable:
            return  # it is asked again with the next sweep
        self.run, self.answered = run, self.clock.now()

    async def _tell_all(self, run: bytes) -> None:
        """Tell a new run of what is promised, whatever its age, and then of what was noted.

        A note comes before its promise goes, so nothing slips between. What was stopped goes on where it was.
        """
        after = b""
        while promised := await self.store.promises(self.clock.now() + 1_000, after, _AT_ONCE):
            after = promised[-1].id
            await self._count_again([one for one in promised if one.work in COUNTED])
        if run != self.telling:
            self.telling, self.told = run, b""
        since = self.answered - COUNTED_MILLIS if self.run is not None else self.clock.now() - UNKNOWN_MILLIS
        many = 0
        while noted := await self.store.counted(since, self.told, _AT_ONCE):
            await self._count_again(noted)
            self.told = noted[-1].id
            many += len(noted)
        if many and self.run is not None:
            _log.warning("the ranking began anew: %d of the last counts were told again", many)

    async def _count_again(self, promises: Sequence[Promise]) -> None:
        records = await self.store.tweets([TweetId(one.subject) for one in promises])
        for record in records.values():
            try:
                await (self.top.uncount(record) if record.deleted else self.top.count(record))
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - one that can't be counted must not keep the others
                _log.exception("a tweet could not be counted again")

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
        if promise.id not in self.delivered:
            await self.fanout.admit()
            # To all followers, whatever the author has become since: who pulls him as well sees each tweet once.
            await self.fanout.deliver(tweet, record.author, FanoutState.RISING)
            self.delivered.add(promise.id)
            if self.fanout.is_under_way(tweet, record.author):
                return False
        await self.top.count(record)
        self.delivered.discard(promise.id)
        return True

    async def _take_back(self, tweet: TweetId) -> None:
        record = (await self.store.tweets([tweet])).get(tweet)
        await self.filler.drop([TWEET + tweet])
        if record is not None and record.deleted:
            await self.top.uncount(record)
