"""What a test of the store begins with. Ids are made in ascending order, whoever asks for one."""

import os
from collections.abc import AsyncIterator, Sequence
from itertools import count

import msgspec
import pytest

from rookery.domain import idempotency
from rookery.domain.idempotency import Once
from rookery.domain.ids import TweetId, UserId, id_at
from rookery.domain.promises import Promise
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials, Store, Written

NOON = 1_760_000_000_000
HOUR = 60 * 60 * 1000
DAY = 24 * HOUR
LATER = 4_000_000_000_000
"""After all that is done by the machine's own clock."""
MOST = 1_000
"""A bound on chains and followees that no test runs into by chance."""


def once(key: str = "key", request: str = "request", at: int = NOON) -> Once:
    return idempotency.once(b"somebody", key, request.encode(), at)


class Given:
    """Writes to a store what a test takes as given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._times = count(NOON)

    def id(self) -> bytes:
        return id_at(next(self._times), os.urandom(10))

    def unknown_user(self) -> UserId:
        return UserId(self.id())

    def unknown_tweet(self) -> TweetId:
        return TweetId(self.id())

    def person(self, name: str | None = None) -> UserRecord:
        """One who is not registered yet."""
        raw = self.id()
        return UserRecord(UserId(raw), name or f"u_{raw.hex()[:24]}", "Some One")

    def draft(
        self, author: UserRecord, retweet: TweetRecord | TweetId | None = None, body: str = "Hello"
    ) -> TweetRecord:
        """A tweet that is not posted yet."""
        parent = retweet.id if isinstance(retweet, TweetRecord) else retweet
        return TweetRecord(TweetId(self.id()), author.id, "A title", body, parent)

    async def user(
        self, name: str | None = None, *, token: bytes | None = None, password: str | None = None
    ) -> UserRecord:
        person = self.person(name)
        assert await self._store.add_user(person, Credentials(password, token)) == person.id
        return person

    async def users(self, many: int) -> list[UserRecord]:
        return [await self.user() for _ in range(many)]

    async def post(self, author: UserRecord, retweet: TweetRecord | None = None) -> TweetRecord:
        return (await self.written(author, retweet)).tweet

    async def written(self, author: UserRecord, retweet: TweetRecord | None = None) -> Written:
        return await self._store.add_tweet(self.draft(author, retweet), MOST)

    async def chain(self, author: UserRecord, length: int) -> list[TweetRecord]:
        """A tweet, a retweet of it, a retweet of that, and so on; the root first."""
        tweets = [await self.post(author)]
        while len(tweets) < length:
            tweets.append(await self.post(author, tweets[-1]))
        return tweets

    async def follow(self, follower: UserRecord, *followees: UserRecord) -> None:
        for followee in followees:
            assert await self._store.follow(follower.id, followee.id, NOON, MOST)


async def purge_steps(store: Store, user: UserRecord, limit: int) -> AsyncIterator[Sequence[Written]]:
    """Purge a deleted user to the end, step by step."""
    for _ in range(100):
        step = await store.purge_user(user.id, limit)
        if step is None:
            return
        yield step
    pytest.fail("the purge never ended")


async def purge(store: Store, user: UserRecord, limit: int = 10) -> None:
    """Take all rows of a deleted user away."""
    async for _ in purge_steps(store, user, limit):
        pass


async def sweep(store: Store) -> list[Promise]:
    """List what was promised, as every process does now and then: writes that stopped half way are finished by it."""
    return list(await store.promises(LATER, b"", 100))


def deleted(record: TweetRecord) -> TweetRecord:
    """What is left of a tweet when it was deleted."""
    return msgspec.structs.replace(record, title="", body="", deleted=True)
