"""argon2id (RFC 9106) in a small pool of threads: a hash takes tens of milliseconds and 64 MiB on purpose."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError


class Argon2Hasher:
    """Implements `ports.hasher.Hasher` with so many threads."""

    def __init__(self, threads: int = 1, hasher: PasswordHasher | None = None) -> None:
        self.at_once = threads
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._decoy: str | None = None

    async def hash(self, password: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._hasher.hash, password)

    async def verify(self, hashed: str | None, password: str) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._verify, hashed, password)

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
