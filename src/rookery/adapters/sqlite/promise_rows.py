"""Promises in SQL, written in the transaction of the write that they belong to."""

import sqlite3
from collections.abc import Sequence

from rookery.domain.ids import id_at
from rookery.domain.promises import Promise, Work


def add(sql: sqlite3.Connection, promise: Promise | None) -> None:
    """Put a promise on the list."""
    if promise is not None:
        sql.execute("INSERT OR IGNORE INTO pending VALUES (?,?,?)", (promise.id, promise.work, promise.subject))


def oldest(sql: sqlite3.Connection, before: int, after: bytes, limit: int) -> list[Promise]:
    """See `Store.promises`."""
    rows = sql.execute(
        "SELECT id, work, subject FROM pending WHERE id < ? AND id > ? ORDER BY id LIMIT ?",
        (id_at(before, bytes(10)), after, limit),
    )
    return [Promise(promise, Work(work), subject) for promise, work, subject in rows]


def remove(sql: sqlite3.Connection, promises: Sequence[bytes]) -> None:
    """See `Store.fulfil`."""
    sql.executemany("DELETE FROM pending WHERE id = ?", [(promise,) for promise in promises])
