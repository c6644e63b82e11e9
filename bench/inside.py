"""Rookery in this process, without HTTP: to set the scene through its own services, and to measure them alone."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

from bench.measuring import IN_FLIGHT, Cost
from rookery.config import Settings
from rookery.domain.ids import TweetId, UserId, format_id
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.services.callers import NOBODY, Caller
from rookery.services.tweets import Draft
from rookery.wiring import Rookery, Sharing, open_rookery

T = TypeVar("T")

ROOMY = 4 << 30
"""A cache that nothing falls out of: what is measured is how fast, not how much fits."""
_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Person:
    """A user and his token."""

    record: UserRecord
    token: str

    @property
    def id(self) -> UserId:
        return self.record.id

    @property
    def text_id(self) -> str:
        return format_id(self.record.id)


def texts(count: int) -> list[str]:
    """Bodies as long as many tweets are, each another."""
    return [f"Tweet {number}: the rooks came back to the elms this morning." for number in range(count)]


class Inside:
    """An open Rookery with its fan-out running, and an event loop as the server's to run things on."""

    def __init__(self, data: Path, *, cache_bytes: int = ROOMY, **settings: Any) -> None:
        self._settings = Settings(data=data, cache_bytes=cache_bytes, **settings)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self.rookery: Rookery = self.run(
            self._stack.enter_async_context(open_rookery(self._settings, Sharing.NO_SERVER))
        )
        self._fanout = self.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fanout.cancel()
        self.run(self._stack.aclose())
        self._runner.__exit__(kind, error, trace)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def people(self, prefix: str, count: int) -> list[Person]:
        """Registered users, each with a token."""
        return self.run(self._register([f"{prefix}{number}" for number in range(count)]))

    def follow(self, pairs: Iterable[tuple[Person, Person]]) -> None:
        """(follower, followee), written past the services' limits and checks, as an import does."""
        store, now = self.rookery.backends.store, self.rookery.backends.clock.now()
        ids = ((follower.id, followee.id) for follower, followee in pairs)
        for batch in _batches(ids):
            self.run(store.add_follows(batch, now))

    def tweets(self, authors: Sequence[Person], bodies: Sequence[str]) -> None:
        """A tweet by each author in turn, as an import writes them: nobody's timeline is told."""
        self._write(authors, bodies)

    def stored(self, author: Person, count: int) -> list[TweetId]:
        """Tweets that are in the store and on nobody's timeline yet."""
        records = self._write([author] * count, texts(count))
        return [record.id for record in records]

    async def deliver(self, author: Person, tweets: Iterable[TweetId]) -> None:
        """Bring stored tweets to their author's followers, one after another, each to the last of them."""
        fanout = self.rookery.fanout
        for tweet in tweets:
            await fanout.deliver(tweet, author.id, author.record.fanout)
            await fanout.drain()

    async def read_feeds(self, owners: Iterable[UserId]) -> None:
        """Read each owner's feed, which makes his timeline resident."""
        feeds = self.rookery.services.feeds
        for owner in owners:
            await feeds.home(owner, 10, None)

    async def post(self, author: Person, text: str, retweet: TweetId | None = None) -> bytes:
        tweets = self.rookery.services.tweets
        return await tweets.post(Caller(user=author.record), author.record, Draft("", text, retweet))

    async def post_all(self, posts: Iterable[tuple[Person, str]]) -> None:
        """Post tweets, 64 in flight, and return when all are answered and delivered."""
        rest = iter(posts)

        async def one_after_another() -> None:
            for author, text in rest:  # shared: whoever is free takes the next
                await self.post(author, text)

        await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
        await self.rookery.fanout.drain()

    def cost_of(self, work: Coroutine[Any, Any, object]) -> Cost:
        """What it takes on the loop, without the start and the end of the loop's own run."""
        return self.run(self._cost_of(work))

    def _write(self, authors: Sequence[Person], bodies: Sequence[str]) -> list[TweetRecord]:
        clock, store = self.rookery.backends.clock, self.rookery.backends.store
        records = [
            TweetRecord(clock.new_tweet_id(), author.id, "", body) for author, body in zip(authors, bodies, strict=True)
        ]
        for batch in _batches(records):
            self.run(store.add_tweets(batch))
        return records

    async def _start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(self.rookery.fanout.run())

    async def _register(self, names: Sequence[str]) -> list[Person]:
        accounts = self.rookery.services.accounts
        found: list[Person] = []
        for batch in _batches(iter(names), 500):
            made = await asyncio.gather(*(accounts.register(NOBODY, name, None) for name in batch))
            found += [
                Person(UserRecord(UserId(new.user_id.bytes), name, name), new.token or "")
                for name, new in zip(batch, made, strict=True)
            ]
        return found

    async def _cost_of(self, work: Coroutine[Any, Any, object]) -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        await work
        return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def _batches(items: Iterable[T], size: int = _BATCH) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
