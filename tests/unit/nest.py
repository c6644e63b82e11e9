"""A Rookery on a real file whose store and cache can be made to fail, and whose clock a test moves."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, cast

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import SqliteRanking, SqliteStore
from rookery.config import Settings
from rookery.domain.errors import Unavailable
from rookery.domain.users import UserRecord
from rookery.ports.cache import Cache
from rookery.ports.store import Store
from rookery.services.callers import ANYONE
from rookery.services.tweets import Draft
from rookery.wiring import Backends, Rookery, join
from tests.clocks import HandClock
from tests.interleaving import InlineDatabase


class Faulty:
    """Stands before a store or cache: counts its calls, holds some up at a gate, and fails some."""

    def __init__(self, inner: object) -> None:
        self.calls: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.faults: dict[str, list[Exception]] = {}
        self.refuses: Callable[[str, tuple[object, ...]], bool] = lambda name, arguments: False
        """Whether the store is away for a call with these arguments."""
        self.turns = 1
        """For how many turns of the event loop a call takes."""
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        async def call(*args: object, **kwargs: object) -> object:
            self.calls[name] += 1
            if gate := self.gates.get(name):
                await gate.wait()
            if faults := self.faults.get(name):
                raise faults.pop()
            for _ in range(self.turns):
                await asyncio.sleep(0)
            if self.refuses(name, args):
                raise Unavailable("store_unavailable", "This part of it is away.")
            return await getattr(self._inner, name)(*args, **kwargs)

        return call


class Nest:
    """A Rookery whose store and cache can be made to fail."""

    def __init__(self, rookery: Rookery, store: Faulty, cache: Faulty, clock: HandClock) -> None:
        self.rookery = rookery
        self.worker = asyncio.create_task(rookery.fanout.run())
        self.store = store
        self.cache = cache
        self.clock = clock

    async def user(self, name: str, *following: str) -> UserRecord:
        accounts, follows = self.rookery.services.accounts, self.rookery.services.follows
        await accounts.register(ANYONE, name, None)
        made = await accounts.find_name(name)
        for followee in following:
            await follows.follow(ANYONE, made, await accounts.find_name(followee), None)
        return made

    async def readers(self, many: int, *following: str) -> list[UserRecord]:
        """Some who follow these, and have read their feeds."""
        made = [await self.user(f"bob{number}", *following) for number in range(many)]
        for reader in made:
            assert await self.feed(reader) == []
        return made

    async def post(self, author: UserRecord, body: str) -> None:
        """As a request does: with the author as the store has them now."""
        known = await self.rookery.services.accounts.find_name(author.name)
        await self.rookery.services.tweets.post(ANYONE, known, Draft("", body))

    async def feed(self, user: UserRecord) -> list[str]:
        page = await self.rookery.services.feeds.home(user.id, 10, None)
        return [item.split(b'"body":"')[1].split(b'"')[0].decode() for item in page.items]


@asynccontextmanager
async def nest_on(database: InlineDatabase, pull_threshold: int | Literal["off"] = "off") -> AsyncIterator[Nest]:
    clock = HandClock()
    store, cache = Faulty(SqliteStore(database, counts=True)), Faulty(MemoryCache(1 << 20, clock.monotonic))
    backends = Backends(cast("Store", store), cast("Cache", cache), SqliteRanking(database), clock)
    hasher = Argon2Hasher()
    rookery = join(Settings(data=Path(), auth="open", pull_threshold=pull_threshold), backends, hasher)
    nest = Nest(rookery, store, cache, clock)
    try:
        yield nest
    finally:
        nest.worker.cancel()
        await asyncio.gather(nest.worker, return_exceptions=True)
        hasher.close()
