"""Idempotency keys in SQL, recorded in the transaction of the write they belong to."""

import sqlite3

from rookery.domain.idempotency import KEPT_MILLIS, Once, reused


def recall(sql: sqlite3.Connection, once: Once) -> bytes | None:
    """What was recorded with the write of this key, the id it made first; None if there was none within the day.

    Raises:
        BrokenRule: `idempotency_key_reused`, when it was another request's.
    """
    row = sql.execute(
        "SELECT digest, made FROM idempotency WHERE key = ? AND at > ?", (once.key, once.at - KEPT_MILLIS)
    ).fetchone()
    if row is None:
        return None
    digest, made = row
    if digest != once.digest:
        raise reused()
    return bytes(made)


def record(sql: sqlite3.Connection, once: Once, made: bytes) -> None:
    """Bind a key to what its write made."""
    sql.execute("INSERT OR REPLACE INTO idempotency VALUES (?,?,?,?)", (once.key, once.digest, made, once.at))


def note(sql: sqlite3.Connection, once: Once, made: bytes) -> None:
    """See `Store.note_once`."""
    if recall(sql, once) is None:
        record(sql, once, made)


def forget(sql: sqlite3.Connection, now: int, limit: int) -> int:
    """Drop so many keys of more than a day ago; how many there were."""
    return sql.execute(
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE at <= ? LIMIT ?)",
        (now - KEPT_MILLIS, limit),
    ).rowcount
