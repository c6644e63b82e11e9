"""Tweets in Cassandra."""

from collections.abc import Sequence
from functools import partial

import msgspec

from rookery.adapters.cassandra import user_rows
from rookery.adapters.cassandra.journal import NoTweetRows, TweetRows
from rookery.adapters.cassandra.session import ABOVE_ALL, Row, Session
from rookery.domain.errors import deleted_tweet, unknown_tweet
from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import entry
from rookery.domain.tweets import TweetRecord, chained, first_within
from rookery.ports.store import Below

_COLUMNS = "id, author, title, body, retweet, root, depth, initial, deleted"
_INSERT = (
    "INSERT INTO tweet_by_id (id, author, title, body, retweet, root, depth, initial) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def _record(row: Row) -> TweetRecord:
    tweet, author, title, body, retweet, root, depth, initial, deleted = row
    return TweetRecord(
        TweetId(tweet),
        UserId(author),
        "" if deleted else title,
        "" if deleted else body,
        TweetId(retweet) if retweet else None,
        TweetId(root) if root else None,
        depth,
        initial,
        bool(deleted),
    )


async def by_ids(session: Session, ids: Sequence[TweetId]) -> dict[TweetId, TweetRecord]:
    """See `Store.tweets`."""
    query = f"SELECT {_COLUMNS} FROM tweet_by_id WHERE id = ?"  # noqa: S608 - column names
    found = await session.each([partial(session.read, query, tweet) for tweet in dict.fromkeys(ids)])
    return {record.id: record for rows in found for record in map(_record, rows) if record.author}


async def by_id(session: Session, tweet: TweetId) -> TweetRecord | None:
    """One of them."""
    return (await by_ids(session, [tweet])).get(tweet)


async def walk(session: Session, position: bytes, limit: int) -> tuple[list[TweetRecord], bytes | None]:
    """See `Store.walk_tweets`. In the order of the ring, node after node."""
    rows, behind = await session.page(f"SELECT {_COLUMNS} FROM tweet_by_id", position, limit)  # noqa: S608
    return [_record(row) for row in rows if row[1]], behind


async def tails(session: Session, wanted: Sequence[Below], limit: int) -> list[list[bytes]]:
    """See `Store.tails`."""
    query = "SELECT id FROM tweet_by_author WHERE author = ? AND id < ? LIMIT ?"
    found = await session.each(
        [partial(session.read, query, author, below or ABOVE_ALL, limit) for author, below in wanted]
    )
    return [
        [entry(TweetId(tweet), author) for (tweet,) in rows] for (author, _), rows in zip(wanted, found, strict=True)
    ]


async def count(session: Session, author: UserId) -> int:
    """How many live tweets an author has."""
    query = "SELECT count(*) FROM tweet_by_author WHERE author = ?"
    number: int = (await session.read(query, author, long=True))[0][0]
    return number


async def in_chain(session: Session, tweet: TweetRecord, most_depth: int | None) -> TweetRecord:
    """A tweet with its root and depth, which are those of the tweet above it and one more.

    With `most_depth` it is refused what can't be retweeted; without, what could be once.

    Raises:
        NotFound: `unknown_tweet`, `deleted_tweet`.
        Conflict: `chain_too_long`.
    """
    if tweet.retweet is None:
        return msgspec.structs.replace(tweet, root=None, depth=0)
    parent = await by_id(session, tweet.retweet)
    if parent is None:
        raise unknown_tweet()
    if most_depth is not None:
        author = await user_rows.by_id(session, parent.author)
        if parent.deleted or author is None or author.deleted:
            raise deleted_tweet()
    return chained(tweet, parent.root, parent.depth, most_depth)


async def write(session: Session, rows: TweetRows, stamp: int) -> None:
    """Write the rows of new tweets."""
    by_author = "INSERT INTO tweet_by_author (author, id, depth) VALUES (?, ?, ?)"
    await session.each(
        [
            partial(session.write, query, *values, stamp=stamp)
            for one in rows.tweets
            for query, values in (
                (_INSERT, _values(one)),
                (by_author, (one.author, one.id, one.depth)),
            )
        ]
    )


def _values(tweet: TweetRecord) -> Sequence[object]:
    return (tweet.id, tweet.author, tweet.title, tweet.body, tweet.retweet, tweet.root, tweet.depth, tweet.initial)


async def write_deleted(session: Session, tweet: TweetRecord, stamp: int) -> None:
    """Write a tweet that was deleted elsewhere: its place in its chain."""
    await session.write(_INSERT, *_values(tweet), stamp=stamp)
    await delete(session, tweet.id)


async def rewrite(session: Session, rows: TweetRows, stamp: int) -> None:
    """Write them again, but for those that were deleted since: nothing of them comes back."""
    known = await by_ids(session, [tweet.id for tweet in rows.tweets])
    left = [tweet for tweet in rows.tweets if tweet.id not in known or not known[tweet.id].deleted]
    await write(session, TweetRows(left), stamp)


async def delete(session: Session, tweet: TweetId) -> bool:
    """Mark a tweet that is there deleted; False if it was. Of many at once one gets True."""
    return await session.set_once(
        ("UPDATE tweet_by_id SET deleted = true WHERE id = ? IF deleted = null", (tweet,)),
        ("SELECT deleted FROM tweet_by_id WHERE id = ?", (tweet,)),
    )


async def forget(session: Session, rows: NoTweetRows, stamp: int) -> None:
    """Take away the text of a deleted tweet, and its place among its author's. That in its chain stays."""
    query = "SELECT author, writetime(author) FROM tweet_by_id WHERE id = ?"
    for author, written in await session.read(query, rows.tweet):
        after = max(stamp, written + 1)
        await session.each(
            [
                partial(
                    session.write,
                    "UPDATE tweet_by_id SET title = '', body = '' WHERE id = ?",
                    rows.tweet,
                    stamp=after,
                ),
                partial(
                    session.write,
                    "DELETE FROM tweet_by_author WHERE author = ? AND id = ?",
                    *(author, rows.tweet),
                    stamp=after,
                ),
            ]
        )


async def some_to_purge(session: Session, author: UserId, below: bytes | None, limit: int) -> list[TweetId]:
    """Some of a deleted user's tweets: so many, those above each in its chain included, and at least one."""
    query = "SELECT id, depth FROM tweet_by_author WHERE author = ? AND id < ? LIMIT ?"
    return first_within(await session.read(query, author, below or ABOVE_ALL, limit), limit)
