"""Idempotency keys in Cassandra: a key is bound to an id and a timestamp before anything is written under it.

So a write that was cut off is gone on with by whoever asks for it again, with the same id and timestamp.
"""

from dataclasses import dataclass

from rookery.adapters.cassandra.session import Change, Row, Session
from rookery.domain.idempotency import KEPT_MILLIS, Once, reused


@dataclass(frozen=True, slots=True)
class Claim:
    """What a key is bound to. `told` is what the write told besides, once all of it is written; None before."""

    made: bytes
    stamp: int
    told: bytes | None


def told_of(stamp: int, done: bytes | None) -> bytes | None:
    """What a write told, from its key's row; None when not all of it is written."""
    mark = _mark(stamp)
    return done[len(mark) :] if done and done.startswith(mark) else None


def _mark(stamp: int) -> bytes:
    return stamp.to_bytes(8, "big")


class Keys:
    """The keys of one store. `forgotten` (milliseconds since 1970) is the time up to which keys are as if new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.forgotten = 0

    async def look(self, once: Once | None) -> Claim | None:
        """What a key is bound to, if it was used within the day.

        Raises:
            BrokenRule: `idempotency_key_reused`, when it was another request's.
        """
        return self._good(once, await self._read(once)) if once else None

    async def claim(self, once: Once | None, made: bytes) -> Claim:
        """Bind a key to what its write is about to make; what it is bound to then, which may be another's.

        Raises:
            BrokenRule: `idempotency_key_reused`, when another request was faster.
        """
        stamp, turn = self._session.stamp(), 0
        if once is None:
            return Claim(made, stamp, None)
        values = (once.digest, made, once.at, stamp)
        # Nearly always there is nothing, or the caller would have seen it.
        change: Change = (
            "INSERT INTO idempotency (digest, made, at, stamp, key) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
            (*values, once.key),
        )
        while not await self._session.decide(change):
            await self._session.back_off(turn)
            turn += 1
            row = await self._read(once, serial=True)
            if found := self._good(once, row):
                return found
            change = (
                "UPDATE idempotency SET digest = ?, made = ?, at = ?, stamp = ? WHERE key = ? IF stamp = ?",
                (*values, once.key, row[3] if row else None),
            )
        return Claim(made, stamp, None)

    async def release(self, once: Once | None, claim: Claim) -> None:
        """Free a key again whose write was refused."""
        if once is not None:
            # Not the whole row: that would take away what is yet to be noted as done by our clock, if it is behind.
            freed = "UPDATE idempotency SET digest = null, made = null, at = null, stamp = null"
            await self._session.decide((freed + " WHERE key = ? IF stamp = ?", (once.key, claim.stamp)))

    async def done(self, once: Once | None, claim: Claim, told: bytes = b"") -> None:
        """Note that all of a key's write is written."""
        if once is not None:
            done = _mark(claim.stamp) + told
            await self._session.write(
                "UPDATE idempotency SET done = ? WHERE key = ?", done, once.key, stamp=self._session.stamp()
            )

    async def _read(self, once: Once, *, serial: bool = False) -> Row | None:
        query = "SELECT digest, made, at, stamp, done FROM idempotency WHERE key = ?"
        rows = await self._session.read(query, once.key, serial=serial)
        # Of a key that was released, or bound long before its write was done, only `done` may be left.
        return rows[0] if rows and rows[0][3] is not None else None

    def _good(self, once: Once, row: Row | None) -> Claim | None:
        if row is None or row[2] <= max(once.at - KEPT_MILLIS, self.forgotten):
            return None
        digest, made, _, stamp, done = row
        if digest != once.digest:
            raise reused()
        return Claim(made, stamp, told_of(stamp, done))
