"""Whether this server can do its work."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from rookery import __version__
from rookery.domain.errors import Unavailable
from rookery.domain.status import Status
from rookery.domain.tallies import Reading
from rookery.ports.clock import Clock
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services.fanout import Fanout
from rookery.services.jobs import Jobs
from rookery.services.repeating import Repeating

_log = logging.getLogger(__name__)

_CHECKED_SECONDS = 1.0
_WATCHED_SECONDS = 5.0
_STORE_SECONDS = 2.0
"""How long the store may take to answer; a look that takes longer is as bad as none."""
_RANKING_SECONDS = 0.5
"""The ranking does not decide whether a server is ready, so who asks that does not wait for it."""


@dataclass(slots=True)
class Health:
    """Looks at the parts, at most once a second however often it is asked: a look writes to the store."""

    store: Store
    ranking: Ranking
    fanout: Fanout
    clock: Clock
    jobs: Jobs
    _started: float = field(init=False)
    _seen: tuple[float, Status] | None = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _draining: bool = False
    _mistakes: Repeating = field(default_factory=Repeating)

    def __post_init__(self) -> None:
        self._started = self.clock.monotonic()

    @property
    def draining(self) -> bool:
        """Whether this server is about to stop."""
        return self._draining

    def drain(self) -> None:
        """Be unready from now on, as this server is about to stop."""
        self._draining = True
        self._seen = None

    def readings(self) -> Iterable[Reading]:
        """What it saw last."""
        seen = self._seen
        if seen is not None:
            status = seen[1]
            yield Reading("ready", "Whether it was ready when last looked at.", status.ready)
            for part, state in (("store", status.store), ("ranking", status.ranking), ("jobs", status.jobs)):
                yield Reading("part_ok", "Whether this part answered last.", state == "ok", {"part": part})
        yield Reading("build_info", "The version that runs.", 1, {"version": __version__})

    async def watch(self) -> None:
        """Look again and again, until cancelled, so that the readings are never old."""
        while True:
            await asyncio.sleep(_WATCHED_SECONDS)
            await self.look()

    async def look(self) -> Status:
        """The state of all parts."""
        async with self._looking:
            now = self.clock.monotonic()
            if self._seen is None or now - self._seen[0] >= _CHECKED_SECONDS:
                store, ranking = await asyncio.gather(
                    self._state_of("store", self.store, _STORE_SECONDS),
                    self._state_of("ranking", self.ranking, _RANKING_SECONDS),
                )
                uptime = int(now - self._started)
                jobs = ",".join(self.jobs.down()) or "ok"
                ready = store == "ok" and jobs == "ok" and not self._draining
                status = Status(__version__, ready, self._draining, store, ranking, jobs, uptime, self.fanout.backlog)
                self._seen = (self.clock.monotonic(), status)
            return self._seen[1]

    async def _state_of(self, name: str, part: Store | Ranking, seconds: float) -> str:
        try:
            async with asyncio.timeout(seconds):
                await part.check()
        except Unavailable as error:
            return error.code
        except TimeoutError:
            return "no_answer"
        except Exception as error:  # noqa: BLE001 - the part is not well: the question is answered all the same
            if self._mistakes.is_due(f"{name} {type(error).__name__}"):
                _log.exception("the look at the %s failed", name)
            return "internal_error"
        return "ok"
