"""By which epoch each memcached server's keys go now (docs/adr/0008-epochs.md).

An epoch is a number in the store, one for each server, and part of every key there. Raising it leaves all that the
server holds behind, whatever it missed and whenever it comes back. All processes must agree closely on it:

- Each reads the epochs a quarter of a period (a second) after it last has, and waits half a period for an answer. One
  that has not read them for a period uses no cache, unless the store is away: then nothing changes that a cached value
  could miss.
- One that sees a new epoch does not read or fill by it for a period. By then nobody goes by the one before, so whoever
  invalidated by that one did so before anything was filled by the new.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

from rookery.domain.errors import Unavailable
from rookery.ports.clock import Clock
from rookery.ports.store import Store

_log = logging.getLogger(__name__)

PERIOD_SECONDS = 1.0
_RAISE_PERIODS = 5
"""How long to try to raise an epoch before whoever waits for it is told that it failed."""


class Epochs:
    """What this process knows of the epochs. `run` keeps it fresh."""

    def __init__(
        self, servers: Sequence[str], store: Store, clock: Clock, period: float = PERIOD_SECONDS, patience: float = 0.0
    ) -> None:
        self.period = period
        self._patience = max(period / 2, patience)
        """How long a reading may take: what is read is as old as its begin, so a slow one is late and never wrong."""
        self._servers = servers
        self._store = store
        self._clock = clock
        self._numbers: dict[str, int] = {}
        self._seen: dict[str, float] = {}
        """When each server's present epoch was first known here."""
        self._read = self._away = float("-inf")
        """When the last reading that succeeded, and the last that failed, was begun."""
        self._reading: asyncio.Task[None] | None = None
        self._raising: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def for_reading(self, server: str) -> int | None:
        """The epoch by which to read and fill; None when this process may not use the server's keys now."""
        now = self._clock.monotonic()
        if not self._is_fresh(now) or now - self._since(server) < self.period:
            return None
        return self._numbers.get(server)

    async def for_dropping(self, server: str) -> int | None:
        """The epoch by which to invalidate and prepend; None when it can't be known."""
        if self._clock.monotonic() - self._read >= self.period:
            await self.read()
        if self._clock.monotonic() - self._read >= self.period:
            return None
        return self._numbers.get(server)

    async def settled(self, server: str) -> None:
        """Return when nobody goes by an epoch before the one known here."""
        left = self._since(server) + self.period - self._clock.monotonic()
        if left > 0:
            await asyncio.sleep(left)

    async def raise_(self, server: str) -> None:
        """Leave behind all that a server holds. Those who ask at once share one raise that begins after they asked.

        Raises:
            Unavailable: when the store can't be written for five periods.
        """
        task = self._raising.get(server)
        if task is None:
            task = self._raising[server] = asyncio.create_task(self._raise(server), name=f"epoch of {server}")
        await asyncio.shield(task)

    async def run(self) -> None:
        """Read the epochs again and again, until cancelled. A server that is new is given its first one."""
        while True:
            await self.read()
            if self._clock.monotonic() - self._read < self.period:
                with suppress(Unavailable):
                    for server in self._servers:
                        if server not in self._numbers:
                            await self.raise_(server)
            # With half a period more for the answer there is a quarter left before the last reading is too old. When
            # there was none, a store that hung kept everyone from the cache for some milliseconds of each second.
            await asyncio.sleep(self.period / 4)

    async def read(self) -> None:
        """Read the epochs now, or wait for the reading that is under way."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_once(), name="epochs")
        await asyncio.shield(self._reading)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [task for task in (self._reading, *self._raising.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_fresh(self, now: float) -> bool:
        # A failure counts until the next one is known: half a period for itself, the pause, half a period for that.
        return now - self._read < self.period or now - self._away < 1.5 * self.period

    def _since(self, server: str) -> float:
        return self._seen.get(server, float("-inf"))

    async def _read_once(self) -> None:
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                found = await self._store.epochs()
        except (Unavailable, TimeoutError):
            self._away = begun
            return
        finally:
            self._reading = None
        self._learn(found)
        self._read = begun

    async def _raise(self, server: str) -> None:
        async with self._locks.setdefault(server, asyncio.Lock()):
            del self._raising[server]  # who comes from now on needs one more
            until = self._clock.monotonic() + _RAISE_PERIODS * self.period
            number = await self._raise_once(server)
            while number is None and self._clock.monotonic() < until:
                await asyncio.sleep(self.period / 10)
                number = await self._raise_once(server)
            if number is None:
                raise Unavailable("store_unavailable", "What is cached can't be dropped now; try again in a moment.")
            self._learn({server: number})
            _log.warning("what memcached %s holds is left behind (epoch %d)", server, number)

    async def _raise_once(self, server: str) -> int | None:
        with suppress(Unavailable):
            return await self._store.raise_epoch(server, self._clock.now())
        return None

    def _learn(self, found: Mapping[str, int]) -> None:
        for server, number in found.items():
            if number > self._numbers.get(server, 0):  # else it was read before it was raised here
                self._numbers[server] = number
                self._seen[server] = self._clock.monotonic()
