"""Promises in SQL, written in the transaction of the write that they belong to."""

import sqlite3
from collections.abc import Sequence

import msgspec

from rookery.domain.ids import id_at
from rookery.domain.promises import Promise, ToldRun, Work

COUNTED_KEPT_MILLIS = 26 * 60 * 60 * 1000


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


def note_counted(sql: sqlite3.Connection, counted: Sequence[Promise]) -> None:
    """See `Store.note_counted`."""
    rows = [(one.id, one.work, one.subject) for one in counted]
    sql.executemany("INSERT OR IGNORE INTO counted VALUES (?,?,?)", rows)


def counted(sql: sqlite3.Connection, since: int, after: bytes, limit: int) -> list[Promise]:
    """See `Store.counted`."""
    low = max(after, since.to_bytes(6, "big"))
    rows = sql.execute("SELECT id, work, subject FROM counted WHERE id > ? ORDER BY id LIMIT ?", (low, limit))
    return [Promise(one, Work(work), subject) for one, work, subject in rows]


def told_run(sql: sqlite3.Connection) -> ToldRun | None:
    """See `Store.told_run`."""
    row = sql.execute("SELECT value FROM meta WHERE name = 'told run'").fetchone()
    return msgspec.msgpack.decode(row[0], type=ToldRun) if row else None


def note_told_run(sql: sqlite3.Connection, told: ToldRun) -> None:
    """See `Store.note_told_run`."""
    sql.execute("INSERT OR REPLACE INTO meta VALUES ('told run', ?)", (msgspec.msgpack.encode(told),))


def forget_counted(sql: sqlite3.Connection, now: int, limit: int) -> int:
    """Drop so many of what was counted too long ago to be forgotten; how many there were."""
    before = max(now - COUNTED_KEPT_MILLIS, 0).to_bytes(6, "big")
    query = "DELETE FROM counted WHERE id IN (SELECT id FROM counted WHERE id < ? LIMIT ?)"
    return sql.execute(query, (before, limit)).rowcount


def remove(sql: sqlite3.Connection, promises: Sequence[bytes]) -> None:
    """See `Store.fulfil`."""
    sql.executemany("DELETE FROM pending WHERE id = ?", [(promise,) for promise in promises])
