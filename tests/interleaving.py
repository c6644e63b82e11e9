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

import pytest

from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.domain import timeline
from rookery.domain.ids import ZERO
from rookery.domain.timeline import Held
from rookery.ports.cache import Cache
from rookery.ports.store import Store
from rookery.services import fanout, feeds, filling
from rookery.services.filling import Filler
from tests.clocks import HandClock

T = TypeVar("T")

PAUSES = (0, 0, 1, 2, 5) * 8 + (150,)
"""Steps of the event loop that an operation is held up for. The long one lets a follow, its drops and a fill pass."""


class InlineDatabase(Database):
    """The same file without the writer's thread and without fsync: each write is at once, so that a seed repeats."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._inline = self._connect()
        self._inline.execute("PRAGMA synchronous = OFF")

    async def write(self, run: Callable[[sqlite3.Connection], T], *, cached: bool = True) -> T:
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
        for _ in range(self._chance.choice(PAUSES)):
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


def small_numbers(patch: pytest.MonkeyPatch, page: int) -> None:
    """Short tails, pages and slices, so that a short history meets every bound."""
    patch.setattr(feeds, "TAIL_LENGTH", page)
    patch.setattr(feeds, "FILL", page)
    patch.setattr(feeds, "_SLICE", 2)
    patch.setattr(feeds, "_TAILS_MOST", 3)
    patch.setattr(feeds, "MOST_UNFOLLOWED", 1)
    patch.setattr(fanout, "SLICE", 2)
    patch.setattr(fanout, "MAX_WAITING", 3)
    patch.setattr(timeline, "FRESH", 2)
    patch.setattr(timeline, "TRIM_ABOVE", 7)
    patch.setattr(timeline, "TRIM_TO", 4)


def leave_out(rule: str, patch: pytest.MonkeyPatch) -> None:
    """Break one rule of the fill protocol (docs/adr/0003-fill-protocol.md), as a mistake would."""
    match rule:
        case "nonce":
            patch.setattr(filling, "is_claimed_by", lambda value, nonce: True)
        case "footer":
            patch.setattr(filling, "is_filled", lambda value: value is not None)
            patch.setattr(filling, "stamp_of", lambda value: int.from_bytes(value[-8:-4], "big"))
        case "floor":
            load = feeds.Feeds._load_timelines

            async def without_floor(self: feeds.Feeds, ids: list[bytes], renew: filling.Renew) -> object:
                found = await load(self, ids, renew)
                return {raw: filling.Fill(entries=fill.entries, floor=ZERO) for raw, fill in found.items()}

            patch.setattr(feeds.Feeds, "_load_timelines", without_floor)
        case "exceptions":
            patch.setattr(feeds, "_read_exceptions", lambda held: feeds._Exceptions([], []))
        case "overflow":
            read = feeds._read_exceptions

            def without_overflow(held: Held) -> feeds._Exceptions:
                known = read(held)
                return known if known.unfollowed is not None else feeds._Exceptions(known.pulled, [])

            patch.setattr(feeds, "_read_exceptions", without_overflow)
        case "drop":
            drop = Filler.drop

            async def without_timelines(self: Filler, keys: list[bytes]) -> None:
                await drop(self, [key for key in keys if not key.startswith(filling.TIMELINE)])

            patch.setattr(Filler, "drop", without_timelines)
