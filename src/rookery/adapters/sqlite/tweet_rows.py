"""Tweets in SQL. Each function runs inside the caller's transaction."""

import sqlite3
from collections.abc import Sequence

import msgspec

from rookery.adapters.sqlite import count_rows, key_rows, promise_rows
from rookery.adapters.sqlite.user_rows import chunks, marks, require_live
from rookery.domain.errors import deleted_tweet, unknown_tweet
from rookery.domain.idempotency import Once
from rookery.domain.ids import ID_BYTES, ZERO, TweetId, UserId, millis_of
from rookery.domain.promises import Promise
from rookery.domain.timeline import entry
from rookery.domain.tweets import TweetRecord, chained, first_within, is_bare, link_of
from rookery.ports.store import Below, Written

_COLUMNS = "id, author, title, body, retweet, root, depth, initial, deleted"
_ABOVE_ALL = b"\xff" * 17
_HEADS = 100
"""Authors whose newest tweets one statement finds."""

_Row = tuple[bytes, bytes, str, str, bytes | None, bytes | None, int, int, int]


def _record(row: _Row) -> TweetRecord:
    tweet, author, title, body, retweet, root, depth, initial, deleted = row
    return TweetRecord(
        TweetId(tweet),
        UserId(author),
        title,
        body,
        TweetId(retweet) if retweet else None,
        TweetId(root) if root else None,
        depth,
        initial,
        bool(deleted),
    )


def _insert(sql: sqlite3.Connection, tweet: TweetRecord) -> bool:
    inserted = sql.execute(
        f"INSERT OR IGNORE INTO tweet ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,0)",  # noqa: S608 - column names
        (
            tweet.id,
            tweet.author,
            tweet.title,
            tweet.body,
            tweet.retweet,
            tweet.root,
            tweet.depth,
            tweet.initial,
        ),
    )
    return bool(inserted.rowcount)


def add(
    sql: sqlite3.Connection,
    tweet: TweetRecord,
    most_depth: int,
    once: Once | None,
    promise: Promise | None,
    *,
    counts: bool,
    single: bool,
) -> Written:
    """See `Store.add_tweet`. With `counts` the ranking in this file is told in the same transaction."""
    if once and (made := key_rows.recall(sql, once)):
        had = made[ID_BYTES:]
        first = TweetId(had or made)
        return Written(by_ids(sql, [first])[first], owes_count=not counts, repeated=True, had=bool(had))
    require_live(sql, tweet.author)
    if tweet.retweet is not None:
        tweet = _in_chain(sql, tweet, tweet.retweet, most_depth)
    elif tweet.root or tweet.depth:
        tweet = msgspec.structs.replace(tweet, root=None, depth=0)
    if single and is_bare(tweet) and (first_one := _bare_of(sql, tweet)):
        if once:
            key_rows.record(sql, once, tweet.id + first_one.id)  # its own id, which there is not, and what was told
        return Written(first_one, owes_count=not counts, repeated=True, had=True)
    _insert(sql, tweet)
    promise_rows.add(sql, promise)
    if once:
        key_rows.record(sql, once, tweet.id)
    return Written(tweet, owes_count=not (counts and count_rows.add(sql, link_of(tweet))), promise=promise)


def _bare_of(sql: sqlite3.Connection, tweet: TweetRecord) -> TweetRecord | None:
    """The first live one of the same author and tweet retweeted that is bare, too."""
    row = sql.execute(
        f"SELECT {_COLUMNS} FROM tweet INDEXED BY tweet_bare WHERE author = ? AND retweet = ?"  # noqa: S608 - column names
        " AND retweet IS NOT NULL AND title = '' AND body = '' AND initial = 0 AND NOT deleted ORDER BY id LIMIT 1",
        (tweet.author, tweet.retweet),
    ).fetchone()
    return _record(row) if row else None


def _in_chain(sql: sqlite3.Connection, tweet: TweetRecord, parent_id: TweetId, most_depth: int) -> TweetRecord:
    """A retweet with its root and depth, which are those of the tweet above it and one more."""
    row = sql.execute(
        "SELECT t.root, t.depth, t.deleted OR u.deleted FROM tweet t JOIN user u ON u.id = t.author WHERE t.id = ?",
        (parent_id,),
    ).fetchone()
    if row is None:
        raise unknown_tweet()
    root, depth, deleted = row
    if deleted:
        raise deleted_tweet()
    return chained(tweet, root, depth, most_depth)


def add_many(sql: sqlite3.Connection, tweets: Sequence[TweetRecord], *, counts: bool) -> list[Written]:
    """See `Store.add_tweets`."""
    written = []
    for tweet in tweets:
        if _insert(sql, tweet):
            written.append(Written(tweet, owes_count=not (counts and count_rows.add(sql, link_of(tweet)))))
        else:
            written.append(Written(by_ids(sql, [tweet.id])[tweet.id], owes_count=not counts, repeated=True))
    return written


def by_ids(sql: sqlite3.Connection, ids: Sequence[TweetId]) -> dict[TweetId, TweetRecord]:
    """See `Store.tweets`."""
    found: dict[TweetId, TweetRecord] = {}
    for some in chunks(ids):
        rows = sql.execute(f"SELECT {_COLUMNS} FROM tweet WHERE id IN ({marks(some)})", some)  # noqa: S608 - only marks
        found.update((record.id, record) for record in map(_record, rows))
    return found


def tails(sql: sqlite3.Connection, wanted: Sequence[Below], limit: int) -> list[list[bytes]]:
    """See `Store.tails`. One short index scan an author: faster here than any one statement for all of them.

    But for the newest of each, which one statement finds four times as fast.
    """
    if limit == 1:
        return _newest_of_each(sql, wanted)
    query = "SELECT id FROM tweet WHERE author = ? AND id < ? AND NOT deleted ORDER BY id DESC LIMIT ?"
    return [
        [entry(TweetId(row[0]), author) for row in sql.execute(query, (author, below or _ABOVE_ALL, limit)).fetchall()]
        for author, below in wanted
    ]


def _newest_of_each(sql: sqlite3.Connection, wanted: Sequence[Below]) -> list[list[bytes]]:
    found: list[list[bytes]] = []
    for some in chunks(wanted, _HEADS):
        query = (
            "SELECT column1, (SELECT id FROM tweet WHERE author = column1 AND id < column2 AND NOT deleted"  # noqa: S608
            f" ORDER BY id DESC LIMIT 1) FROM (VALUES {','.join(['(?,?)'] * len(some))})"  # only marks
        )
        rows = sql.execute(query, [each for author, below in some for each in (author, below or _ABOVE_ALL)])
        found += [[entry(TweetId(newest), UserId(author))] if newest else [] for author, newest in rows]
    return found


def delete(sql: sqlite3.Connection, tweet: TweetId, *, counts: bool) -> Written:
    """See `Store.delete_tweet`."""
    record = by_ids(sql, [tweet]).get(tweet)
    if record is None:
        raise unknown_tweet()
    if record.deleted:
        return Written(record, owes_count=not counts, repeated=True)
    sql.execute("UPDATE tweet SET deleted = 1, title = '', body = '' WHERE id = ?", (tweet,))
    gone = msgspec.structs.replace(record, deleted=True, title="", body="")
    return Written(gone, owes_count=not (counts and count_rows.remove(sql, link_of(gone))))


def delete_some_of(sql: sqlite3.Connection, author: UserId, limit: int, *, counts: bool) -> list[Written]:
    """Delete some of a deleted user's tweets: so many, those above each in its chain included, and at least one."""
    query = "SELECT id, depth FROM tweet WHERE author = ? AND NOT deleted LIMIT ?"
    some = first_within(sql.execute(query, (author, limit)), limit)
    return [delete(sql, tweet, counts=counts) for tweet in some]


def walk(sql: sqlite3.Connection, after: bytes, limit: int) -> list[TweetRecord]:
    """See `Store.walk_tweets`. In ascending order of id; a position is the last one."""
    query = f"SELECT {_COLUMNS} FROM tweet WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608 - column names
    return [_record(row) for row in sql.execute(query, (after, limit))]


def latest(sql: sqlite3.Connection) -> int:
    """See `Store.latest`. The newest tweet may have been purged, or its file restored from an older one."""
    newest, noted = sql.execute(
        "SELECT (SELECT max(id) FROM tweet), (SELECT value FROM meta WHERE name = 'latest')"
    ).fetchone()
    return max(millis_of(newest or ZERO), int.from_bytes(noted or b"", "big"))


def note_latest(sql: sqlite3.Connection, at: int) -> None:
    """See `Store.note_latest`."""
    sql.execute(
        "INSERT INTO meta VALUES ('latest', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (at.to_bytes(8, "big"),),
    )
