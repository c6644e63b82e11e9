"""The store on a Cassandra ring.

What a write changes is in several partitions, so it is written down first (see `journal`), then done row by row with
one timestamp, and done again by whoever sweeps if its maker did not come to the end. What must be decided between
several - a name, a key, a follow within the bound, who deleted first - is decided by a lightweight transaction.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial

import msgspec

from rookery.adapters.cassandra import copy_rows, epoch_rows, follow_rows, retweet_rows, schema, tweet_rows, user_rows
from rookery.adapters.cassandra.journal import (
    Entry,
    FollowRows,
    Journal,
    NoTweetRows,
    NoUserRows,
    TweetRows,
    UserRows,
)
from rookery.adapters.cassandra.key_rows import Keys
from rookery.adapters.cassandra.session import Session, unavailable
from rookery.adapters.cassandra.turns import Turns
from rookery.adapters.cassandra.user_rows import Left
from rookery.domain.copies import Copy, Part, Unfinished
from rookery.domain.errors import Conflict, NotFound, Unavailable, unknown_tweet, unknown_user
from rookery.domain.idempotency import KEPT_MILLIS, Once
from rookery.domain.ids import TweetId, UserId
from rookery.domain.promises import Promise, ToldRun
from rookery.domain.tallies import Reading
from rookery.domain.tweets import TweetRecord, is_bare
from rookery.domain.users import FanoutState, UserCounts, UserRecord
from rookery.ports.clock import Clock
from rookery.ports.store import Below, Credentials, FanoutChange, Shown, TokenHash, Written, hash_for, new_among

_NEW, _OLD = b"\x01", b"\x00"
_IMPORTED_AT_ONCE = 50
_MOST_SKEW_MILLIS = 500
_LOOK_SECONDS = 0.2


class CassandraStore:
    """Implements `ports.store.Store`. The session belongs to whoever opened it."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._keys = Keys(session)
        self._journal = Journal(session, clock, self._redo)
        self._turns = Turns()
        self._unfollows_forgotten = 0
        self._behind: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._answered = asyncio.Event()
        self._closed = False

    def readings(self) -> Iterable[Reading]:
        """How the driver's connections are."""
        return self._session.readings()

    # --- users -------------------------------------------------------------------------------------------------------

    async def add_user(self, user: UserRecord, credentials: Credentials, once: Once | None = None) -> UserId:
        session = self._session
        async with self._writing(), self._turns.of(once.key if once else None):
            claim = await self._keys.look(once)
            if claim is None:
                if await user_rows.owner_of(session, user.name):
                    raise _name_taken()
                claim = await self._keys.claim(once, user.id)
            if claim.told is not None:
                return UserId(claim.made)
            user = msgspec.structs.replace(user, id=UserId(claim.made))
            rows = UserRows(user, credentials.password_hash, credentials.token_of(user.id))
            entry = await self._journal.add(None, rows, claim.stamp)
            if not await user_rows.claim_name(session, user.name, user.id):
                await self._keys.release(once, claim)
                await self._journal.remove([entry.id])
                raise _name_taken()
            await user_rows.write(session, rows, claim.stamp)
            await self._keys.done(once, claim)
        self._clear(entry)
        return user.id

    async def users(self, ids: Sequence[UserId]) -> Mapping[UserId, UserRecord]:
        return await user_rows.by_ids(self._session, ids)

    async def user_by_name(self, name: str) -> UserRecord | None:
        return await user_rows.by_name(self._session, name)

    async def list_users(self, after: str, limit: int) -> Sequence[UserRecord]:
        return await user_rows.listed(self._session, after, limit)

    async def user_counts(self, user: UserId) -> UserCounts:
        followers, followees, tweets = await asyncio.gather(
            follow_rows.count_followers(self._session, user),
            follow_rows.count_followees(self._session, user),
            tweet_rows.count(self._session, user),
        )
        return UserCounts(followers=followers, followees=followees, tweets=tweets)

    async def delete_user(self, user: UserId, promise: Promise | None = None) -> bool:
        async with self._writing():
            rows = NoUserRows(user)
            entry = await self._journal.add(promise, rows)
            deleted = await user_rows.delete(self._session, user)
            await user_rows.remove(self._session, rows, entry.stamp)
        self._clear(entry)
        return deleted

    async def users_to_purge(self, limit: int) -> Sequence[UserId]:
        return await user_rows.to_purge(self._session, limit)

    async def purge_user(
        self, user: UserId, limit: int, promise: Callable[[TweetId], Promise | None] = lambda _: None
    ) -> Sequence[Written] | None:
        before = await user_rows.left_to_purge(self._session, user)
        if before is None:
            return None

        async def delete(tweet: TweetId) -> Written:
            made = promise(tweet)
            try:
                return replace(await self.delete_tweet(tweet, made), promise=made)
            except NotFound as error:  # it is half written: its entry is yet to be swept
                raise unavailable(error) from error

        some = await tweet_rows.some_to_purge(self._session, user, before.tweets, limit)
        deleted = await self._session.each([partial(delete, tweet) for tweet in some])
        left = replace(before, tweets=some[-1]) if some else before
        left = await self._remove_follows(user, left, limit - len(some))
        async with self._writing():
            if left == before:
                await user_rows.mark_purged(self._session, user, left)
                return None
            await user_rows.note_purged(self._session, user, left)
        return deleted

    async def _remove_follows(self, user: UserId, left: Left, limit: int) -> Left:
        """Take away so many of a deleted user's follows, both ways; what is left then."""
        session = self._session
        some = min(limit, follow_rows.MOST_AT_ONCE)
        followees = await follow_rows.followees(session, user, left.followees, some) if some > 0 else []
        if followees:
            async with self._writing():
                entry = await self._journal.add(None, FollowRows(user, followees))
                await follow_rows.remove(session, entry.id, user, followees, None)
            self._clear(entry)
            left = replace(left, followees=followees[-1])

        async def remove(follower: UserId) -> None:
            async with self._writing():
                await follow_rows.remove(session, self._clock.random(16), follower, [user], None)

        some = limit - len(followees)
        followers = await follow_rows.followers(session, user, left.followers, some) if some > 0 else []
        await session.each([partial(remove, follower) for follower in followers])
        return replace(left, followers=followers[-1]) if followers else left

    # --- what users sign in with -------------------------------------------------------------------------------------

    async def password_hash(self, user: UserId) -> str | None:
        return await user_rows.password_hash(self._session, user)

    async def set_password(
        self, user: UserId, password_hash: str, but: bytes | None = None, once: Once | None = None
    ) -> None:
        """Not atomic: of a change that was cut off, and so not acknowledged, the tokens may be left.

        Called again with the same key it goes on, also when the password was replaced.
        """
        async with self._writing(), self._turns.of(once.key if once else None):
            claim = await self._keys.look(once)
            if claim is None:
                await self._require_live(user)
                claim = await self._keys.claim(once, user)
            if claim.told is None:
                await user_rows.set_password(self._session, user, password_hash)
                await user_rows.revoke_all(self._session, user, but)
                await self._keys.done(once, claim)

    async def add_token(
        self, user: UserId, token: TokenHash, once: Once | None = None, made: bytes | None = None
    ) -> bytes:
        async with self._writing(), self._turns.of(once.key if once else None):
            claim = await self._keys.look(once)
            if claim is None:
                await self._require_live(user)
                claim = await self._keys.claim(once, made or user)
            if claim.told is None:
                await user_rows.add_token(self._session, user, hash_for(token, claim.made), claim.stamp)
                await self._keys.done(once, claim)
        return claim.made

    async def token_owner(self, token_hash: bytes) -> UserRecord | None:
        return await user_rows.token_owner(self._session, token_hash)

    async def revoke_token(self, token_hash: bytes) -> None:
        async with self._writing():
            await user_rows.revoke(self._session, token_hash)

    async def revoke_tokens(self, user: UserId, but: bytes | None = None) -> int:
        async with self._writing():
            return await user_rows.revoke_all(self._session, user, but)

    async def recall(self, once: Once) -> bytes | None:
        claim = await self._keys.look(once)
        return claim.made if claim and claim.told is not None else None

    async def note_once(self, once: Once, made: bytes) -> None:
        async with self._writing(), self._turns.of(once.key):
            claim = await self._keys.look(once) or await self._keys.claim(once, made)
            if claim.told is None:
                await self._keys.done(once, claim)

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
        async with self._writing(), self._turns.of(once.key if once else None), self._turns.of(follower):
            claim = await self._keys.look(once)
            if claim is None:
                await self._require_live(follower, followee)
                claim = await self._keys.claim(once, followee)
            if claim.told is not None:
                return claim.told == _NEW
            entry = await self._journal.add(promise, FollowRows(follower, [followee]), claim.stamp)
            by = once.key if once else entry.id
            try:
                new = await follow_rows.add(self._session, entry.id, follower, followee, at, most=most, by=by)
            except Conflict:
                await self._keys.release(once, claim)
                await self._journal.remove([entry.id])
                raise
            await self._keys.done(once, claim, _NEW if new else _OLD)
            await self._purge_again([follower, followee])
        self._clear(entry)
        return new

    async def add_follows(self, pairs: Sequence[tuple[UserId, UserId]], at: int) -> int:
        wanted: defaultdict[UserId, dict[UserId, int]] = defaultdict(dict)
        for follower, followee in pairs:
            wanted[follower][followee] = at
        await self._require_known({user for pair in pairs for user in pair})

        async def add(follower: UserId, followees: Mapping[UserId, int]) -> int:
            async with self._writing(), self._turns.of(follower):
                entry = await self._journal.add(None, FollowRows(follower, list(followees)))
                new = await follow_rows.add_many(self._session, entry.id, follower, followees)
                await self._purge_again([follower, *followees])
            self._clear(entry)
            return new

        return sum(await self._session.each([partial(add, *batch) for batch in follow_rows.in_batches(wanted)]))

    async def unfollow(self, follower: UserId, followee: UserId, at: int, promise: Promise | None = None) -> bool:
        async with self._writing(), self._turns.of(follower):
            entry = await self._journal.add(promise, FollowRows(follower, [followee]))
            gone = await follow_rows.remove(self._session, entry.id, follower, [followee], at)
        self._clear(entry)
        return bool(gone)

    async def followees(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        return await follow_rows.followees(self._session, user, below, limit)

    async def followers(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        return await follow_rows.followers(self._session, user, below, limit)

    async def has_followers(self, user: UserId, least: int) -> bool:
        return await follow_rows.has_followers(self._session, user, least)

    async def followed_among(self, user: UserId, others: Sequence[UserId]) -> Set[UserId]:
        return await follow_rows.followed_among(self._session, user, others)

    async def unfollowed_since(self, user: UserId, since: int, limit: int) -> Sequence[UserId] | None:
        return await follow_rows.unfollowed(self._session, user, max(since, self._unfollows_forgotten), limit)

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
        session = self._session
        async with self._writing(), self._turns.of(once.key if once else None):
            claim = await self._keys.look(once)
            if claim is None:
                _, tweet = await asyncio.gather(
                    self._require_live(tweet.author), tweet_rows.in_chain(session, tweet, most_depth)
                )
                claim = await self._keys.claim(once, tweet.id)
            else:
                tweet = await tweet_rows.in_chain(session, tweet, None)
            if claim.told is not None:
                return await self._written_before(TweetId(claim.told or claim.made), had=bool(claim.told))
            given, tweet = tweet.id, msgspec.structs.replace(tweet, id=TweetId(claim.made))
            stamp, told = claim.stamp, b""
            if single and is_bare(tweet):
                claimed = await retweet_rows.claim(session, tweet, stamp)
                tweet, stamp = msgspec.structs.replace(tweet, id=claimed.id), claimed.stamp
                told = claimed.id if claimed.id != claim.made else b""
                if claimed.is_written and told:
                    await self._keys.done(once, claim, told)
                    return await self._written_before(claimed.id, had=True)
            if promise is not None and promise.subject == given != tweet.id:
                promise = replace(promise, subject=tweet.id)  # the first attempt's tweet it is
            rows = TweetRows([tweet])
            entry = await self._journal.add(promise, rows, stamp)
            await tweet_rows.write(session, rows, stamp)
            await self._keys.done(once, claim, told)
        if not await self._looked_behind(tweet.author):
            return Written(tweet, owes_count=True, had=bool(told))  # it is done; a sweep looks in its stead
        self._clear(entry)
        return Written(tweet, owes_count=True, had=bool(told), promise=promise)

    async def _written_before(self, tweet: TweetId, *, had: bool) -> Written:
        return Written(
            (await tweet_rows.by_ids(self._session, [tweet]))[tweet], owes_count=True, repeated=True, had=had
        )

    async def add_tweets(self, tweets: Sequence[TweetRecord]) -> Sequence[Written]:
        await self._require_known({tweet.author for tweet in tweets})
        known = await tweet_rows.by_ids(self._session, [tweet.id for tweet in tweets])
        new, written = new_among(tweets, known)
        for start in range(0, len(new), _IMPORTED_AT_ONCE):
            rows = TweetRows(new[start : start + _IMPORTED_AT_ONCE])
            async with self._writing():
                entry = await self._journal.add(None, rows)
                await tweet_rows.write(self._session, rows, entry.stamp)
                await self._purge_again([tweet.author for tweet in rows.tweets])
            self._clear(entry)
        return written

    async def tweets(self, ids: Sequence[TweetId]) -> Mapping[TweetId, TweetRecord]:
        return await tweet_rows.by_ids(self._session, ids)

    async def tails(self, wanted: Sequence[Below], limit: int) -> Sequence[Sequence[bytes]]:
        return await tweet_rows.tails(self._session, wanted, limit)

    async def delete_tweet(self, tweet: TweetId, promise: Promise | None = None) -> Written:
        async with self._writing():
            record = await tweet_rows.by_id(self._session, tweet)
            if record is None:
                raise unknown_tweet()
            rows = NoTweetRows(tweet)
            entry = await self._journal.add(promise, rows)
            first = not record.deleted and await tweet_rows.delete(self._session, tweet)
            await tweet_rows.forget(self._session, rows, entry.stamp)
        self._clear(entry)
        gone = msgspec.structs.replace(record, deleted=True, title="", body="")
        return Written(gone, owes_count=True, repeated=not first)

    async def walk_tweets(self, position: bytes, limit: int) -> tuple[Sequence[TweetRecord], bytes | None]:
        return await tweet_rows.walk(self._session, position, limit)

    # --- fan-out -----------------------------------------------------------------------------------------------------

    async def set_fanout(self, author: UserId, old: FanoutState, new: FanoutState, at: int) -> bool:
        async with self._writing():
            return await user_rows.set_fanout(self._session, author, old, new, at)

    async def fanout_changes(self) -> Sequence[FanoutChange]:
        return await user_rows.fanout_changes(self._session)

    # --- promises ----------------------------------------------------------------------------------------------------

    async def promises(self, before: int, after: bytes, limit: int) -> Sequence[Promise]:
        return await self._journal.oldest(before, after, limit)

    async def fulfil(self, promises: Sequence[bytes]) -> None:
        await self._journal.remove(promises)

    async def note_counted(self, counted: Sequence[Promise]) -> None:
        await self._journal.note_counted(counted)

    async def counted(self, since: int, after: bytes, limit: int) -> Sequence[Promise]:
        return await self._journal.counted(since, after, limit)

    async def told_run(self) -> ToldRun | None:
        return await self._journal.told_run()

    async def note_told_run(self, told: ToldRun) -> None:
        async with self._writing():
            await self._journal.note_told_run(told)

    async def _redo(self, entry: Entry) -> None:
        """Do what an entry says, whatever of it was done. Nothing that was written later is undone by that."""
        session, stamp = self._session, entry.stamp
        match entry.rows:
            case UserRows() as rows:
                if await user_rows.claim_name(session, rows.user.name, rows.user.id):
                    await user_rows.write(session, rows, stamp)
            case NoUserRows() as rows:
                await user_rows.delete(session, rows.user)
                await user_rows.remove(session, rows, stamp)
            case TweetRows() as rows:
                await tweet_rows.rewrite(session, rows, stamp)
                await self._purge_again([tweet.author for tweet in rows.tweets])
            case NoTweetRows() as rows:
                if await tweet_rows.by_id(session, rows.tweet):
                    await tweet_rows.delete(session, rows.tweet)
                    await tweet_rows.forget(session, rows, stamp)
            case FollowRows() as rows:
                await follow_rows.redo(session, rows)
                await self._purge_again([rows.follower, *rows.followees])

    def _clear(self, entry: Entry) -> None:
        """Take an entry of the store's own off the list. Nobody waits for it, and what is left a sweep takes off."""
        if entry.promise is None:
            task = asyncio.create_task(self._forget(entry))
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def _forget(self, entry: Entry) -> None:
        with suppress(Unavailable):
            await self._journal.remove([entry.id])

    async def _looked_behind(self, author: UserId) -> bool:
        """Whether it could be seen in a moment if a write that is done came after its user's purge."""
        try:
            async with self._writing(), self._session.within(_LOOK_SECONDS):
                await self._purge_again([author])
        except Unavailable:
            return False
        return True

    async def _purge_again(self, users: Sequence[UserId]) -> None:
        """Rows that were written while their user was deleted may have come after his purge."""
        for user in (await user_rows.by_ids(self._session, users)).values():
            if user.deleted:
                await user_rows.purge_again(self._session, user.id)

    # --- the epochs of caches ----------------------------------------------------------------------------------------

    async def epochs(self) -> Mapping[str, int]:
        return await epoch_rows.known(self._session)

    async def raise_epoch(self, server: str, at: int) -> int:
        async with self._writing():
            return await epoch_rows.raise_(self._session, server, at)

    # --- the store itself --------------------------------------------------------------------------------------------

    async def dump(self, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
        return await copy_rows.dump(self._session, part, position, limit)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Shown]:
        yield Shown(self.dump, is_moment=False)

    async def restore(self, copies: Sequence[Copy]) -> None:
        await copy_rows.restore(self._session, copies)

    async def adopt_secret(self, secret: bytes) -> None:
        await schema.adopt_secret(self._session, secret)

    async def latest(self) -> int:
        return await schema.latest(self._session)

    async def note_latest(self, at: int) -> None:
        await schema.note_latest(self._session, at)

    async def unfinished(self) -> Unfinished | None:
        return await schema.unfinished(self._session)

    async def note_unfinished(self, unfinished: Unfinished | None) -> None:
        await schema.note_unfinished(self._session, unfinished)

    async def secret(self) -> bytes:
        return await schema.secret(self._session)

    async def check(self) -> None:
        async with self._writing():
            await self._session.write(
                "INSERT INTO meta (name, value) VALUES ('probe', ?)", self._clock.random(8), stamp=self._session.stamp()
            )
            asked = self._clock.now()
            rows = await self._session.read("SELECT toUnixTimestamp(now()) FROM meta WHERE name = 'probe'")
            theirs = rows[0][0] if rows else asked
            if not asked - _MOST_SKEW_MILLIS <= theirs <= self._clock.now() + _MOST_SKEW_MILLIS:
                raise Unavailable("clock_skewed", "The clocks of this machine and of the store differ too much.")

    async def tidy(self, now: int) -> None:
        """Rows that are past their time end by themselves; until then they are passed over."""
        self._keys.forgotten = max(self._keys.forgotten, now - KEPT_MILLIS)
        self._unfollows_forgotten = max(self._unfollows_forgotten, now - follow_rows.UNFOLLOWS_KEPT_SECONDS * 1000)

    async def close(self) -> None:
        self._closed = True
        while self._under_way:
            self._answered.clear()
            await self._answered.wait()
        await asyncio.gather(*self._behind, return_exceptions=True)
        await self._session.close()

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """A write that `close` waits for, in as much time as one may take."""
        if self._closed:
            raise unavailable()
        self._under_way += 1
        try:
            async with self._session.within():
                yield
        finally:
            self._under_way -= 1
            self._answered.set()

    async def _require_live(self, *users: UserId) -> None:
        known = await user_rows.by_ids(self._session, users)
        if any(user not in known or known[user].deleted for user in users):
            raise unknown_user()

    async def _require_known(self, users: Collection[UserId]) -> None:
        if len(await user_rows.by_ids(self._session, list(users))) < len(users):
            raise Conflict("inconsistent", "What is to be written speaks of users who never were.")


def _name_taken() -> Conflict:
    return Conflict("name_taken", "This name is taken.")
