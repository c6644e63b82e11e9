"""A dictionary bounded in bytes. Least recently used goes first; what is read is used, what is prepended to is not."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from rookery.domain.tallies import Reading
from rookery.ports.cache import Swap

ITEM_BYTES = 400
"""What an entry of the dictionary costs beside its key and value: measured by bench/memory.py on CPython 3.11."""
PART_BYTES = 58
"""What one prepended part costs beside its bytes until it is joined, where no other item shares it. Many items that
share one pay some ten bytes each; all are reckoned as the dearest, so that the bound holds."""

ITEM_LIMIT = 1024 * 1024
"""The most one item may grow to, as in memcached. A timeline that nobody reads for so long is cheaper to fill again."""


class _Item:
    """A value, and what was prepended since it was read. Joining waits for the reader: a prepend copies nothing."""

    __slots__ = ("expires", "parts", "size", "value", "version")

    def __init__(self, value: bytes, expires: float, size: int, version: int) -> None:
        self.value = value
        self.parts: list[bytes] | None = None
        self.expires = expires
        self.size = size
        self.version = version


class MemoryCache:
    """Implements `ports.cache.Cache` for one process. It uses `limit` bytes at most; 0 turns it off."""

    def __init__(self, limit: int, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._monotonic = monotonic
        # In the order of use, the least recent first. A plain dict would do but for eviction: finding the first key of
        # one that was popped from the front many times walks over all the gaps.
        self._items: OrderedDict[bytes, _Item] = OrderedDict()
        self._used = 0
        self._version = 0

    @property
    def used_bytes(self) -> int:
        """What the items cost by this cache's own reckoning."""
        return self._used

    def readings(self) -> Iterable[Reading]:
        """How full it is."""
        yield Reading("memory_cache_bytes", "What the cache in the process holds, by its own reckoning.", self._used)
        yield Reading("memory_cache_limit_bytes", "The most that it may hold.", self._limit)
        yield Reading("memory_cache_items", "Values in it.", len(self._items))

    def __len__(self) -> int:
        return len(self._items)

    async def get_many(self, keys: Sequence[bytes], *, touch: int) -> list[bytes | None]:
        now = self._monotonic()
        found: list[bytes | None] = []
        for key in keys:
            item = self._use(key, now)
            if item is None:
                found.append(None)
            else:
                item.expires = now + touch
                found.append(self._joined(item))
        return found

    async def add_many(self, keys: Sequence[bytes], value: bytes, ttl: int) -> list[bool]:
        now = self._monotonic()
        return [self._use(key, now) is None and self._put(key, value, now + ttl) for key in keys]

    async def get_for_swap(self, keys: Sequence[bytes]) -> list[tuple[bytes, object] | None]:
        now = self._monotonic()
        items = [self._use(key, now) for key in keys]
        return [None if item is None else (self._joined(item), item.version) for item in items]

    async def swap(self, items: Sequence[tuple[bytes, object, bytes]], ttl: int) -> list[Swap]:
        now = self._monotonic()
        return [self._swap_one(key, token, value, now, ttl) for key, token, value in items]

    def _swap_one(self, key: bytes, token: object, value: bytes, now: float, ttl: int) -> Swap:
        item = self._use(key, now)
        if item is None:
            return Swap.GONE
        if item.version != token:
            return Swap.CHANGED
        self._remove(key)
        return Swap.STORED if self._put(key, value, now + ttl) else Swap.GONE

    async def prepend(self, kind: bytes, ids: Sequence[bytes], entry: bytes) -> int:
        items, now, existed, cost = self._items, self._monotonic(), 0, len(entry) + PART_BYTES
        for raw in ids:
            item = items.get(kind + raw)
            if item is None or item.expires <= now:
                continue
            existed += 1
            if item.parts is None:
                item.parts = [entry]
            else:
                item.parts.append(entry)
            item.version += 1
            item.size += cost
            self._used += cost
            if item.size > ITEM_LIMIT:
                self._remove(kind + raw)
        self._evict()
        return existed

    async def delete(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._remove(key)

    async def clear(self) -> None:
        self._items.clear()
        self._used = 0

    async def close(self) -> None:
        self._items.clear()
        self._used = 0

    def _use(self, key: bytes, now: float) -> _Item | None:
        """The live item of a key, which becomes the most recently used."""
        item = self._items.get(key)
        if item is None:
            return None
        if item.expires <= now:
            self._remove(key)
            return None
        self._items.move_to_end(key)
        return item

    def _joined(self, item: _Item) -> bytes:
        if item.parts is not None:
            item.parts.reverse()
            joined = b"".join((*item.parts, item.value))
            saved = PART_BYTES * len(item.parts)
            item.value, item.parts = joined, None
            item.size -= saved
            self._used -= saved
        return item.value

    def _put(self, key: bytes, value: bytes, expires: float) -> bool:
        size = len(key) + len(value) + ITEM_BYTES
        if size > min(self._limit, ITEM_LIMIT):
            return False
        # Versions count over the whole cache, so a key that went and came back never repeats one.
        self._version += 1 << 32
        self._items[key] = _Item(value, expires, size, self._version)
        self._used += size
        self._evict()
        return True

    def _remove(self, key: bytes) -> None:
        item = self._items.pop(key, None)
        if item is not None:
            self._used -= item.size

    def _evict(self) -> None:
        while self._used > self._limit:
            _, item = self._items.popitem(last=False)
            self._used -= item.size
