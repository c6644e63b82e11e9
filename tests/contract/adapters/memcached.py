"""memcached under the contract suite: real servers, and epochs in a SQLite store."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

from rookery.adapters.memcached import MemcachedCache
from rookery.adapters.system import SystemClock
from rookery.services.jobs import Jobs
from tests.contract.adapters.sqlite import open_store
from tests.contract.places import OpenCache
from tests.servers import running
from tools.servers import Memcached

PERIOD = 0.02


class StillClock(SystemClock):
    """Time stands still for the epochs, so that a busy machine makes nobody stale. That has tests of its own."""

    seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds


@cache
def servers(many: int) -> list[Memcached]:
    """Servers that all tests share, each test under epochs of its own."""
    return [running(Memcached, megabytes=256, own_time=True) for _ in range(many)]


def open_on(many: int) -> Callable[[], AbstractAsyncContextManager[OpenCache]]:
    async def pass_time(seconds: float) -> None:
        for server in servers(many):
            await asyncio.to_thread(server.pass_time, round(seconds))

    @asynccontextmanager
    async def open_cache() -> AsyncIterator[OpenCache]:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            store = await stack.enter_async_context(open_store(Path(folder)))
            addresses, clock = [server.address for server in servers(many)], StillClock()
            cache = MemcachedCache(addresses, store, clock, run=Jobs(clock).run, timeout=2.0, period=PERIOD)
            await stack.enter_async_context(cache)
            await cache.clear()
            clock.seconds += 2 * PERIOD
            async with asyncio.timeout(10):
                while not all(await cache.add_many(_PROBES, b"", 1)):
                    await cache.delete(_PROBES)
                    await asyncio.sleep(0.001)
                    clock.seconds += PERIOD  # an epoch may have been raised after the step before
            yield OpenCache(cache, pass_time)

    return open_cache


_PROBES = [b"probe:%d" % number for number in range(50)]
