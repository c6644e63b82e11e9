"""The ranking on Redis: ids, counts and parents, changed by a library of functions that lives in the server.

A chain lies in the shard of its root, all keys of which have one hash tag, so one function walks it. One Redis has one
shard; a cluster has 64, and the top list is merged from theirs.
"""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

from rookery.adapters.redis.calling import Library, Shard, all_of, open_shards, states_of, warn_of_loss
from rookery.adapters.redis.recounting import Recounting, Stale, unavailable
from rookery.adapters.redis.servers import Access
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tallies import Reading
from rookery.domain.tweets import Link
from rookery.ports.clock import Clock
from rookery.ports.ranking import Links, Place, Progress, Ranked, Recount

T = TypeVar("T")

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 1.0
"""How long a call may take. A chain of a thousand takes some milliseconds."""
_BATCH = 500
_LIBRARY = Library("ranking", 2, {"stale": Stale, "behind": unavailable}, unavailable)


class RedisRanking:
    """Implements `ports.ranking.Ranking`, on one Redis or a cluster.

    `prefix` keeps apart what several have on one server. With `vouched` reads need `vouch`; else any run answers them.
    """

    def __init__(
        self,
        access: Access,
        clock: Clock,
        *,
        timeout: float = TIMEOUT_SECONDS,
        prefix: str = "rookery",
        vouched: bool = False,
    ) -> None:
        self._client, self._shards = open_shards(access, clock, _LIBRARY, timeout=timeout, prefix=prefix)
        self._all = Shard(self._client, b"", clock, timeout, _LIBRARY)
        """Asked for what concerns all servers."""
        self._clock = clock
        self._run = b""
        self._needs_vouching = vouched
        self._vouched_run = b""
        self._vouched_failures = -1
        self._failures = 0

    def readings(self) -> Iterable[Reading]:
        """How many shards answer."""
        return states_of("ranking", self._shards)

    async def add(self, link: Link) -> bool:
        return await self._change("add", link)

    async def remove(self, link: Link) -> bool:
        return await self._change("remove", link)

    async def counts(self, tweets: Sequence[Place]) -> list[int]:
        run = self._required_run()
        wanted: dict[Shard, list[TweetId]] = defaultdict(list)
        for tweet, root in tweets:
            wanted[self._shard_of(root)].append(tweet)

        async def of(shard: Shard) -> dict[TweetId, Any]:
            found: list[Any] = []
            for start in range(0, len(wanted[shard]), _BATCH):
                found += await shard.call("counts", run, *wanted[shard][start : start + _BATCH])
            return dict(zip(wanted[shard], found, strict=True))

        counts: dict[TweetId, Any] = {}
        for some in await self._each(of, wanted):
            counts |= some
        return [int(counts[tweet] or 0) for tweet, _ in tweets]

    async def top(self, limit: int, after: Ranked | None = None) -> list[Ranked]:
        if limit <= 0:
            return []
        run = self._required_run()

        async def of(shard: Shard) -> list[Ranked]:
            if after is None:
                found = await shard.call("top", run, limit)
            else:
                found = await shard.call("top_behind", run, limit, after.count, after.tweet)
            return [Ranked(TweetId(found[at]), int(float(found[at + 1]))) for at in range(0, len(found), 2)]

        lists = await self._each(of, self._shards)
        return list(islice(merge(*lists, key=lambda item: (item.count, item.tweet), reverse=True), limit))

    async def hide(self, tweets: Sequence[Place]) -> None:
        wanted: dict[Shard, list[TweetId]] = defaultdict(list)
        for tweet, root in tweets:
            wanted[self._shard_of(root)].append(tweet)

        async def of(shard: Shard) -> None:
            for start in range(0, len(wanted[shard]), _BATCH):
                await shard.call("hide", *wanted[shard][start : start + _BATCH])

        await self._each(of, wanted)

    async def recount(self, links: Links, progress: Progress) -> Recount:
        while True:
            recounting = Recounting(self._shards, self._shard_of, self._clock, links, progress)
            run = await self.run()
            found = await recounting.build()
            if found is None:
                _log.warning("another recount began; this one begins again")
            elif await self.run() != run or not await recounting.swap() or await self.run() != run:
                await recounting.abandon()
                _log.warning("Redis began anew and may have forgotten something; the recount begins again")
            else:
                return found

    async def run(self) -> bytes:
        with self._noting_failures():
            found = await self._all.infos()
        run = " ".join(f"{info['run_id']} {info['master_replid']}" for info in found).encode()
        if run != self._run:
            warn_of_loss(found)
        self._run = run
        return run

    @property
    def failures(self) -> int:
        return self._failures

    @property
    def is_vouched(self) -> bool:
        return not self._needs_vouching or self._failures == self._vouched_failures

    def vouch(self, run: bytes, failures: int) -> None:
        self._vouched_run, self._vouched_failures = run, failures

    async def check(self) -> None:
        await self._each(lambda shard: shard.call("probe"), self._shards)

    async def close(self) -> None:
        for shard in (*self._shards, self._all):
            shard.close()
        await self._client.close()

    def _shard_of(self, root: TweetId) -> Shard:
        return self._shards[root[-1] % len(self._shards)]

    async def _change(self, function: str, link: Link) -> bool:
        parts = (link.id, link.parent or b"", link.initial, int(link.live))
        with self._noting_failures():
            return bool(await self._shard_of(link.root).call(function, *parts))

    def _required_run(self) -> bytes:
        """The run in which reads are answered, b"" for any.

        Raises:
            Unavailable: nobody vouched since a call failed.
        """
        if not self.is_vouched:
            raise unavailable()
        return self._vouched_run if self._needs_vouching else b""

    @contextmanager
    def _noting_failures(self) -> Iterator[None]:
        """Count the call as failed, if it does."""
        try:
            yield
        except Unavailable:
            self._failures += 1
            raise

    async def _each(self, ask: Callable[[Shard], Awaitable[T]], shards: Iterable[Shard]) -> list[T]:
        """What each shard answers, all asked side by side."""
        asked = list(shards)
        with self._noting_failures():
            if len(asked) == 1:
                return [await ask(asked[0])]
            if any(shard.is_refused for shard in asked):
                raise unavailable()
            return await all_of(ask(shard) for shard in asked)
