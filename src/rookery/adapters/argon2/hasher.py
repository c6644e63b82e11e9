"""argon2id (RFC 9106) in a small pool of threads: a hash takes tens of milliseconds and 64 MiB on purpose."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Reading

T = TypeVar("T")


class Argon2Hasher:
    """Implements `ports.hasher.Hasher`. `threads` hash at once and `waiting` more may wait, new ones in half of it."""

    def __init__(self, threads: int = 1, waiting: int = 16, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._free = self._places = threads + waiting
        self._reserved = waiting // 2
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(password), leaving=self._reserved)

    async def verify(self, hashed: str | None, password: str) -> bool:
        return await self._run(lambda: self._verify(hashed, password), leaving=0)

    def readings(self) -> Iterable[Reading]:
        """How busy it is."""
        taken = self._places - self._free
        yield Reading("passwords_waiting", f"Passwords that are hashed or wait for it, of {self._places}.", taken)

    def close(self) -> None:
        """End the threads when their present work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _verify(self, hashed: str | None, password: str) -> bool:
        if self._decoy is None:
            self._decoy = self._hasher.hash("nobody has this password")
        try:
            self._hasher.verify(hashed or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return False
        return hashed is not None

    async def _run(self, work: Callable[[], T], *, leaving: int) -> T:
        if self._free <= leaving:
            raise Unavailable("busy", "Too many sign-ins at once; try again in a moment.")
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._free += 1
