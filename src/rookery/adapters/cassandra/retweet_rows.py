"""Bare retweets in Cassandra: which one an author has of a tweet, decided before any row of it is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rookery.adapters.cassandra import tweet_rows
from rookery.adapters.cassandra.session import Change, Session
from rookery.domain.ids import TweetId
from rookery.domain.tweets import TweetRecord, is_bare


@dataclass(frozen=True, slots=True)
class Claimed:
    """The bare retweet that an author has of a tweet, and the timestamp of its rows."""

    id: TweetId
    stamp: int
    is_written: bool
    """Whether its rows are there. Else its writer was cut off or is at it, and whoever asks writes them too."""


async def claim(session: Session, tweet: TweetRecord, stamp: int) -> Claimed:
    """Make a bare retweet the one that its author has, unless they have a live one; the one that they have then."""
    turn = 0
    of = (tweet.author, tweet.retweet)
    change: Change = (
        "INSERT INTO bare_retweet (author, retweet, id, stamp) VALUES (?, ?, ?, ?) IF NOT EXISTS",
        (*of, tweet.id, stamp),
    )
    while not await session.decide(change):
        query = "SELECT id, stamp FROM bare_retweet WHERE author = ? AND retweet = ?"
        for found, its_stamp in await session.read(query, *of, serial=True):
            first = TweetId(found)
            record = await tweet_rows.by_id(session, first)
            if record is None or not record.deleted:
                return Claimed(first, its_stamp, record is not None)
            change = (
                "UPDATE bare_retweet SET id = ?, stamp = ? WHERE author = ? AND retweet = ? IF id = ?",
                (tweet.id, stamp, *of, first),
            )
        await session.back_off(turn)
        turn += 1
    return Claimed(tweet.id, stamp, is_written=False)


async def restore(session: Session, tweets: Sequence[TweetRecord], stamp: int) -> None:
    """Note those of restored tweets that are live and bare."""
    query = "INSERT INTO bare_retweet (author, retweet, id, stamp) VALUES (?, ?, ?, ?)"
    await session.each(
        [
            partial(session.write, query, tweet.author, tweet.retweet, tweet.id, stamp, stamp=stamp)
            for tweet in tweets
            if is_bare(tweet) and not tweet.deleted
        ]
    )
