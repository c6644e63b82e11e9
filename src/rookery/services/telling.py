"""Telling again: what a ranking may have forgotten, or was not told in time, is counted. Each counts once.

Until that is done nobody vouches for the ranking, so that counts which may be behind are not shown.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, millis_of
from rookery.domain.promises import AHEAD_MILLIS, COUNTED, Promise, ToldRun, made_ahead
from rookery.ports.clock import Clock
from rookery.ports.store import Store
from rookery.services.counting import Counting
from rookery.services.top import Top

_log = logging.getLogger(__name__)

LAST_MILLIS = 10 * 60 * 1000
"""How long before its end a ranking may forget what it was told: more than any of its logs is behind."""
_SLACK_MILLIS = 1_000
"""More than the clocks of two servers differ."""
_NOTE_MILLIS = 60_000
"""How often the store is told which run answers."""
_AT_ONCE = 100
LATE_MILLIS = 500
"""How old a promise must be before any process counts it: its maker may be dead, or could not reach the ranking."""


@dataclass(slots=True)
class Telling:
    """Watches which run the ranking is in, and tells a new one what the one before was told last.

    Which run was told all, and when it answered last, is kept in the store: so it does not matter who was there when it
    ended.
    """

    store: Store
    clock: Clock
    top: Top
    counting: Counting
    run: bytes | None = None
    """The run that was told all, as far as this process knows."""
    noted: int = 0
    """When the store was told of that run last."""
    half_told: bytes = b""
    """The run that is being told, and how far that has come."""
    told: bytes = b""
    counted: set[bytes] = field(default_factory=set)
    """Promises on the list whose work this process told the run, so that it does not tell it each time."""

    async def tell_again(self) -> None:
        """Tell a new run all that it may lack, and any run of work that is late; then vouch for it.

        What can't be told now is told next time, and nobody vouches until then.
        """
        ranking = self.top.ranking
        now = self.clock.now()
        try:
            run = await ranking.run()
            if run == b"":
                return
            failures = ranking.failures
            is_vouched = run == self.run and ranking.is_vouched
            if run != self.run:
                self.counted.clear()
            if run != self.run or abs(now - self.noted) >= _NOTE_MILLIS:  # the clock may have been set back
                await self._look_at(run, now)
            await self._tell_promised(now - LATE_MILLIS if is_vouched else now + AHEAD_MILLIS)
        except Unavailable:
            return
        ranking.vouch(run, failures)
        self.counting.answered()

    async def _look_at(self, run: bytes, now: int) -> None:
        """Tell a run all that it may lack, unless somebody did, and note that it was."""
        before = await self.store.told_run()
        if before is not None and before.run == run:
            told = replace(before, at=now)
        else:
            told = ToldRun(run, now, now, min(_what_may_be_lost(before), now - LAST_MILLIS))
            await self._tell_all(run, told.since)
        await self.store.note_told_run(told)
        self.run, self.noted = run, now

    async def _tell_promised(self, before: int) -> None:
        """Tell the run of promises that were made before a time and are on the list still.

        Most were told of already and wait for something else, such as their deliveries.
        """
        seen = set[bytes]()
        for until, start in ((before, b""), made_ahead(self.clock.now())):
            after, many = start, _AT_ONCE
            while many == _AT_ONCE:
                found = await self.store.promises(until, after, _AT_ONCE)
                many = len(found)
                seen.update(one.id for one in found)
                after = found[-1].id if found else after
                await self._count_again([one for one in found if one.work in COUNTED and one.id not in self.counted])
        self.counted &= seen

    async def _tell_all(self, run: bytes, since: int) -> None:
        """Tell a new run of what is promised, whatever its age, and then of what was noted from `since` on.

        A note comes before its promise goes, so nothing slips between. What was stopped goes on where it was.
        """
        await self._tell_promised(self.clock.now() + AHEAD_MILLIS)
        until = self.clock.now() + _SLACK_MILLIS  # what comes later it is this run that was told
        if run != self.half_told:
            self.half_told, self.told = run, b""
        many = 0
        while noted := await self.store.counted(since, self.told, _AT_ONCE):
            if millis_of(noted[0].id) > until:
                break
            await self._count_again(noted)
            self.told = noted[-1].id
            many += len(noted)
        _, ahead = made_ahead(until)
        while noted := await self.store.counted(since, ahead, _AT_ONCE):  # while the clock was ahead
            await self._count_again(noted)
            ahead = noted[-1].id
            many += len(noted)
        if many:
            _log.warning("the ranking began anew: %d of the last counts were told again", many)

    async def _count_again(self, promises: Sequence[Promise]) -> None:
        records = await self.store.tweets([TweetId(one.subject) for one in promises]) if promises else {}
        for record in records.values():
            try:
                await (self.top.uncount(record) if record.deleted else self.top.count(record))
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - one that can't be counted must not keep the others
                _log.exception("a tweet could not be counted again")
        self.counted.update(one.id for one in promises if one.subject in records)


def _what_may_be_lost(before: ToldRun | None) -> int:
    """From when on the next run is told: what the one before was told last, also of what was told again."""
    if before is None:
        return 0
    last = before.at - LAST_MILLIS
    return min(last, before.since) if before.at - before.begun < LAST_MILLIS else last
