"""The cache in the process under the contract suite: its clock is set by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rookery.adapters.memory import MemoryCache
from tests.contract.places import OpenCache


class HandClock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    async def pass_time(self, seconds: float) -> None:
        self.seconds += seconds


@asynccontextmanager
async def open_cache() -> AsyncIterator[OpenCache]:
    clock = HandClock()
    cache = MemoryCache(64 * 1024 * 1024, clock)
    yield OpenCache(cache, clock.pass_time)
    await cache.close()
