"""Who follows whom, in SQL. Each function runs inside the caller's transaction."""

import sqlite3
from collections.abc import Sequence

from rookery.adapters.sqlite import key_rows, promise_rows
from rookery.adapters.sqlite.user_rows import chunks, marks, require_live
from rookery.domain.errors import Conflict
from rookery.domain.idempotency import Once
from rookery.domain.ids import UserId
from rookery.domain.promises import Promise

UNFOLLOWS_KEPT_MILLIS = 30 * 60 * 60 * 1000

_NEW, _OLD = b"\x01", b"\x00"  # behind the id in the record of a key: whether the follow was a new one
_ABOVE_ALL = b"\xff" * 17


def add(
    sql: sqlite3.Connection,
    follower: UserId,
    followee: UserId,
    at: int,
    *,
    most: int,
    once: Once | None,
    promise: Promise | None,
) -> bool:
    """See `Store.follow`."""
    if once and (made := key_rows.recall(sql, once)):
        return made.endswith(_NEW)
    require_live(sql, follower)
    require_live(sql, followee)
    inserted = sql.execute("INSERT OR IGNORE INTO follow VALUES (?,?,?)", (follower, followee, at)).rowcount
    if inserted:
        query = "SELECT count(*) FROM (SELECT 1 FROM follow WHERE follower = ? LIMIT ?)"
        if sql.execute(query, (follower, most + 1)).fetchone()[0] > most:
            raise Conflict("too_many_followees", f"A user follows at most {most} others.")
        sql.execute("DELETE FROM unfollow WHERE follower = ? AND followee = ?", (follower, followee))
    promise_rows.add(sql, promise)
    if once:
        key_rows.record(sql, once, followee + (_NEW if inserted else _OLD))
    return bool(inserted)


def add_many(sql: sqlite3.Connection, pairs: Sequence[tuple[UserId, UserId]], at: int) -> int:
    """See `Store.add_follows`."""
    rows = [(follower, followee, at) for follower, followee in pairs]
    sql.executemany("DELETE FROM unfollow WHERE follower = ? AND followee = ?", pairs)
    return sql.executemany("INSERT OR IGNORE INTO follow VALUES (?,?,?)", rows).rowcount


def remove(sql: sqlite3.Connection, follower: UserId, followee: UserId, at: int) -> bool:
    """See `Store.unfollow`."""
    gone = sql.execute("DELETE FROM follow WHERE follower = ? AND followee = ?", (follower, followee)).rowcount
    if gone:
        sql.execute("INSERT OR REPLACE INTO unfollow VALUES (?,?,?)", (follower, followee, at))
    return bool(gone)


def followees(sql: sqlite3.Connection, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
    """See `Store.followees`."""
    rows = sql.execute(
        "SELECT followee FROM follow WHERE follower = ? AND followee < ? ORDER BY followee DESC LIMIT ?",
        (user, below or _ABOVE_ALL, limit),
    )
    return [UserId(row[0]) for row in rows]


def followers(sql: sqlite3.Connection, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
    """See `Store.followers`."""
    rows = sql.execute(
        "SELECT follower FROM follow WHERE followee = ? AND follower < ? ORDER BY follower DESC LIMIT ?",
        (user, below or _ABOVE_ALL, limit),
    )
    return [UserId(row[0]) for row in rows]


def has_followers(sql: sqlite3.Connection, user: UserId, least: int) -> bool:
    """See `Store.has_followers`."""
    row = sql.execute("SELECT count(*) FROM (SELECT 1 FROM follow WHERE followee = ? LIMIT ?)", (user, least))
    return bool(row.fetchone()[0] >= least)


def followed_among(sql: sqlite3.Connection, user: UserId, others: Sequence[UserId]) -> set[UserId]:
    """See `Store.followed_among`."""
    found: set[UserId] = set()
    for some in chunks(others):
        rows = sql.execute(
            f"SELECT followee FROM follow WHERE follower = ? AND followee IN ({marks(some)})",  # noqa: S608 - only marks
            (user, *some),
        )
        found.update(UserId(row[0]) for row in rows)
    return found


def unfollowed_since(sql: sqlite3.Connection, user: UserId, since: int, limit: int) -> list[UserId] | None:
    """See `Store.unfollowed_since`."""
    rows = sql.execute("SELECT followee, at FROM unfollow WHERE follower = ? LIMIT ?", (user, limit + 1)).fetchall()
    return None if len(rows) > limit else [UserId(followee) for followee, at in rows if at >= since]


def remove_some_of(sql: sqlite3.Connection, user: UserId, limit: int) -> int:
    """Take away so many of a deleted user's follows, both ways; how many went."""
    gone = 0
    for column in ("follower", "followee"):
        gone += sql.execute(
            "DELETE FROM follow WHERE (follower, followee) IN"  # noqa: S608 - a name from above
            f" (SELECT follower, followee FROM follow WHERE {column} = ? LIMIT ?)",
            (user, limit - gone),
        ).rowcount
    return gone


def forget(sql: sqlite3.Connection, now: int, limit: int) -> int:
    """Drop so many unfollows that no timeline can still hold an entry of; how many there were."""
    return sql.execute(
        "DELETE FROM unfollow WHERE (follower, followee) IN"
        " (SELECT follower, followee FROM unfollow WHERE at < ? LIMIT ?)",
        (now - UNFOLLOWS_KEPT_MILLIS, limit),
    ).rowcount
