"""Who may read many authors' tweets from the store at this moment: places for pulls, shared out fairly.

A pull reads every followee of a user: it is the only read whose cost grows with what its user follows. So few are under
way at once, a caller and an address have a share of the places and of the queue, and addresses take turns.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId
from rookery.domain.tallies import Reading

AT_ONCE = 4
"""Pulls under way in the process. Each holds at most one list of followees (16 bytes for each) and one page of
entries."""
ADDRESS_AT_ONCE = 2
"""Pulls under way for one address (IPv4) or network (IPv6 /64)."""
CALLER_AT_ONCE = 1
"""Pulls under way for one user's tokens."""
MOST = 1_024
"""Requests of the process that pull or wait for a place."""
ADDRESS_MOST = 256
"""Requests of one address that pull or wait for a place."""
CALLER_MOST = 8
"""Requests of one user that pull or wait for a place."""
WAIT_SECONDS = 2.0
"""Seconds for which a request waits for places at most, all its waits together."""


@dataclass(frozen=True, slots=True)
class Asker:
    """The client of a read, as its share of the places is counted."""

    address: str
    user: UserId | None = None
    """The user whose token the client sent, if it sent one."""

    @property
    def shares(self) -> tuple[tuple[str, int, int], ...]:
        """The key of each share that the client draws on, with its bounds: under way, and waiting included."""
        own = (f"address {self.address}", ADDRESS_AT_ONCE, ADDRESS_MOST)
        if self.user is None:
            return (own,)
        return (own, (f"user {self.user.hex()}", CALLER_AT_ONCE, CALLER_MOST))


@dataclass(slots=True)
class Patience:
    """The seconds that one request still waits for places; its reads from the store don't count."""

    seconds: float = field(default_factory=lambda: WAIT_SECONDS)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Take the time of the block off."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            yield
        finally:
            self.seconds -= clock() - begun


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    asker: Asker | None
    admitted: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Pulls:
    """The places for pulls of one process."""

    def __init__(self) -> None:
        self._under_way = 0
        self._running: Counter[str] = Counter()
        self._asking: Counter[str] = Counter()
        """By share: requests under way, and waiting ones."""
        self._queues: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        """Waiting requests by address, in the order in which the addresses take turns."""
        self._waiting = 0
        self._refused = 0

    def readings(self) -> Iterable[Reading]:
        """How many pulls are under way, wait and were refused."""
        yield Reading("pulls_under_way", f"Reads of all followees from the store, of {AT_ONCE}.", self._under_way)
        yield Reading("pulls_waiting", "Requests that wait for a place among them.", self._waiting)
        yield Reading("pulls_refused_total", "Requests that got no place and were answered 503.", self._refused)

    @asynccontextmanager
    async def place(self, asker: Asker | None, patience: Patience | None = None) -> AsyncIterator[bool]:
        """Hold a place while the block runs; yields whether it had to be waited for.

        None is the process itself, which has no share and waits as long as it takes. A request that takes several
        places one after the other has one `patience` for all of them.

        Raises:
            Unavailable: `busy`, when the asker's share of the queue is taken, or no place was free in time.
        """
        waited = not self._may_run(asker)
        if waited:
            await self._wait(asker, patience or Patience())
        else:
            self._take(asker)
        try:
            yield waited
        finally:
            self._under_way -= 1
            for key, _, _ in _shares(asker):
                _decrease(self._running, key)
                _decrease(self._asking, key)
            self._admit_waiting()

    async def _wait(self, asker: Asker | None, patience: Patience) -> None:
        """Queue until `_admit_waiting` took a place for this request."""
        self._require_room(asker)
        waiter = _Waiter(asker)
        address = asker.address if asker else ""
        self._queues.setdefault(address, OrderedDict())[waiter] = None
        self._waiting += 1
        self._asking.update(key for key, _, _ in _shares(asker))
        try:
            with patience.spent():
                async with asyncio.timeout(patience.seconds if asker else None):
                    await waiter.admitted
        except BaseException as error:
            if waiter.admitted.done() and not waiter.admitted.cancelled():  # admitted in the very moment of its end
                self._under_way -= 1
                for key, _, _ in _shares(asker):
                    _decrease(self._running, key)
            else:
                self._unqueue(address, waiter)
            for key, _, _ in _shares(asker):
                _decrease(self._asking, key)
            self._admit_waiting()
            if isinstance(error, TimeoutError):
                self._refused += 1
                raise _busy() from None
            raise

    def _require_room(self, asker: Asker | None) -> None:
        if asker is None:
            return
        full = self._under_way + self._waiting >= MOST
        if full or any(self._asking[key] >= most for key, _, most in asker.shares):
            self._refused += 1
            raise _busy()

    def _may_run(self, asker: Asker | None) -> bool:
        return self._under_way < AT_ONCE and all(self._running[key] < most for key, most, _ in _shares(asker))

    def _take(self, asker: Asker | None) -> None:
        self._under_way += 1
        self._running.update(key for key, _, _ in _shares(asker))
        self._asking.update(key for key, _, _ in _shares(asker))

    def _admit_waiting(self) -> None:
        """Give free places to those who wait: one of each address in turn, its oldest that its shares allow."""
        while self._under_way < AT_ONCE and (waiter := self._next()) is not None:
            self._under_way += 1
            self._running.update(key for key, _, _ in _shares(waiter.asker))
            waiter.admitted.set_result(None)

    def _next(self) -> _Waiter | None:
        for address in list(self._queues):
            for waiter in self._queues[address]:
                # One that is cancelled has ended, and takes itself out of the queue in a moment.
                if not waiter.admitted.done() and self._may_run(waiter.asker):
                    self._unqueue(address, waiter)
                    if address in self._queues:
                        self._queues.move_to_end(address)
                    return waiter
        return None

    def _unqueue(self, address: str, waiter: _Waiter) -> None:
        queue = self._queues[address]
        del queue[waiter]
        self._waiting -= 1
        if not queue:
            del self._queues[address]


def _shares(asker: Asker | None) -> Iterator[tuple[str, int, int]]:
    return iter(asker.shares if asker else ())


def _decrease(counts: Counter[str], key: str) -> None:
    """One less; a key without any is forgotten, so that past clients cost no memory."""
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]


def _busy() -> Unavailable:
    return Unavailable("busy", "Too many feeds are being read from the store; try again in a moment.")
