"""The background jobs of a server have an owner: one that ends is logged, counted and started again."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rookery.domain.tallies import Reading
from rookery.ports.clock import Clock
from rookery.ports.jobs import Job

_log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a job is started again: twice as long each time it ends soon."""
_MOST_DOUBLED = 10
"""Times that the pause is doubled: it is the longest by then, and a float has no room for a thousand times."""
STEADY_SECONDS = 30.0
"""How long a job must run until its earlier ends no longer count."""
DOWN_AFTER = 3
"""Ends one soon after the other, from which on the server is not ready."""


@dataclass(slots=True)
class _State:
    ends: int = 0
    """In a row."""
    ended: int = 0
    """Since the start."""
    since: float = field(default=0.0)
    """When it was started last, by the monotonic clock."""


class Jobs:
    """Runs jobs that never end by themselves. `run` implements `ports.jobs.RunJobs`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._states: dict[str, _State] = {}
        self._over: set[str] = set()
        """Names of the jobs whose owner has ended."""

    def down(self) -> list[str]:
        """Names of the jobs that end again and again."""
        now = self._clock.monotonic()
        return [
            name
            for name, state in self._states.items()
            if name in self._over or (state.ends >= DOWN_AFTER and now - state.since < STEADY_SECONDS)
        ]

    def readings(self) -> Iterable[Reading]:
        """How often each was started again, and whether it runs."""
        down = self.down()
        for name, state in self._states.items():
            of = {"job": name}
            yield Reading(
                "job_restarts_total", "How often a background job ended and was started again.", state.ended, of
            )
            yield Reading(
                "job_ok", "Whether a background job runs, rather than ends again and again.", name not in down, of
            )

    async def run(self, jobs: Mapping[str, Job]) -> None:
        """Run all of these side by side until cancelled. Others may run already, by other names."""
        self._over -= jobs.keys()
        try:
            async with asyncio.TaskGroup() as group:
                for name, job in jobs.items():
                    self._states[name] = _State(since=self._clock.monotonic())
                    group.create_task(self._own(job, name), name=name)
        finally:
            self._over |= jobs.keys()

    async def _own(self, job: Job, name: str) -> None:
        state = self._states[name]
        while True:
            try:
                await job()
                _log.error("the background job %s ended; it is started again", name)
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                _log.exception("the background job %s was cancelled by itself; it is started again", name)
            except Exception:  # noqa: BLE001 - whatever it is, the server needs the job
                _log.exception("the background job %s failed; it is started again", name)
            if self._clock.monotonic() - state.since >= STEADY_SECONDS:
                state.ends = 0
            state.ends += 1
            state.ended += 1
            await asyncio.sleep(min(FIRST_PAUSE * 2 ** min(state.ends - 1, _MOST_DOUBLED), LONGEST_PAUSE))
            state.since = self._clock.monotonic()
