"""The store: users, follows and tweets. The only truth; everything else can be rebuilt from it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from rookery.domain.copies import Copy, Part, Unfinished
from rookery.domain.errors import Conflict
from rookery.domain.idempotency import Once
from rookery.domain.ids import TweetId, UserId
from rookery.domain.promises import Promise, ToldRun
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import FanoutState, UserCounts, UserRecord

Below = tuple[UserId, TweetId | None]
"""An author, and the id below which his tweets are wanted; None for the newest."""


TokenHash = bytes | Callable[[bytes], bytes]
"""The SHA-256 of a token (32 bytes), or a function of it from the id (16 bytes) that a write's key stands for."""


def hash_for(token: TokenHash, made: bytes) -> bytes:
    """The SHA-256 of a token that is written under a key that stands for this id."""
    return token if isinstance(token, bytes) else token(made)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a new user may sign in with. The token is kept as its SHA-256 (32 bytes), the password as a slow hash."""

    password_hash: str | None = None
    token_hash: TokenHash | None = None

    def token_of(self, user: UserId) -> bytes | None:
        """The SHA-256 of the token of a user who is registered by this id."""
        return hash_for(self.token_hash, user) if self.token_hash else None


@dataclass(frozen=True, slots=True)
class Written:
    """A tweet that was added or deleted, as it stands now, and the work that its write still owes."""

    tweet: TweetRecord
    owes_count: bool
    """The ranking is not told yet: it lives elsewhere than the store."""
    repeated: bool = False
    """Nothing changed, because it had happened before."""
    had: bool = False
    """By `add_tweet`: the author had this retweet already, and another was not made."""
    promise: Promise | None = None
    """The one for this tweet that was put on the list by this write: by `add_tweet` and `purge_user`."""


def new_among(
    tweets: Sequence[TweetRecord], known: Mapping[TweetId, TweetRecord]
) -> tuple[list[TweetRecord], list[Written]]:
    """Of tweets for a store whose counts are owed: those that it does not have, each once; and what to tell of all."""
    new: dict[TweetId, TweetRecord] = {}
    written: list[Written] = []
    for tweet in tweets:
        there = known.get(tweet.id) or new.get(tweet.id)
        if there is None:
            new[tweet.id] = tweet
        written.append(Written(there or tweet, owes_count=True, repeated=there is not None))
    return list(new.values()), written


@dataclass(frozen=True, slots=True)
class Shown:
    """What a store holds, to be read in the time that it takes, with `dump` as the store's own."""

    dump: Callable[[Part, bytes, int], Awaitable[tuple[Sequence[Copy], bytes | None]]]
    is_moment: bool
    """Whether it is all of one moment. Else what is written meanwhile may be seen in one part and not in another."""


@dataclass(frozen=True, slots=True)
class FanoutChange:
    """An author on his way between push and pull, and since when (milliseconds since 1970)."""

    author: UserId
    state: FanoutState
    since: int


def not_the_same() -> Conflict:
    """The answer to copies that do not belong into a store."""
    return Conflict(
        "not_the_same", "The store has other users already: copy into an empty one, or go on with its copy."
    )


class Store(Protocol):
    """Durable state. A write that returned is durable and seen by every later read of every process.

    Each write is atomic and all or nothing. A write that takes `once` is recorded with it in that same step: the same
    key and digest again changes nothing and returns what the first one did, for a day; the same key with another digest
    raises `BrokenRule` (`idempotency_key_reused`). A write that takes a `promise` puts it on the list in that same
    step, also when there was nothing to change, but not when it is a repetition or is refused. Writes of one process
    take effect in the order in which they were called, if each was awaited. Every method raises `Unavailable` when the
    store can't be reached or written. A write that raised it may have taken effect, or may yet within seconds: asked
    for again with its key it happens once, and what has no key can be done twice, but for a tweet.

    Lists are in descending order of id and go on below the id given (keyset pagination).
    """

    # --- users -------------------------------------------------------------------------------------------------------

    async def add_user(self, user: UserRecord, credentials: Credentials, once: Once | None = None) -> UserId:
        """Register a user; returns his id, which on a repeated write is the first one's.

        Raises:
            Conflict: `name_taken`, also for the name of a deleted user.
        """
        ...

    async def users(self, ids: Sequence[UserId]) -> Mapping[UserId, UserRecord]:
        """Those that ever were, deleted ones marked so."""
        ...

    async def user_by_name(self, name: str) -> UserRecord | None:
        """By handle, without case; deleted ones marked so."""
        ...

    async def list_users(self, after: str, limit: int) -> Sequence[UserRecord]:
        """Users not deleted in ascending order of handle, behind the one given ("" for the first)."""
        ...

    async def user_counts(self, user: UserId) -> UserCounts:
        """Counted from rows."""
        ...

    async def delete_user(self, user: UserId, promise: Promise | None = None) -> bool:
        """Mark a user deleted and revoke what he signs in with; the rows stay for `purge_user`. False if he was."""
        ...

    async def users_to_purge(self, limit: int) -> Sequence[UserId]:
        """Deleted users who have rows left."""
        ...

    async def purge_user(
        self, user: UserId, limit: int, promise: Callable[[TweetId], Promise | None] = lambda _: None
    ) -> Sequence[Written] | None:
        """One step of taking a deleted user's rows away; the tweets deleted by it, None when nothing is left to do.

        What `promise` makes for each of these is put on the list with it. A step touches so many rows at most, or one
        tweet with those above it in its chain. A user who is not deleted has nothing to be taken away.
        """
        ...

    # --- what users sign in with -------------------------------------------------------------------------------------

    async def password_hash(self, user: UserId) -> str | None:
        """What `Hasher.verify` takes."""
        ...

    async def set_password(
        self, user: UserId, password_hash: str, but: bytes | None = None, once: Once | None = None
    ) -> None:
        """Replace what `password_hash` returns, and end all tokens of the user that were added before, but this one.

        Raises:
            NotFound: `unknown_user`.
        """
        ...

    async def add_token(
        self, user: UserId, token: TokenHash, once: Once | None = None, made: bytes | None = None
    ) -> bytes:
        """Let a user act by one more token; returns the id (16 bytes) that the key stands for.

        That is `made`, or the user's when it is None; on a repeated write it is the first one's, and no token is added.

        Raises:
            NotFound: `unknown_user`.
        """
        ...

    async def token_owner(self, token_hash: bytes) -> UserRecord | None:
        """Whose token this is; None for a revoked one and one that never was."""
        ...

    async def revoke_token(self, token_hash: bytes) -> None:
        """End one token. Ending it twice changes nothing."""
        ...

    async def revoke_tokens(self, user: UserId, but: bytes | None = None) -> int:
        """End all tokens of a user, but this one; how many were ended."""
        ...

    async def recall(self, once: Once) -> bytes | None:
        """The id (16 bytes) that a recorded write made, None if there was no such write within the day.

        Raises:
            BrokenRule: `idempotency_key_reused`.
        """
        ...

    async def note_once(self, once: Once, made: bytes) -> None:
        """Record a key with an id (16 bytes) for `recall`, without a write of its own. The first one stays for a day.

        Raises:
            BrokenRule: `idempotency_key_reused`.
        """
        ...

    # --- follows -----------------------------------------------------------------------------------------------------

    async def follow(
        self,
        follower: UserId,
        followee: UserId,
        at: int,
        most: int,
        once: Once | None = None,
        *,
        promise: Promise | None = None,
    ) -> bool:
        """Write that one follows another; False if he did already. `at` in milliseconds since 1970.

        Raises:
            NotFound: `unknown_user`, for either.
            Conflict: `too_many_followees`, when he follows `most` already.
        """
        ...

    async def add_follows(self, pairs: Sequence[tuple[UserId, UserId]], at: int) -> int:
        """Many (follower, followee) at once, without a bound on followees, for an import; how many were new.

        Raises:
            Conflict: `inconsistent`, for one who never was.
        """
        ...

    async def unfollow(self, follower: UserId, followee: UserId, at: int, promise: Promise | None = None) -> bool:
        """Write that one follows another no more; False if he did not."""
        ...

    async def followees(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        """Whom a user follows."""
        ...

    async def followers(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        """Who follows a user."""
        ...

    async def has_followers(self, user: UserId, least: int) -> bool:
        """Whether at least so many follow a user. Costs as much as counting those."""
        ...

    async def followed_among(self, user: UserId, others: Sequence[UserId]) -> Set[UserId]:
        """Those of some others whom a user follows."""
        ...

    async def unfollowed_since(self, user: UserId, since: int, limit: int) -> Sequence[UserId] | None:
        """Whom he unfollowed at or after that time and does not follow now. Kept for 28 hours at least.

        None when more than `limit` are kept, those from before that time included. Costs as much as reading so many.
        """
        ...

    # --- tweets ------------------------------------------------------------------------------------------------------

    async def add_tweet(
        self,
        tweet: TweetRecord,
        most_depth: int,
        once: Once | None = None,
        promise: Promise | None = None,
        *,
        single: bool = False,
    ) -> Written:
        """Write a tweet. Its root and depth are set here, from the tweet it retweets.

        With `single`, a bare retweet (`is_bare`) of a tweet of which the author has a live one, written so or restored,
        changes nothing: theirs is returned, and belongs to the key from then on. Of many at once all get the same one.
        One that was written without `single` may be taken for it or not.

        Raises:
            NotFound: `unknown_tweet` or `deleted_tweet` for the one that is to be retweeted, `unknown_user`.
            Conflict: `chain_too_long`, when it would have more than `most_depth` tweets above it.
        """
        ...

    async def add_tweets(self, tweets: Sequence[TweetRecord]) -> Sequence[Written]:
        """Many tweets that retweet nothing, for an import; those whose id is there already are left as they are.

        Raises:
            Conflict: `inconsistent`, for an author who never was.
        """
        ...

    async def tweets(self, ids: Sequence[TweetId]) -> Mapping[TweetId, TweetRecord]:
        """Those that ever were, deleted ones marked so."""
        ...

    async def tails(self, wanted: Sequence[Below], limit: int) -> Sequence[Sequence[bytes]]:
        """Each author's newest live tweets below an id, as descending timeline entries, in the order asked."""
        ...

    async def delete_tweet(self, tweet: TweetId, promise: Promise | None = None) -> Written:
        """Mark a tweet deleted and forget its text. Its place in its chain stays.

        Raises:
            NotFound: `unknown_tweet`.
        """
        ...

    async def walk_tweets(self, position: bytes, limit: int) -> tuple[Sequence[TweetRecord], bytes | None]:
        """Some tweets from a position on, deleted ones too, and the position behind them; None at the end.

        In an order of the store's own, from the position b"" on. Each tweet that is there all the time is given once.
        """
        ...

    # --- fan-out -----------------------------------------------------------------------------------------------------

    async def set_fanout(self, author: UserId, old: FanoutState, new: FanoutState, at: int) -> bool:
        """Move an author from one state to another; False, and nothing changed, if he was not in the old one."""
        ...

    async def fanout_changes(self) -> Sequence[FanoutChange]:
        """All authors who are not plainly pushed."""
        ...

    # --- promises ----------------------------------------------------------------------------------------------------

    async def promises(self, before: int, after: bytes, limit: int) -> Sequence[Promise]:
        """Those made before that time (milliseconds since 1970) and not fulfilled, the oldest first, behind an id."""
        ...

    async def fulfil(self, promises: Sequence[bytes]) -> None:
        """Take promises off the list, by their ids. Those that are not there are none."""
        ...

    async def note_counted(self, counted: Sequence[Promise]) -> None:
        """Note work that a ranking was told and may forget, for a day at least. The ids are of when it was."""
        ...

    async def counted(self, since: int, after: bytes, limit: int) -> Sequence[Promise]:
        """What was noted so from that time on (milliseconds since 1970), the oldest first, behind an id."""
        ...

    async def told_run(self) -> ToldRun | None:
        """What was noted so last."""
        ...

    async def note_told_run(self, told: ToldRun) -> None:
        """Note a run of the ranking that was told all. Of two that note at once either wins."""
        ...

    # --- the epochs of caches ----------------------------------------------------------------------------------------

    async def epochs(self) -> Mapping[str, int]:
        """The epoch of each cache server that was ever given one."""
        ...

    async def raise_epoch(self, server: str, at: int) -> int:
        """Give a cache server an epoch greater than any it had; returns it.

        It is `at` (milliseconds since 1970) or more, so that none comes again when an older copy of the store does.
        """
        ...

    # --- all of it ---------------------------------------------------------------------------------------------------

    async def dump(self, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
        """Some of a part from a position on, and the position behind them; as `walk_tweets`. May be none, and go on."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Shown]:
        """All that it holds now, whatever is written meanwhile, for as long as this lasts."""
        ...

    async def restore(self, copies: Sequence[Copy]) -> None:
        """Write what another store dumped. Not atomic, but doing it again changes nothing; nothing is promised.

        Raises:
            Conflict: `not_the_same`, when it does not fit what is there.
        """
        ...

    async def adopt_secret(self, secret: bytes) -> None:
        """Take over another store's secret, while there are no users yet.

        Raises:
            Conflict: `not_the_same`, when there are and it is another.
        """
        ...

    async def latest(self) -> int:
        """The time of the newest tweet in milliseconds since 1970, 0 if there is none; up to ten seconds early.

        A store that is a list of tweets by time knows it; others know what `note_latest` noted.
        """
        ...

    async def note_latest(self, at: int) -> None:
        """Note that there may be tweets of that time (milliseconds since 1970). An earlier one changes nothing."""
        ...

    async def unfinished(self) -> Unfinished | None:
        """The restore or copy into this store that has not ended. Until it has, no server may use the store."""
        ...

    async def note_unfinished(self, unfinished: Unfinished | None) -> None:
        """Note how far a restore or a copy into this store is; None when it has ended."""
        ...

    # --- the store itself --------------------------------------------------------------------------------------------

    async def secret(self) -> bytes:
        """32 random bytes made with the store and never changed."""
        ...

    async def check(self) -> None:
        """Return if it can be read and written.

        Raises:
            Unavailable: `store_unavailable`.
        """
        ...

    async def tidy(self, now: int) -> None:
        """Forget what is past its time: idempotency keys and unfollows."""
        ...

    async def close(self) -> None:
        """Finish the writes that wait and let go of files and connections."""
        ...
