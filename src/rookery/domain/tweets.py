"""Tweets: what is stored of them, what is shown of them, and how a shown one is put together from its cached part."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from rookery.domain.errors import Conflict
from rookery.domain.ids import TweetId, UserId, time_of


class TweetRecord(Struct, frozen=True):
    """A tweet as the store keeps it. A deleted one keeps its place in its chain and nothing of its text."""

    id: TweetId
    author: UserId
    title: str
    body: str
    retweet: TweetId | None = None
    root: TweetId | None = None
    """The first tweet of the chain; None for a tweet that retweets nothing and so is a root itself."""
    depth: int = 0
    """How many tweets are above it in its chain."""
    initial: int = 0
    """What `count_retweet` starts from."""
    deleted: bool = False


def is_bare(tweet: TweetRecord) -> bool:
    """Whether a tweet is a retweet that adds nothing: no title, no text, and no count to start from."""
    return tweet.retweet is not None and not (tweet.title or tweet.body or tweet.initial)


def chained(tweet: TweetRecord, root: TweetId | None, depth: int, most_depth: int | None) -> TweetRecord:
    """A retweet in its place: in the chain of the tweet it retweets, which has this root and depth, one below it.

    Raises:
        Conflict: `chain_too_long`, with more than `most_depth` tweets above it.
    """
    if most_depth is not None and depth + 1 > most_depth:
        raise Conflict("chain_too_long", f"A chain has at most {most_depth} retweets.")
    return msgspec.structs.replace(tweet, root=root or tweet.retweet, depth=depth + 1)


def first_within(tweets: Iterable[tuple[bytes, int]], limit: int) -> list[TweetId]:
    """The first of these tweets and their depths: so many, those above each in its chain included, and at least one."""
    some: list[TweetId] = []
    touched = 0
    for tweet, depth in tweets:
        touched += 1 + depth
        if some and touched > limit:
            break
        some.append(TweetId(tweet))
    return some


class Link(Struct, frozen=True):
    """A tweet's place in its chain: all that the ranking knows of it."""

    id: TweetId
    parent: TweetId | None
    root: TweetId
    depth: int
    initial: int
    live: bool = True


def link_of(record: TweetRecord) -> Link:
    """The place in its chain of a stored tweet."""
    return Link(
        id=record.id,
        parent=record.retweet,
        root=record.root or record.id,
        depth=record.depth,
        initial=record.initial,
        live=not record.deleted,
    )


class Tweet(Struct, frozen=True):
    """A tweet as everyone sees it."""

    id: UUID
    user_id: UUID
    title: str
    body: Annotated[str, Meta(examples=["Hello, world"])]
    retweet: Annotated[UUID | None, Meta(description="The tweet that this one retweets.")]
    created_at: datetime
    user_name: Annotated[str, Meta(examples=["ada"])]
    count_retweet: Annotated[
        int | None, Meta(description="Null while the ranking can't be reached; tweets go on without it.")
    ]


class ChainedTweet(Struct, frozen=True):
    """A tweet in its chain. Of a deleted one only its place is left: no author, no text, no count."""

    id: UUID
    user_id: UUID | None
    title: str
    body: str
    retweet: UUID | None
    created_at: datetime
    user_name: str | None
    count_retweet: int | None
    deleted: bool


class _Fragment(Struct, frozen=True):
    """The part of a `Tweet` that never changes, in its order. Name and count come behind it."""

    id: UUID
    user_id: UUID
    title: str
    body: str
    retweet: UUID | None
    created_at: datetime


_encode = msgspec.json.Encoder().encode


def fragment_of(record: TweetRecord) -> bytes:
    """The cacheable part of a tweet: JSON without its closing brace, without count and author's name."""
    return _encode(
        _Fragment(
            id=UUID(bytes=record.id),
            user_id=UUID(bytes=record.author),
            title=record.title,
            body=record.body,
            retweet=UUID(bytes=record.retweet) if record.retweet else None,
            created_at=time_of(record.id),
        )
    )[:-1]


def complete(fragment: bytes, user_name: str, count: int | None) -> bytes:
    """The JSON of a `Tweet` from its cached fragment, its author's handle (ASCII, nothing to escape) and its count."""
    number = "null" if count is None else count
    return b'%b,"user_name":"%b","count_retweet":%b}' % (fragment, user_name.encode(), str(number).encode())


def place_of(record: TweetRecord) -> bytes:
    """The JSON of a `ChainedTweet` that was deleted."""
    return _encode(
        ChainedTweet(
            id=UUID(bytes=record.id),
            user_id=None,
            title="",
            body="",
            retweet=UUID(bytes=record.retweet) if record.retweet else None,
            created_at=time_of(record.id),
            user_name=None,
            count_retweet=None,
            deleted=True,
        )
    )


def in_chain(tweet: bytes) -> bytes:
    """The JSON of a `ChainedTweet` that is live, from that of the `Tweet`."""
    return tweet[:-1] + b',"deleted":false}'
