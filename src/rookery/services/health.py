"""Whether this server can do its work."""

import asyncio
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.ports.clock import Clock
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services.fanout import Fanout

_CHECKED_SECONDS = 1.0
_LOOK_SECONDS = 2.0
"""How long a part may take to answer; a look that takes longer is as bad as none."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, `ok` or a code for each part."""

    store: str
    ranking: str
    uptime_seconds: int
    fanout_backlog: int

    @property
    def ready(self) -> bool:
        """Whether to send requests here. Without the ranking tweets and feeds go on, so only the store decides."""
        return self.store == "ok"


@dataclass(slots=True)
class Health:
    """Looks at the parts, at most once a second however often it is asked: a look writes to the store."""

    store: Store
    ranking: Ranking
    fanout: Fanout
    clock: Clock
    _started: float = field(init=False)
    _seen: tuple[float, Report] | None = None
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._started = self.clock.monotonic()

    async def look(self) -> Report:
        """The state of all parts."""
        async with self._looking:
            now = self.clock.monotonic()
            if self._seen is None or now - self._seen[0] >= _CHECKED_SECONDS:
                store, ranking = await asyncio.gather(_state_of(self.store), _state_of(self.ranking))
                report = Report(store, ranking, int(now - self._started), self.fanout.backlog)
                self._seen = (self.clock.monotonic(), report)
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
