"""Users and what they sign in with, in SQL. Each function runs inside the caller's transaction."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rookery.adapters.sqlite import key_rows
from rookery.domain.errors import Conflict, unknown_user
from rookery.domain.idempotency import Once
from rookery.domain.ids import UserId
from rookery.domain.users import FanoutState, UserCounts, UserRecord, name_key
from rookery.ports.store import Credentials, FanoutChange, TokenHash, hash_for

T = TypeVar("T")

CHUNK = 500
"""Values in one IN list: well under SQLite's bound on parameters, and few forms for its statement cache."""
COUNTED_AT_ONCE = 10_000
"""Rows that are counted on the event loop: about a millisecond. More are counted in a thread."""

_COLUMNS = "id, name, display_name, is_admin, deleted, fanout"


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """A sequence in pieces."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


def marks(items: Sequence[object]) -> str:
    """Question marks for an IN list."""
    return ",".join("?" * len(items))


def _record(row: tuple[bytes, str, str, int, int, int]) -> UserRecord:
    user, name, display_name, is_admin, deleted, fanout = row
    return UserRecord(UserId(user), name, display_name, bool(is_admin), bool(deleted), FanoutState(fanout))


def add(sql: sqlite3.Connection, user: UserRecord, credentials: Credentials, once: Once | None) -> UserId:
    """See `Store.add_user`."""
    if once and (made := key_rows.recall(sql, once)):
        return UserId(made)
    inserted = sql.execute(
        "INSERT INTO user (id, name, name_key, display_name, password_hash, is_admin) VALUES (?,?,?,?,?,?)"
        " ON CONFLICT (name_key) DO NOTHING",
        (user.id, user.name, name_key(user.name), user.display_name, credentials.password_hash, user.is_admin),
    )
    if not inserted.rowcount:
        raise Conflict("name_taken", "This name is taken.")
    if token := credentials.token_of(user.id):
        sql.execute("INSERT INTO token VALUES (?,?)", (token, user.id))
    if once:
        key_rows.record(sql, once, user.id)
    return user.id


def by_ids(sql: sqlite3.Connection, ids: Sequence[UserId]) -> dict[UserId, UserRecord]:
    """See `Store.users`."""
    found: dict[UserId, UserRecord] = {}
    for some in chunks(ids):
        rows = sql.execute(f"SELECT {_COLUMNS} FROM user WHERE id IN ({marks(some)})", some)  # noqa: S608 - only marks
        found.update((record.id, record) for record in map(_record, rows))
    return found


def by_name(sql: sqlite3.Connection, name: str) -> UserRecord | None:
    """See `Store.user_by_name`."""
    row = sql.execute(f"SELECT {_COLUMNS} FROM user WHERE name_key = ?", (name_key(name),)).fetchone()  # noqa: S608
    return _record(row) if row else None


def listed(sql: sqlite3.Connection, after: str, limit: int) -> list[UserRecord]:
    """See `Store.list_users`."""
    query = f"SELECT {_COLUMNS} FROM user WHERE name_key > ? AND NOT deleted ORDER BY name_key LIMIT ?"  # noqa: S608
    return [_record(row) for row in sql.execute(query, (name_key(after), limit))]


def counts(sql: sqlite3.Connection, user: UserId, most: int = -1) -> UserCounts:
    """Counted from rows, up to `most` of each kind; -1 counts all."""

    def count(rows: str) -> int:
        number: int = sql.execute(f"SELECT count(*) FROM (SELECT 1 FROM {rows} LIMIT ?)", (user, most)).fetchone()[0]  # noqa: S608
        return number

    return UserCounts(
        followers=count("follow WHERE followee = ?"),
        followees=count("follow WHERE follower = ?"),
        tweets=count("tweet WHERE author = ? AND NOT deleted"),
    )


def require_live(sql: sqlite3.Connection, user: UserId) -> None:
    """Raise `NotFound` unless the user is there, in the same transaction as what is written for him."""
    if not sql.execute("SELECT 1 FROM user WHERE id = ? AND NOT deleted", (user,)).fetchone():
        raise unknown_user()


def delete(sql: sqlite3.Connection, user: UserId) -> bool:
    """See `Store.delete_user`."""
    changed = sql.execute("UPDATE user SET deleted = 1, password_hash = NULL WHERE id = ? AND NOT deleted", (user,))
    revoke_all(sql, user)
    return bool(changed.rowcount)


def to_purge(sql: sqlite3.Connection, limit: int) -> list[UserId]:
    """See `Store.users_to_purge`."""
    return [UserId(row[0]) for row in sql.execute("SELECT id FROM user WHERE deleted AND NOT purged LIMIT ?", (limit,))]


def is_to_purge(sql: sqlite3.Connection, user: UserId) -> bool:
    """Whether a user is deleted and has rows left."""
    return bool(sql.execute("SELECT 1 FROM user WHERE id = ? AND deleted AND NOT purged", (user,)).fetchone())


def mark_purged(sql: sqlite3.Connection, user: UserId) -> None:
    """Nothing of him is left but his handle."""
    sql.execute("UPDATE user SET purged = 1, display_name = '' WHERE id = ?", (user,))


def password_hash(sql: sqlite3.Connection, user: UserId) -> str | None:
    """See `Store.password_hash`."""
    row = sql.execute("SELECT password_hash FROM user WHERE id = ? AND NOT deleted", (user,)).fetchone()
    return row[0] if row else None


def set_password(
    sql: sqlite3.Connection, user: UserId, password_hash: str, but: bytes | None, once: Once | None
) -> None:
    """See `Store.set_password`."""
    if once and key_rows.recall(sql, once):
        return
    require_live(sql, user)
    sql.execute("UPDATE user SET password_hash = ? WHERE id = ?", (password_hash, user))
    revoke_all(sql, user, but)
    if once:
        key_rows.record(sql, once, user)


def add_token(sql: sqlite3.Connection, user: UserId, token: TokenHash, once: Once | None, made: bytes | None) -> bytes:
    """See `Store.add_token`."""
    if once and (first := key_rows.recall(sql, once)):
        return first
    require_live(sql, user)
    made = made or user
    sql.execute("INSERT OR IGNORE INTO token VALUES (?,?)", (hash_for(token, made), user))
    if once:
        key_rows.record(sql, once, made)
    return made


def token_owner(sql: sqlite3.Connection, token_hash: bytes) -> UserRecord | None:
    """See `Store.token_owner`."""
    query = f"SELECT {_COLUMNS} FROM token JOIN user ON user.id = token.user WHERE hash = ? AND NOT deleted"  # noqa: S608
    row = sql.execute(query, (token_hash,)).fetchone()
    return _record(row) if row else None


def revoke(sql: sqlite3.Connection, token_hash: bytes) -> None:
    """See `Store.revoke_token`."""
    sql.execute("DELETE FROM token WHERE hash = ?", (token_hash,))


def revoke_all(sql: sqlite3.Connection, user: UserId, but: bytes | None = None) -> int:
    """See `Store.revoke_tokens`."""
    return sql.execute("DELETE FROM token WHERE user = ? AND hash IS NOT ?", (user, but)).rowcount


def set_fanout(sql: sqlite3.Connection, author: UserId, old: FanoutState, new: FanoutState, at: int) -> bool:
    """See `Store.set_fanout`."""
    changed = sql.execute(
        "UPDATE user SET fanout = ?, fanout_since = ? WHERE id = ? AND fanout = ?", (new, at, author, old)
    )
    return bool(changed.rowcount)


def fanout_changes(sql: sqlite3.Connection) -> list[FanoutChange]:
    """See `Store.fanout_changes`."""
    rows = sql.execute("SELECT id, fanout, fanout_since FROM user WHERE fanout != 0")
    return [FanoutChange(UserId(author), FanoutState(state), since) for author, state, since in rows]
