"""Whether this server can do its work."""

import asyncio
from dataclasses import dataclass, field

from rookery import __version__
from rookery.domain.errors import Unavailable
from rookery.domain.status import Status
from rookery.ports.clock import Clock
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services.fanout import Fanout

_CHECKED_SECONDS = 1.0
_LOOK_SECONDS = 2.0
"""How long a part may take to answer; a look that takes longer is as bad as none."""


@dataclass(slots=True)
class Health:
    """Looks at the parts, at most once a second however often it is asked: a look writes to the store."""

    store: Store
    ranking: Ranking
    fanout: Fanout
    clock: Clock
    _started: float = field(init=False)
    _seen: tuple[float, Status] | None = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._started = self.clock.monotonic()

    async def look(self) -> Status:
        """The state of all parts."""
        async with self._looking:
            now = self.clock.monotonic()
            if self._seen is None or now - self._seen[0] >= _CHECKED_SECONDS:
                store, ranking = await asyncio.gather(_state_of(self.store), _state_of(self.ranking))
                uptime = int(now - self._started)
                status = Status(__version__, store == "ok", store, ranking, uptime, self.fanout.backlog)
                self._seen = (self.clock.monotonic(), status)
            return self._seen[1]


async def _state_of(part: Store | Ranking) -> str:
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await part.check()
    except Unavailable as error:
        return error.code
    except TimeoutError:
        return "no_answer"
    return "ok"
