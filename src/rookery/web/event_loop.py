"""How long the event loop is held: while one callback runs, nobody else is answered."""

import asyncio
import time
from collections.abc import Iterable

from rookery.domain.tallies import Reading, Spread

PERIOD_SECONDS = 0.005
"""Time between two looks. Each costs some microseconds, and what ran since the last may be counted with a hold."""
_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class EventLoopWatch:
    """Measures the loop's own CPU time while a look was due: what other processes took of the core is not counted."""

    def __init__(self) -> None:
        self._held = Spread(_BOUNDS)
        self._longest = 0.0

    def readings(self) -> Iterable[Reading]:
        """How long the loop was held, and the longest of all."""
        yield Reading("event_loop_held_seconds", "CPU time for which the event loop was held, a look each.", self._held)
        yield Reading("event_loop_held_longest_seconds", "The longest of these since the start.", self._longest)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due, used = loop.time() + PERIOD_SECONDS, time.thread_time()
            await asyncio.sleep(PERIOD_SECONDS)
            held = min(max(loop.time() - due, 0.0), time.thread_time() - used)
            self._held.add(held)
            self._longest = max(self._longest, held)
