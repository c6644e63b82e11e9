"""The ranking on one Redis: ids, counts and parents, changed by a library of functions that lives in the server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError, ResponseError

from rookery.domain.errors import Conflict, Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.clock import Clock
from rookery.ports.ranking import Links, Progress, Ranked, Recount

T = TypeVar("T")

_log = logging.getLogger(__name__)

VERSION = 5
"""Of the library, as in ranking.lua."""
_LIBRARY = files("rookery.adapters.redis").joinpath("ranking.lua").read_text()
BASE = b"{rookery:0}:"
"""What all keys begin with: the hash tag that keeps them on one server."""
TIMEOUT_SECONDS = 1.0
"""How long a call may take. A chain of a thousand takes some milliseconds."""
_CONNECTIONS = 64
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_BATCH = 500
_MOST_STEPS = 2_000
"""How far one call of a recount walks up: some milliseconds."""
_PATIENCE_SECONDS = 10
"""How long a recount that does nothing more is waited for by another."""
_AGAIN_SECONDS = 0.2
_FUNCTION_MISSING = "Function not found"


class RedisRanking:
    """Implements `ports.ranking.Ranking`."""

    def __init__(self, address: str, clock: Clock, *, timeout: float = TIMEOUT_SECONDS, base: bytes = BASE) -> None:
        host, _, port = address.rpartition(":")
        pool = BlockingConnectionPool(
            max_connections=_CONNECTIONS,
            timeout=timeout,
            host=host.strip("[]"),
            port=int(port),
            socket_timeout=None,  # a call has a bound of ours: the library's swallows cancelling
            socket_connect_timeout=timeout,
            retry_on_timeout=False,
            retry=None,
        )
        self._redis: Any = Redis(connection_pool=pool)
        self._clock = clock
        self._base = base
        self._timeout = timeout
        self._closed = False
        self._pause = 0.0
        self._retry_at = 0.0
        self._failures = 0
        self._loaded = False
        self._loading = asyncio.Lock()
        self._run = b""

    async def add(self, link: Link) -> bool:
        return await self._change("rookery_add", link)

    async def remove(self, link: Link) -> bool:
        return await self._change("rookery_remove", link)

    async def counts(self, tweets: Sequence[TweetId]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(tweets), _BATCH):
            some = tweets[start : start + _BATCH]
            found += [int(count or 0) for count in await self._call("rookery_counts", *some)]
        return found

    async def top(self, limit: int, after: Ranked | None = None) -> list[Ranked]:
        if limit <= 0:
            return []
        if after is None:
            found = await self._call("rookery_top", limit)
        else:
            found = await self._call("rookery_top_behind", limit, after.count, after.tweet)
        return [Ranked(TweetId(found[at]), int(float(found[at + 1]))) for at in range(0, len(found), 2)]

    async def recount(self, links: Links, progress: Progress) -> Recount:
        while True:
            try:
                found = await self._recount(links, progress)
            except ResponseError as error:
                if "STALE" not in str(error):
                    raise _unavailable(error) from error
                _log.warning("another recount began; this one begins again")
                continue
            if found:
                return found
            _log.warning("Redis began anew and may have forgotten something; the recount begins again")

    async def run(self) -> bytes:
        found = await self._try(self._redis.info)
        run = f"{found['run_id']} {found['master_replid']}".encode()
        if run != self._run and not found["aof_enabled"]:
            _log.warning("Redis has no append-only file (appendonly yes): what it counts ends with it")
        self._run = run
        return run

    async def check(self) -> None:
        await self._call("rookery_version")

    async def close(self) -> None:
        self._closed = True
        await self._redis.aclose(close_connection_pool=True)
        await self._redis.connection_pool.disconnect()

    # --- recounting --------------------------------------------------------------------------------------------------

    async def _recount(self, links: Links, progress: Progress) -> Recount | None:
        """None if Redis was not the same all the while."""
        run, tweets = await self.run(), 0
        generation = await self._begin()
        try:
            async for some in links.walk():
                await self._replay_with_chains(generation, some, links)
                tweets += len(some)
                progress(len(some))
            drifted = await self._drift(generation)
            if await self.run() != run:
                await self._call("rookery_abandon", generation)
                return None
            await self._call("rookery_swap", generation)
        except BaseException:
            with suppress(Unavailable, ResponseError):
                await self._call("rookery_abandon", generation)
            raise
        return Recount(tweets, len(drifted)) if await self.run() == run else None

    async def _replay_with_chains(self, generation: int, some: Sequence[Link], links: Links) -> None:
        """Add links, and before those whose parent is missing yet what the store has above them.

        A walk may give a tweet before the one above it, and pass by where that one is put meanwhile.
        """
        levels = [some]
        while levels:
            missing = await self._replay(generation, levels.pop())
            if missing:
                parents = list({link.parent: None for link in missing if link.parent})
                above = await links.of(parents)
                if len(above) < len(parents):
                    raise Conflict("inconsistent", "The store has retweets of tweets that it does not have.")
                levels += [missing, above]

    async def _begin(self) -> int:
        while True:
            generation: int = await self._call("rookery_begin", _PATIENCE_SECONDS)
            if generation:
                return generation
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _replay(self, generation: int, links: Sequence[Link]) -> list[Link]:
        """Add links to a generation; those whose parent is missing there."""
        missing: list[Link] = []
        for some in _in_batches(links):
            parts = [part for link in some for part in (link.id, link.parent or b"", link.initial, int(link.live))]
            places = await self._call("rookery_replay", generation, *parts)
            missing += [some[int(at)] for at in places]
        return missing

    async def _drift(self, generation: int) -> set[bytes]:
        """The tweets that differ between what is read and what was built. Changes meanwhile go to both."""
        differ: set[bytes] = set()
        read = int(await self._try(partial(self._redis.hget, self._base + b"meta", "gen")) or 0)
        for one in (read, generation):
            async for some in self._ids(one):
                await self._replay(generation, [])  # so that nobody takes us for dead
                differ.update(await self._call("rookery_compare", generation, *some))
        return differ

    async def _ids(self, generation: int) -> AsyncIterator[list[bytes]]:
        """All ids of a generation, some of them twice."""
        cursor = 0
        while True:
            key = self._base + b"%d:l" % generation
            cursor, rows = await self._try(partial(self._redis.hscan, key, cursor, count=_BATCH))
            ids = list(rows)
            for start in range(0, len(ids), _BATCH):
                yield ids[start : start + _BATCH]
            if not cursor:
                return

    # --- calling -----------------------------------------------------------------------------------------------------

    async def _change(self, function: str, link: Link) -> bool:
        parts = (link.id, link.parent or b"", link.initial, int(link.live))
        return bool(await self._call(function, *parts))

    async def _call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the library, which is put there first where it is missing."""

        async def call() -> Any:
            if not self._loaded:
                await self._load()
            return await self._redis.fcall(function, 1, self._base, *arguments)

        try:
            return await self._try(call)
        except ResponseError as error:
            if _FUNCTION_MISSING not in str(error):
                raise
        self._loaded = False  # the server was emptied
        return await self._try(call)

    async def _load(self) -> None:
        failures = self._failures
        async with self._loading:
            if self._loaded:
                return
            if self._failures != failures:
                raise _unavailable(None)  # whoever had the lock before found that it does not answer
            try:
                there = int(await self._redis.fcall("rookery_version", 0))
            except ResponseError:
                there = 0
            if there > VERSION:
                _log.error("Redis has functions of version %d, we know %d: use a newer Rookery", there, VERSION)
                raise _unavailable(None)
            if there < VERSION:
                await self._redis.function_load(_LIBRARY, replace=True)
            self._loaded = True

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, unless Redis did not answer a moment ago.

        Raises:
            Unavailable: `ranking_unavailable`.
            ResponseError: what Redis refused.
        """
        now = self._clock.monotonic()
        if self._closed or now < self._retry_at:
            raise _unavailable(None)
        if self._pause:
            self._retry_at = now + self._pause  # one asks whether it is back, and the others don't wait for him
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask()
        except ResponseError as error:
            if _FUNCTION_MISSING in str(error) or "STALE" in str(error):
                self._pause = self._retry_at = 0.0  # it answers
                raise
            raise self._failed(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        self._pause = self._retry_at = 0.0
        return answer

    def _failed(self, error: Exception) -> Unavailable:
        self._failures += 1
        if not self._pause:
            _log.warning("the ranking does not answer: %s", str(error) or "not in time")
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._retry_at = self._clock.monotonic() + self._pause
        return _unavailable(error)


def _in_batches(links: Sequence[Link]) -> Iterator[Sequence[Link]]:
    """At least one, which may be empty. A call walks the chain of each of its links, and holds up Redis meanwhile."""
    start = steps = 0
    for at, link in enumerate(links):
        steps += 1 + link.depth
        if at > start and (steps > _MOST_STEPS or at - start == _BATCH):
            yield links[start:at]
            start, steps = at, 1 + link.depth
    yield links[start:]


def _unavailable(error: Exception | None) -> Unavailable:
    made = Unavailable("ranking_unavailable", "The ranking can't be read or written now.")
    made.__cause__ = error
    return made
