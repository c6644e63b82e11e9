"""The services on a real SQLite file and cache, with every operation of either a point where other tasks may run.

What `recipes` call an executable model is here the program itself: one seed is one interleaving, the same every time.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.domain.ids import TweetId, UserId, id_at
from rookery.ports.cache import Cache
from rookery.ports.clock import Clock
from rookery.ports.store import Store

T = TypeVar("T")


class HandClock(Clock):
    """A clock that a test moves. Each id takes a millisecond of its own."""

    def __init__(self, seed: int = 0, start: int = 1_700_000_000_000) -> None:
        self.millis = start
        self._random = random.Random(seed)

    def now(self) -> int:
        return self.millis

    def monotonic(self) -> float:
        return self.millis / 1000

    def new_user_id(self) -> UserId:
        return UserId(self._next())

    def new_tweet_id(self) -> TweetId:
        return TweetId(self._next())

    def random(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def _next(self) -> bytes:
        self.millis += 1
        return id_at(self.millis, self._random.randbytes(10))


class InlineDatabase(Database):
    """The same file without the writer's thread and without fsync: each write is at once, so that a seed repeats."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._inline = self._connect()
        self._inline.execute("PRAGMA synchronous = OFF")

    async def write(self, run: Callable[[sqlite3.Connection], T]) -> T:
        self._inline.execute("BEGIN IMMEDIATE")
        try:
            result = run(self._inline)
        except BaseException:
            self._inline.execute("ROLLBACK")
            raise
        self._inline.execute("COMMIT")
        return result

    def clear(self) -> None:
        """Empty all tables, so that one file serves many seeds."""
        for table in ("ranking", "tweet", "unfollow", "follow", "token", "idempotency", "user"):
            self._inline.execute(f"DELETE FROM {table}")

    async def close(self) -> None:
        self._inline.close()
        await super().close()


class Interleaved:
    """Stands before a store or cache and lets others run before and after each of its operations."""

    def __init__(self, inner: object, chance: random.Random) -> None:
        self._inner = inner
        self._chance = chance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def call(*args: object, **kwargs: object) -> object:
            await self._pause()
            result = await cast("Awaitable[object]", method(*args, **kwargs))
            await self._pause()
            return result

        return call

    async def _pause(self) -> None:
        for _ in range(self._chance.choice((0, 0, 1, 2, 5))):
            await asyncio.sleep(0)


@contextmanager
def interleaved_backends(
    database: InlineDatabase, seed: int, cache_bytes: int
) -> Iterator[tuple[Store, Cache, SqliteRanking, HandClock]]:
    """A store and cache whose operations interleave as the seed says, and a clock to move."""
    chance = random.Random(seed)
    clock = HandClock(seed)
    database.clear()
    store = SqliteStore(database, counts=True)
    cache = MemoryCache(cache_bytes, clock.monotonic)
    yield (
        cast("Store", Interleaved(store, chance)),
        cast("Cache", Interleaved(cache, chance)),
        SqliteRanking(database),
        clock,
    )
