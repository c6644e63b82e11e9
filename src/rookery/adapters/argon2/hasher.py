"""argon2id (RFC 9106) in a small pool of threads: a hash takes tens of milliseconds and 64 MiB on purpose."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import HashingError, InvalidHashError, VerificationError
from argon2.low_level import error_to_str

from rookery.domain.threads import started_pool

_NO_MEMORY = {error_to_str(-22), error_to_str(-33)}
"""What argon2 says without memory (ARGON2_MEMORY_ALLOCATION_ERROR) and without threads (ARGON2_THREAD_FAIL)."""


class Argon2Hasher:
    """Implements `ports.hasher.Hasher` with so many threads."""

    def __init__(self, threads: int = 1, hasher: PasswordHasher | None = None) -> None:
        self.at_once = threads
        self._hasher = hasher or PasswordHasher()
        self._pool = started_pool(threads, "argon2")
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._hash, password)

    async def verify(self, hashed: str | None, password: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._verify, hashed, password)

    def close(self) -> None:
        """End the threads when their present work is done."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _hash(self, password: str) -> str:
        try:
            return self._hasher.hash(password)
        except HashingError as error:
            if str(error) in _NO_MEMORY:
                raise MemoryError from error
            raise

    def _verify(self, hashed: str | None, password: str) -> bool:
        if self._decoy is None:
            self._decoy = self._hash("nobody has this password")
        try:
            self._hasher.verify(hashed or self._decoy, password)
        except (VerificationError, InvalidHashError) as error:
            if str(error) in _NO_MEMORY:
                raise MemoryError from error
            return False
        return hashed is not None
