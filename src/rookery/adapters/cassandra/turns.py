"""Turns: what several would decide at once here is decided one after the other, before it is decided with others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class Turns:
    """A lock for each key that somebody holds or waits for."""

    def __init__(self) -> None:
        self._queues: dict[bytes, _Queue] = {}

    @asynccontextmanager
    async def of(self, key: bytes | None) -> AsyncIterator[None]:
        """Hold the lock of a key; without a key there is none."""
        if key is None:
            yield
            return
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._queues[key]
