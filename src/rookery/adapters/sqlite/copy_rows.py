"""All rows of the file as copies, and copies as rows. Each function runs inside the caller's transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rookery.adapters.sqlite import tweet_rows
from rookery.domain.copies import (
    Copy,
    FollowCopy,
    KeyCopy,
    Part,
    TokenCopy,
    TweetCopy,
    Unfinished,
    UnfollowCopy,
    UserCopy,
)
from rookery.domain.ids import ID_BYTES, UserId
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import FanoutState, UserRecord, name_key
from rookery.ports.store import not_the_same

_Row = tuple[Any, ...]

_TO_COME = -1
"""The depth of a tweet of which only its id is known yet."""

# What is read of each part, in the order of its key: that behind a position, which is the last one's key.
_READ: dict[Part, str] = {
    Part.USERS: "SELECT id, name, display_name, is_admin, deleted, fanout, password_hash, purged, fanout_since"
    " FROM user WHERE id > ? ORDER BY id LIMIT ?",
    Part.TOKENS: "SELECT hash, user FROM token WHERE hash > ? ORDER BY hash LIMIT ?",
    Part.FOLLOWS: "SELECT follower, followee, at FROM follow"
    " WHERE (follower, followee) > (?, ?) ORDER BY follower, followee LIMIT ?",
    Part.UNFOLLOWS: "SELECT follower, followee, at FROM unfollow"
    " WHERE (follower, followee) > (?, ?) ORDER BY follower, followee LIMIT ?",
    Part.KEYS: "SELECT key, digest, made, at FROM idempotency WHERE key > ? ORDER BY key LIMIT ?",
}


def _user(row: _Row) -> Copy:
    user, name, display_name, is_admin, deleted, fanout, password_hash, purged, since = row
    state = FanoutState(fanout)
    record = UserRecord(UserId(user), name, display_name, bool(is_admin), bool(deleted), state)
    return UserCopy(record, password_hash, bool(purged), since)


_MAKE: dict[Part, Callable[[_Row], Copy]] = {
    Part.USERS: _user,
    Part.TOKENS: lambda row: TokenCopy(*row),
    Part.FOLLOWS: lambda row: FollowCopy(*row),
    Part.UNFOLLOWS: lambda row: UnfollowCopy(*row),
    Part.KEYS: lambda row: KeyCopy(*row),
}


def dump(sql: sqlite3.Connection, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    """See `Store.dump`."""
    if part is Part.TWEETS:
        tweets = tweet_rows.walk(sql, position, limit)
        return [TweetCopy(tweet) for tweet in tweets], tweets[-1].id if tweets else None
    paired = part in {Part.FOLLOWS, Part.UNFOLLOWS}
    behind = (position[:ID_BYTES], position[ID_BYTES:]) if paired else (position,)
    rows = sql.execute(_READ[part], (*behind, limit)).fetchall()
    if not rows:
        return [], None
    return [_MAKE[part](row) for row in rows], b"".join(rows[-1][: len(behind)])


def restore(sql: sqlite3.Connection, copies: Sequence[Copy]) -> None:
    """See `Store.restore`."""
    for copy in copies:
        match copy:
            case UserCopy():
                _restore_user(sql, copy)
            case TokenCopy():
                sql.execute("INSERT OR IGNORE INTO token VALUES (?,?)", (copy.hash, copy.user))
            case FollowCopy():
                sql.execute("INSERT OR IGNORE INTO follow VALUES (?,?,?)", (copy.follower, copy.followee, copy.at))
            case UnfollowCopy():
                sql.execute("INSERT OR IGNORE INTO unfollow VALUES (?,?,?)", (copy.follower, copy.followee, copy.at))
            case TweetCopy():
                _restore_tweet(sql, copy.tweet)
            case KeyCopy():
                sql.execute(
                    "INSERT OR IGNORE INTO idempotency VALUES (?,?,?,?)", (copy.key, copy.digest, copy.made, copy.at)
                )


def _restore_user(sql: sqlite3.Connection, copy: UserCopy) -> None:
    user = copy.user
    owner = sql.execute("SELECT id FROM user WHERE name_key = ?", (name_key(user.name),)).fetchone()
    if owner is not None and owner[0] != user.id:
        raise not_the_same()
    sql.execute(
        "INSERT OR IGNORE INTO user VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            *(user.id, user.name, name_key(user.name), user.display_name, copy.password_hash, user.is_admin),
            *(user.deleted, copy.purged, user.fanout, copy.fanout_since),
        ),
    )


def _restore_tweet(sql: sqlite3.Connection, tweet: TweetRecord) -> None:
    if tweet.retweet is not None:  # it may come later, as other stores are not read in the order of time
        sql.execute(
            "INSERT OR IGNORE INTO tweet VALUES (?,?,'','',NULL,NULL,?,0,1)", (tweet.retweet, tweet.author, _TO_COME)
        )
    sql.execute(
        "INSERT INTO tweet VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET author = excluded.author,"
        " title = excluded.title, body = excluded.body, retweet = excluded.retweet, root = excluded.root,"
        " depth = excluded.depth, initial = excluded.initial, deleted = excluded.deleted WHERE tweet.depth = ?",
        (
            *(tweet.id, tweet.author, tweet.title, tweet.body, tweet.retweet, tweet.root, tweet.depth),
            *(tweet.initial, tweet.deleted, _TO_COME),
        ),
    )


def adopt(sql: sqlite3.Connection, secret: bytes) -> None:
    """See `Store.adopt_secret`."""
    mine = sql.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0]
    if mine == secret:
        return
    if sql.execute("SELECT 1 FROM user LIMIT 1").fetchone():
        raise not_the_same()
    sql.execute("UPDATE meta SET value = ? WHERE name = 'secret'", (secret,))


def unfinished(sql: sqlite3.Connection) -> Unfinished | None:
    """See `Store.unfinished`."""
    row = sql.execute("SELECT value FROM meta WHERE name = 'unfinished'").fetchone()
    return msgspec.msgpack.decode(row[0], type=Unfinished) if row else None


def note_unfinished(sql: sqlite3.Connection, noted: Unfinished | None) -> None:
    """See `Store.note_unfinished`."""
    if noted is None:
        sql.execute("DELETE FROM meta WHERE name = 'unfinished'")
    else:
        sql.execute("INSERT OR REPLACE INTO meta VALUES ('unfinished', ?)", (msgspec.msgpack.encode(noted),))
