"""Idempotency keys in Cassandra: a key is bound to an id and a timestamp before anything is written under it.

So a write that was cut off is gone on with by whoever asks for it again, with the same id and timestamp.
"""

from dataclasses import dataclass

from rookery.adapters.cassandra.session import Change, Session
from rookery.domain.idempotency import KEPT_MILLIS, Once, reused

_READ = "SELECT digest, made, at, stamp, done FROM idempotency WHERE key = ?"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a key is bound to. `told` is what the write told besides, once all of it is written; None before."""

    made: bytes
    stamp: int
    told: bytes | None


class Keys:
    """The keys of one store. `forgotten` (milliseconds since 1970) is the time up to which keys are as if new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.forgotten = 0

    async def look(self, once: Once | None, *, serial: bool = False) -> Claim | None:
        """What a key is bound to, if it was used within the day.

        Raises:
            BrokenRule: `idempotency_key_reused`, when it was another request's.
        """
        if once is None:
            return None
        rows = await self._session.read(_READ, once.key, serial=serial)
        if not rows or self._is_old(once, rows[0][2]):
            return None
        digest, made, _, stamp, done = rows[0]
        if digest != once.digest:
            raise reused()
        return Claim(made, stamp, done[len(made) :] if done and done.startswith(made) else None)

    async def claim(self, once: Once | None, made: bytes) -> Claim:
        """Bind a key that is free to what its write is about to make; what it is bound to then, maybe by another.

        Raises:
            BrokenRule: `idempotency_key_reused`, when another request was faster.
        """
        stamp, turn = self._session.stamp(), 0
        if once is None:
            return Claim(made, stamp, None)
        values = (once.digest, made, once.at, stamp)
        while True:
            if found := await self.look(once, serial=turn > 0):
                return found
            old = await self._session.read(_READ, once.key, serial=turn > 0)
            if not old:
                change: Change = (
                    "INSERT INTO idempotency (digest, made, at, stamp, key) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
                    (*values, once.key),
                )
            else:
                change = (
                    "UPDATE idempotency SET digest = ?, made = ?, at = ?, stamp = ?"
                    " WHERE key = ? IF made = ? AND at = ?",
                    (*values, once.key, old[0][1], old[0][2]),
                )
            if await self._session.decide(change):
                return Claim(made, stamp, None)
            await self._session.back_off(turn)
            turn += 1

    async def release(self, once: Once | None, made: bytes) -> None:
        """Free a key again whose write was refused."""
        if once is not None:
            await self._session.decide(("DELETE FROM idempotency WHERE key = ? IF made = ?", (once.key, made)))

    async def done(self, once: Once | None, made: bytes, told: bytes = b"") -> None:
        """Note that all of a key's write is written."""
        if once is not None:
            await self._session.write(
                "UPDATE idempotency SET done = ? WHERE key = ?", made + told, once.key, stamp=self._session.stamp()
            )

    def _is_old(self, once: Once, at: int) -> bool:
        return at <= max(once.at - KEPT_MILLIS, self.forgotten)
