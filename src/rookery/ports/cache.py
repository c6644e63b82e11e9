"""The cache: timelines, tails, relations, tweets. Always rebuildable, so it may forget any key at any moment."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol


class Swap(Enum):
    """What became of a compare-and-set."""

    STORED = "stored"
    CHANGED = "changed"
    """The value is another than the one read; read it again."""
    GONE = "gone"


class Cache(Protocol):
    """Bounded key-value memory. A key is a kind (a few letters and a colon) and a raw id, a value is bytes.

    Every operation is atomic for each key, and none for several keys together. Operations on one key are seen by all in
    the order in which they were answered. Nothing is durable. Reads of a cache that can't be reached are misses and its
    claims fail; a `prepend` or `delete` that can't be confirmed makes the old content unreachable. Those two raise
    `Unavailable` (`store_unavailable`) when not even that can be done, as the store is away; no other operation raises.
    """

    async def get_many(self, keys: Sequence[bytes], *, touch: int) -> list[bytes | None]:
        """The values in the order of the keys, None for a miss. Those found get `touch` more seconds to live."""
        ...

    async def add_many(self, keys: Sequence[bytes], value: bytes, ttl: int) -> list[bool]:
        """Store a value under each key that has none; True where this call did. `ttl` in seconds."""
        ...

    async def get_for_swap(self, keys: Sequence[bytes]) -> list[tuple[bytes, object] | None]:
        """The values with the tokens that `swap` takes. A token is good for this process only."""
        ...

    async def swap(self, items: Sequence[tuple[bytes, object, bytes]], ttl: int) -> list[Swap]:
        """Replace each key's value, given as (key, token, value), if it is still the one that gave the token."""
        ...

    async def prepend(self, kind: bytes, ids: Sequence[bytes], entry: bytes) -> int:
        """Put an entry before the value of each key `kind + id` that exists; their age stays. How many existed.

        After it returned nobody is given what such a key held before.
        """
        ...

    async def delete(self, keys: Sequence[bytes]) -> None:
        """Forget these keys. After it returned nobody is given what they held before."""
        ...

    async def clear(self) -> None:
        """Forget all keys, as `delete` does."""
        ...

    async def close(self) -> None:
        """Let go of memory and connections. From then on all are misses."""
        ...
