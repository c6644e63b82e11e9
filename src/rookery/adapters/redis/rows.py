"""What the store keeps in Redis, as bytes."""

from collections.abc import Sequence
from struct import Struct
from typing import Any

from rookery.domain.ids import ID_BYTES, TweetId, UserId
from rookery.domain.promises import Promise, Work
from rookery.domain.tweets import TweetRecord, is_bare
from rookery.domain.users import FanoutState, UserRecord

LIVE, DELETED = b"l", b"d"
_HEAD = Struct(">c16sQI")
"""State, author, initial count, depth."""
_CHAIN = Struct(">16s16s")
"""Retweet and root, of a tweet whose depth is not 0."""
_LENGTH = Struct(">H")
"""Of the title in bytes; the body goes to the end."""


def millis(at: int) -> bytes:
    """A time as its bytes sort: milliseconds since 1970."""
    return max(at, 0).to_bytes(6, "big")


def value_of(tweet: TweetRecord) -> bytes:
    """A tweet without its id."""
    state = DELETED if tweet.deleted else LIVE
    head = _HEAD.pack(state, tweet.author, tweet.initial, tweet.depth)
    if tweet.depth:
        head += _CHAIN.pack(tweet.retweet, tweet.root)
    title = tweet.title.encode()
    return head + _LENGTH.pack(len(title)) + title + tweet.body.encode()


def bare_of(tweet: TweetRecord) -> bytes:
    """Which tweet a live bare retweet retweets; b"" for all else."""
    return tweet.retweet if tweet.retweet and is_bare(tweet) and not tweet.deleted else b""


def tweet_of(tweet: TweetId, value: bytes) -> TweetRecord:
    """The tweet of such a value."""
    state, author, initial, depth = _HEAD.unpack_from(value)
    at = _HEAD.size
    retweet = root = None
    if depth:
        retweet, root = _CHAIN.unpack_from(value, at)
        at += _CHAIN.size
    start = at + _LENGTH.size
    end = start + _LENGTH.unpack_from(value, at)[0]
    return TweetRecord(
        tweet,
        UserId(author),
        value[start:end].decode(),
        value[end:].decode(),
        retweet,
        root,
        depth,
        initial,
        state == DELETED,
    )


def depth_of(value: bytes) -> int:
    """How many tweets are above the one of such a value."""
    depth: int = _HEAD.unpack_from(value)[3]
    return depth


def user_of(user: bytes, row: Sequence[Any]) -> UserRecord:
    """A user of name, display name, admin, deleted and fan-out state."""
    name, display_name, is_admin, deleted, fanout = row
    return UserRecord(
        UserId(user),
        name.decode(),
        display_name.decode(),
        is_admin == b"1",
        deleted is not None,
        FanoutState(int(fanout or 0)),
    )


def member_of(promise: Promise) -> bytes:
    """A promise, or what was counted, as a list keeps it."""
    return promise.id + bytes([promise.work]) + promise.subject


def promise_of(member: bytes) -> Promise:
    """What such a member says."""
    return Promise(member[:ID_BYTES], Work(member[ID_BYTES]), member[ID_BYTES + 1 :])
