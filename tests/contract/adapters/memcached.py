"""memcached under the contract suite: real servers, and epochs in a SQLite store."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

from rookery.adapters.memcached import MemcachedCache
from rookery.adapters.system import SystemClock
from rookery.ports.store import Store
from tests.contract.adapters.sqlite import open_store
from tests.contract.places import OpenCache
from tests.servers import running
from tools.servers import Memcached

PERIOD = 0.05
"""Epochs are agreed on twenty times as fast as by default."""


@cache
def servers(many: int) -> list[Memcached]:
    """Servers that all tests share, each test under epochs of its own."""
    return [running(Memcached, megabytes=256, own_time=True) for _ in range(many)]


def open_on(many: int) -> Callable[[], AbstractAsyncContextManager[OpenCache]]:
    @asynccontextmanager
    async def open_cache() -> AsyncIterator[OpenCache]:
        async with AsyncExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            store: Store = await stack.enter_async_context(open_store(Path(folder)))
            addresses = [server.address for server in servers(many)]
            cache = MemcachedCache(addresses, store, SystemClock(), timeout=2.0, period=PERIOD)
            await stack.enter_async_context(cache)
            await cache.clear()

            async def pass_time(seconds: float) -> None:
                for server in servers(many):
                    await asyncio.to_thread(server.pass_time, round(seconds))

            yield OpenCache(cache, pass_time)

    return open_cache
