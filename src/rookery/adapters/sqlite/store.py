"""The store in one SQLite file."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from rookery.adapters.sqlite import copy_rows, follow_rows, key_rows, promise_rows, tweet_rows, user_rows
from rookery.adapters.sqlite.database import Database
from rookery.domain.copies import Copy, Part, Unfinished
from rookery.domain.idempotency import Once
from rookery.domain.ids import ID_BYTES, TweetId, UserId
from rookery.domain.promises import Promise, ToldRun
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import FanoutState, UserCounts, UserRecord
from rookery.ports.store import Below, Credentials, FanoutChange, Shown, TokenHash, Written

T = TypeVar("T")

_TIDIED_AT_ONCE = 1_000


class SqliteStore:
    """Implements `ports.store.Store`. The `Database` belongs to whoever opened it.

    With `counts` the ranking is in the same file and is told in the transaction of each tweet, so no count is owed.
    """

    def __init__(self, database: Database, *, counts: bool) -> None:
        self._database = database
        self._counts = counts

    async def add_user(self, user: UserRecord, credentials: Credentials, once: Once | None = None) -> UserId:
        return await self._database.write(lambda sql: user_rows.add(sql, user, credentials, once))

    async def users(self, ids: Sequence[UserId]) -> Mapping[UserId, UserRecord]:
        with self._database.reading() as sql:
            return user_rows.by_ids(sql, ids)

    async def user_by_name(self, name: str) -> UserRecord | None:
        with self._database.reading() as sql:
            return user_rows.by_name(sql, name)

    async def list_users(self, after: str, limit: int) -> Sequence[UserRecord]:
        with self._database.reading() as sql:
            return user_rows.listed(sql, after, limit)

    async def user_counts(self, user: UserId) -> UserCounts:
        with self._database.reading() as sql:
            counted = user_rows.counts(sql, user, user_rows.COUNTED_AT_ONCE)
        if max(counted.followers, counted.followees, counted.tweets) < user_rows.COUNTED_AT_ONCE:
            return counted
        return await self._database.read_long(lambda sql: user_rows.counts(sql, user))

    async def delete_user(self, user: UserId, promise: Promise | None = None) -> bool:
        return await self._promised(promise, lambda sql: user_rows.delete(sql, user))

    async def users_to_purge(self, limit: int) -> Sequence[UserId]:
        with self._database.reading() as sql:
            return user_rows.to_purge(sql, limit)

    async def purge_user(
        self, user: UserId, limit: int, promise: Callable[[TweetId], Promise | None] = lambda _: None
    ) -> Sequence[Written] | None:
        def step(sql: sqlite3.Connection) -> Sequence[Written] | None:
            if not user_rows.is_to_purge(sql, user):
                return None
            deleted = [
                replace(written, promise=promise(written.tweet.id))
                for written in tweet_rows.delete_some_of(sql, user, limit, counts=self._counts)
            ]
            for written in deleted:
                promise_rows.add(sql, written.promise)
            left = limit - len(deleted)
            if not left or follow_rows.remove_some_of(sql, user, left) or deleted:
                return deleted
            user_rows.mark_purged(sql, user)
            return None

        return await self._database.write(step)

    async def password_hash(self, user: UserId) -> str | None:
        with self._database.reading() as sql:
            return user_rows.password_hash(sql, user)

    async def set_password(
        self, user: UserId, password_hash: str, but: bytes | None = None, once: Once | None = None
    ) -> None:
        await self._database.write(lambda sql: user_rows.set_password(sql, user, password_hash, but, once))

    async def add_token(
        self, user: UserId, token: TokenHash, once: Once | None = None, made: bytes | None = None
    ) -> bytes:
        return await self._database.write(lambda sql: user_rows.add_token(sql, user, token, once, made))

    async def token_owner(self, token_hash: bytes) -> UserRecord | None:
        with self._database.reading() as sql:
            return user_rows.token_owner(sql, token_hash)

    async def revoke_token(self, token_hash: bytes) -> None:
        await self._database.write(lambda sql: user_rows.revoke(sql, token_hash))

    async def revoke_tokens(self, user: UserId, but: bytes | None = None) -> int:
        return await self._database.write(lambda sql: user_rows.revoke_all(sql, user, but))

    async def recall(self, once: Once) -> bytes | None:
        with self._database.reading() as sql:
            made = key_rows.recall(sql, once)
            return made[:ID_BYTES] if made else None

    async def note_once(self, once: Once, made: bytes) -> None:
        await self._database.write(lambda sql: key_rows.note(sql, once, made))

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
        return await self._database.write(
            lambda sql: follow_rows.add(sql, follower, followee, at, most=most, once=once, promise=promise)
        )

    async def add_follows(self, pairs: Sequence[tuple[UserId, UserId]], at: int) -> int:
        return await self._database.write(lambda sql: follow_rows.add_many(sql, pairs, at))

    async def unfollow(self, follower: UserId, followee: UserId, at: int, promise: Promise | None = None) -> bool:
        return await self._promised(promise, lambda sql: follow_rows.remove(sql, follower, followee, at))

    async def followees(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        with self._database.reading() as sql:
            return follow_rows.followees(sql, user, below, limit)

    async def followers(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        with self._database.reading() as sql:
            return follow_rows.followers(sql, user, below, limit)

    async def has_followers(self, user: UserId, least: int) -> bool:
        if least <= user_rows.COUNTED_AT_ONCE:
            with self._database.reading() as sql:
                return follow_rows.has_followers(sql, user, least)
        return await self._database.read_long(lambda sql: follow_rows.has_followers(sql, user, least))

    async def followed_among(self, user: UserId, others: Sequence[UserId]) -> Set[UserId]:
        with self._database.reading() as sql:
            return follow_rows.followed_among(sql, user, others)

    async def unfollowed_since(self, user: UserId, since: int, limit: int) -> Sequence[UserId] | None:
        with self._database.reading() as sql:
            return follow_rows.unfollowed_since(sql, user, since, limit)

    async def add_tweet(
        self,
        tweet: TweetRecord,
        most_depth: int,
        once: Once | None = None,
        promise: Promise | None = None,
        *,
        single: bool = False,
    ) -> Written:
        return await self._database.write(
            lambda sql: tweet_rows.add(sql, tweet, most_depth, once, promise, counts=self._counts, single=single)
        )

    async def add_tweets(self, tweets: Sequence[TweetRecord]) -> Sequence[Written]:
        return await self._database.write(lambda sql: tweet_rows.add_many(sql, tweets, counts=self._counts))

    async def tweets(self, ids: Sequence[TweetId]) -> Mapping[TweetId, TweetRecord]:
        with self._database.reading() as sql:
            return tweet_rows.by_ids(sql, ids)

    async def tails(self, wanted: Sequence[Below], limit: int) -> Sequence[Sequence[bytes]]:
        with self._database.reading() as sql:
            return tweet_rows.tails(sql, wanted, limit)

    async def delete_tweet(self, tweet: TweetId, promise: Promise | None = None) -> Written:
        return await self._promised(promise, lambda sql: tweet_rows.delete(sql, tweet, counts=self._counts))

    async def walk_tweets(self, position: bytes, limit: int) -> tuple[Sequence[TweetRecord], bytes | None]:
        with self._database.reading() as sql:
            tweets = tweet_rows.walk(sql, position, limit)
        return tweets, tweets[-1].id if tweets else None

    async def set_fanout(self, author: UserId, old: FanoutState, new: FanoutState, at: int) -> bool:
        return await self._database.write(lambda sql: user_rows.set_fanout(sql, author, old, new, at))

    async def fanout_changes(self) -> Sequence[FanoutChange]:
        with self._database.reading() as sql:
            return user_rows.fanout_changes(sql)

    async def promises(self, before: int, after: bytes, limit: int) -> Sequence[Promise]:
        with self._database.reading() as sql:
            return promise_rows.oldest(sql, before, after, limit)

    async def fulfil(self, promises: Sequence[bytes]) -> None:
        await self._database.write(lambda sql: promise_rows.remove(sql, promises))

    async def note_counted(self, counted: Sequence[Promise]) -> None:
        await self._database.write(lambda sql: promise_rows.note_counted(sql, counted))

    async def counted(self, since: int, after: bytes, limit: int) -> Sequence[Promise]:
        with self._database.reading() as sql:
            return promise_rows.counted(sql, since, after, limit)

    async def told_run(self) -> ToldRun | None:
        with self._database.reading() as sql:
            return promise_rows.told_run(sql)

    async def note_told_run(self, told: ToldRun) -> None:
        await self._database.write(lambda sql: promise_rows.note_told_run(sql, told))

    async def epochs(self) -> Mapping[str, int]:
        with self._database.reading() as sql:
            return dict(sql.execute("SELECT server, number FROM epoch").fetchall())

    async def raise_epoch(self, server: str, at: int) -> int:
        def step(sql: sqlite3.Connection) -> int:
            raised = sql.execute(
                "INSERT INTO epoch VALUES (?, ?)"
                " ON CONFLICT (server) DO UPDATE SET number = max(number + 1, excluded.number) RETURNING number",
                (server, at),
            )
            number: int = raised.fetchone()[0]
            return number

        return await self._database.write(step)

    async def dump(self, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
        with self._database.reading() as sql:
            return copy_rows.dump(sql, part, position, limit)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Shown]:
        async with self._database.snapshot() as run:

            async def dump(part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
                return await run(lambda sql: copy_rows.dump(sql, part, position, limit))

            yield Shown(dump, is_moment=True)

    async def restore(self, copies: Sequence[Copy]) -> None:
        await self._database.write(lambda sql: copy_rows.restore(sql, copies))

    async def adopt_secret(self, secret: bytes) -> None:
        await self._database.write(lambda sql: copy_rows.adopt(sql, secret))

    async def latest(self) -> int:
        with self._database.reading() as sql:
            return tweet_rows.latest(sql)

    async def note_latest(self, at: int) -> None:
        await self._database.write(lambda sql: tweet_rows.note_latest(sql, at))

    async def unfinished(self) -> Unfinished | None:
        with self._database.reading() as sql:
            return copy_rows.unfinished(sql)

    async def note_unfinished(self, unfinished: Unfinished | None) -> None:
        await self._database.write(lambda sql: copy_rows.note_unfinished(sql, unfinished))

    async def secret(self) -> bytes:
        with self._database.reading() as sql:
            secret: bytes = sql.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0]
        return secret

    async def check(self) -> None:
        def probe(sql: sqlite3.Connection) -> None:
            sql.execute("INSERT OR REPLACE INTO meta VALUES ('probe', randomblob(8))")

        await self._database.write(probe, cached=False)

    async def tidy(self, now: int) -> None:
        for forget in (key_rows.forget, follow_rows.forget, promise_rows.forget_counted):
            step = partial(forget, now=now, limit=_TIDIED_AT_ONCE)
            while await self._database.write(step) == _TIDIED_AT_ONCE:
                pass  # in short steps: what people write goes between them

    async def close(self) -> None:
        """Nothing of its own to let go."""

    async def _promised(self, promise: Promise | None, run: Callable[[sqlite3.Connection], T]) -> T:
        """A write, and its promise in the same transaction."""

        def step(sql: sqlite3.Connection) -> T:
            promise_rows.add(sql, promise)
            return run(sql)

        return await self._database.write(step)
