"""Slow hashing of passwords."""

from typing import Protocol


class Hasher(Protocol):
    """Hashes passwords off the event loop. Calls beyond `at_once` wait for the earlier ones, without a bound.

    `services.hashing` bounds and orders them, so that guessing passwords can't eat the server.
    """

    @property
    def at_once(self) -> int:
        """How many hashes are computed at the same time."""
        ...

    async def hash(self, password: str) -> str:
        """A salted hash that holds its own parameters.

        Raises:
            MemoryError: there is none for it now.
        """
        ...

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether this is the password. Takes as long for None (no such user, no password), and is False then.

        Raises:
            MemoryError: there is none for it now.
        """
        ...
