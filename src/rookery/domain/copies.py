"""What a store holds, in a form that any other takes: for moving all of it, and for comparing two."""

from enum import Enum

from msgspec import Struct

from rookery.domain.ids import UserId
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord


class Part(Enum):
    """The parts of a store, in the order in which they can be written: each speaks of those before it."""

    USERS = "users"
    TOKENS = "tokens"
    FOLLOWS = "follows"
    UNFOLLOWS = "unfollows"
    TWEETS = "tweets"
    KEYS = "keys"


class UserCopy(Struct, frozen=True, tag="user"):
    """A user with what he signs in with. `purged` says that nothing of a deleted one is left."""

    user: UserRecord
    password_hash: str | None
    purged: bool
    fanout_since: int


class TokenCopy(Struct, frozen=True, tag="token"):
    """A token, by its hash."""

    hash: bytes
    user: UserId


class FollowCopy(Struct, frozen=True, tag="follow"):
    """That one follows another since then (milliseconds since 1970)."""

    follower: UserId
    followee: UserId
    at: int


class UnfollowCopy(Struct, frozen=True, tag="unfollow"):
    """That one unfollowed another then (milliseconds since 1970), and does not follow him now."""

    follower: UserId
    followee: UserId
    at: int


class TweetCopy(Struct, frozen=True, tag="tweet"):
    """A tweet, which may be deleted."""

    tweet: TweetRecord


class KeyCopy(Struct, frozen=True, tag="key"):
    """An idempotency key with what its write made and told."""

    key: bytes
    digest: bytes
    made: bytes
    at: int


class Unfinished(Struct, frozen=True):
    """A restore or a copy that has begun to fill a store and has not ended.

    `which` (32 bytes) tells it from every other one. `advice` is for operators: the command, and how to continue.
    """

    which: bytes
    advice: str
    is_filled: bool = False
    """All rows are there and were compared; counts and caches may not be made yet."""


Copy = UserCopy | TokenCopy | FollowCopy | UnfollowCopy | TweetCopy | KeyCopy
