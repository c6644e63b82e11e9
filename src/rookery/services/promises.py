"""Pending work: a write is promised with all that follows from it, and what a crash left undone is swept up.

Where cache and ranking live in the process and file of the store nothing is promised: there one transaction is all, and
the cache ends with the process.
"""

import asyncio
import logging
from collections.abc import Iterable

from rookery.domain.errors import Unavailable
from rookery.domain.ids import id_at
from rookery.domain.promises import COUNTED, Promise, Work
from rookery.ports.clock import Clock
from rookery.ports.store import Store

_log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.05
_MOST_AT_ONCE = 1_000


class Promises:
    """Makes promises, if any are `needed`, and takes them off the list when they are kept.

    With `noted` what was counted is noted for a day, as the ranking may forget the last that it was told.
    """

    def __init__(self, store: Store, clock: Clock, *, needed: bool, noted: bool = False) -> None:
        self._store = store
        self._clock = clock
        self._needed = needed
        self._noted = noted
        self._kept: list[Promise] = []
        self._news = asyncio.Event()

    def make(self, work: Work, subject: bytes) -> Promise | None:
        """A promise for the write that it is to be written with."""
        if not self._needed:
            return None
        return Promise(id_at(self._clock.now(), self._clock.random(10)), work, subject)

    def keep(self, promise: Promise | None) -> None:
        """Note that a promise was kept. It is taken off the list soon; if that fails it is kept once more."""
        if promise is not None:
            self._kept.append(promise)
            self._news.set()

    async def note(self, counted: Iterable[tuple[Work, bytes]]) -> None:
        """Note what the ranking was told just now, if it may forget it."""
        now = self._clock.now()
        notes = [Promise(id_at(now, self._clock.random(10)), work, subject) for work, subject in counted]
        if self._noted and notes:
            await self._store.note_counted(notes)

    async def run(self) -> None:
        """Take kept promises off the list, many at once, until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            await self.flush()

    async def flush(self) -> bool:
        """Take those that were kept off the list now; False if the store is away."""
        self._news.clear()
        while self._kept:
            some, self._kept = self._kept[:_MOST_AT_ONCE], self._kept[_MOST_AT_ONCE:]
            try:
                await self.note((promise.work, promise.subject) for promise in some if promise.work in COUNTED)
                await self._store.fulfil([promise.id for promise in some])
            except Unavailable:  # they are swept, and kept again
                _log.warning("kept promises stay on the list, as the store is away")
                return False
        return True
