"""What `bench.memory` measures, in a process of its own: `python -m bench.resident KIND COUNT SIZE FOLDER`.

SIZE is the entries of a timeline, the bytes of a value, or the parts of an item, as KIND has it. Each case does some of
the same before it measures, as the first of it fits into memory that the process has already.
"""

import asyncio
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec

from bench.inside import ROOMY, Inside, texts
from bench.measuring import resident_bytes
from rookery.adapters.memory import MemoryCache
from rookery.domain.timeline import ENTRY_BYTES
from rookery.services.filling import DAY_SECONDS, TIMELINE

FILLED = 100
WARM = 5


class Measured(msgspec.Struct):
    """How much a process grew by, in bytes, and by how much the cache says it did."""

    count: int
    size: int
    grown: int
    reckoned: int


def owners(count: int, entries: int, folder: Path) -> Measured:
    """Timelines as the services make them: filled with a hundred, and the rest delivered and read."""
    with Inside(folder) as inside:
        authors, others = inside.people("author", 10), inside.people("other", 10)
        readers = inside.people("reader", count + count // WARM)
        for some, whom in ((readers[:count], authors), (readers[count:], others)):
            inside.follow((reader, author) for reader in some for author in whom)
            inside.tweets(whom * (FILLED // len(whom)), texts(FILLED))
        ids = [reader.id for reader in readers]
        del readers
        cache = inside.rookery.backends.cache
        assert isinstance(cache, MemoryCache)
        inside.run(inside.read_feeds(ids[count:]))
        ids = ids[:count]
        before, reckoned = _resident(), cache.used_bytes
        inside.run(inside.read_feeds(ids))
        for _ in range((entries - FILLED) // FILLED):
            for author in authors:
                inside.run(inside.deliver(author, inside.stored(author, FILLED // len(authors))))
            inside.run(inside.read_feeds(ids))
        return Measured(count, entries, _resident() - before, cache.used_bytes - reckoned)


def items(count: int, value_bytes: int, _folder: Path) -> Measured:
    """The growth beside keys and values."""
    return asyncio.run(_items(count, value_bytes))


async def _items(count: int, value_bytes: int) -> Measured:
    ids, cache = _ids(2 * count), MemoryCache(ROOMY, monotonic)
    await _fill(cache, ids[count:], value_bytes)
    before, reckoned = _resident(), cache.used_bytes
    await _fill(cache, ids[:count], value_bytes)
    beside = count * (len(TIMELINE) + 16 + value_bytes)
    return Measured(count, value_bytes, _resident() - before - beside, cache.used_bytes - reckoned - beside)


def shared(count: int, parts: int, _folder: Path) -> Measured:
    """Parts in all timelines alike, as an author's followers get them."""
    return asyncio.run(_parts(count, parts, together=True))


def own(count: int, parts: int, _folder: Path) -> Measured:
    """Parts of which each is in one timeline only."""
    return asyncio.run(_parts(count, parts, together=False))


async def _parts(count: int, parts: int, *, together: bool) -> Measured:
    ids, cache = _ids(2 * count), MemoryCache(ROOMY, monotonic)
    await _fill(cache, ids, FILLED * ENTRY_BYTES)
    await _prepend(cache, ids[count:], parts, together=together)
    before, reckoned = _resident(), cache.used_bytes
    await _prepend(cache, ids[:count], parts, together=together)
    beside = count * parts * ENTRY_BYTES
    return Measured(count, parts, _resident() - before - beside, cache.used_bytes - reckoned - beside)


async def _prepend(cache: MemoryCache, ids: Sequence[bytes], parts: int, *, together: bool) -> None:
    for _ in range(parts):
        if together:
            await cache.prepend(TIMELINE, ids, os.urandom(ENTRY_BYTES))
        else:
            for raw in ids:
                await cache.prepend(TIMELINE, [raw], os.urandom(ENTRY_BYTES))


def _ids(count: int) -> list[bytes]:
    return [os.urandom(16) for _ in range(count)]


async def _fill(cache: MemoryCache, ids: Sequence[bytes], value_bytes: int) -> None:
    """Values by the cache's own operations: a claim, and what is swapped in for it."""
    for raw in ids:
        key = TIMELINE + raw
        await cache.add_many([key], b"claim", 30)
        got = (await cache.get_for_swap([key]))[0]
        assert got is not None
        await cache.swap([(key, got[1], os.urandom(value_bytes))], DAY_SECONDS)


def _resident() -> int:
    gc.collect()
    return resident_bytes(os.getpid())


def main() -> None:
    kind, count, size, folder = sys.argv[1:]
    measure = {"owners": owners, "items": items, "shared": shared, "own": own}[kind]
    print(msgspec.json.encode(measure(int(count), int(size), Path(folder))).decode())


if __name__ == "__main__":
    main()
