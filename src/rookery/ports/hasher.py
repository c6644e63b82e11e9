"""Slow hashing of passwords."""

from typing import Protocol


class Hasher(Protocol):
    """Hashes passwords off the event loop, a bounded number at a time.

    Both raise `Unavailable` (`busy`) when too many wait already, so that guessing passwords can't eat the server. New
    ones leave room for those to be verified: registering can't lock out who signs in.
    """

    async def hash(self, password: str) -> str:
        """A salted hash that holds its own parameters."""
        ...

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether this is the password. Takes as long for None (no such user, no password), and is False then."""
        ...
