"""New tweets are the newest, also after the machine's clock was set back and the server started again."""

import logging
from dataclasses import dataclass

from rookery.ports.clock import Clock
from rookery.ports.store import Store

_log = logging.getLogger(__name__)

MOST_AHEAD_MILLIS = 24 * 60 * 60 * 1000
"""How far ahead of the clock the newest tweet may be, so that new ones still come behind it."""
WARNED_MILLIS = 1_000
"""How far ahead it may be without a warning: the clocks of several servers differ so much."""
NOTED_SECONDS = 1
"""How often a process notes the time of its newest id. One that was killed may have made newer ones for so long."""


@dataclass(slots=True)
class Timekeeping:
    """Knows the time of the newest tweet across starts."""

    store: Store
    clock: Clock
    noted: int = 0
    """What this process noted last."""

    async def begin(self) -> None:
        """Let the ids of this process begin above the newest tweet's.

        Where that is more than a day ahead of the clock, one of the two is wrong: the clock is believed.
        """
        newest = await self.store.latest()
        ahead = newest - self.clock.now()
        if ahead > MOST_AHEAD_MILLIS:
            _log.error(
                "the newest tweet is of %d hours after this machine's clock: new tweets come before it until then;"
                " set the clock, or find out who wrote it",
                ahead // 3_600_000,
            )
            return
        if ahead > WARNED_MILLIS:
            _log.warning(
                "the newest tweet is of %d seconds after this machine's clock, which may have been set back:"
                " new tweets bear later times until the clock has caught up",
                ahead // 1_000,
            )
        self.noted = newest
        newest += NOTED_SECONDS * 1_000
        if newest >= self.clock.now():
            self.clock.begin_above(newest)

    async def note(self) -> None:
        """Note the time of the newest id, if there were new ones."""
        latest = self.clock.latest()
        if latest > self.noted:
            await self.store.note_latest(latest)
            self.noted = latest
