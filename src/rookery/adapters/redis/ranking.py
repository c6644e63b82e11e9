"""The ranking on Redis: ids, counts and parents, changed by a library of functions that lives in the server.

A chain lies in the shard of its root, all keys of which have one hash tag, so one function walks it. One Redis has one
shard; a cluster has 64, and the top list is merged from theirs.
"""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from heapq import merge
from itertools import islice
from typing import Any, TypeVar

from rookery.adapters.redis.calling import Library, Shard, all_of, open_shards, states_of, warn_of_loss
from rookery.adapters.redis.recounting import Recounting, Stale, unavailable
from rookery.adapters.redis.servers import Access
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
_LIBRARY = Library("ranking", 1, {"stale": Stale}, unavailable)


class RedisRanking:
    """Implements `ports.ranking.Ranking`, on one Redis or a cluster.

    `prefix` keeps apart what several have on one server.
    """

    def __init__(
        self, access: Access, clock: Clock, *, timeout: float = TIMEOUT_SECONDS, prefix: str = "rookery"
    ) -> None:
        self._client, self._shards = open_shards(access, clock, _LIBRARY, timeout=timeout, prefix=prefix)
        self._all = Shard(self._client, b"", clock, timeout, _LIBRARY)
        """Asked for what concerns all servers."""
        self._clock = clock
        self._run = b""

    def readings(self) -> Iterable[Reading]:
        """How many shards answer."""
        return states_of("ranking", self._shards)

    async def add(self, link: Link) -> bool:
        return await self._change("add", link)

    async def remove(self, link: Link) -> bool:
        return await self._change("remove", link)

    async def counts(self, tweets: Sequence[Place]) -> list[int]:
        wanted: dict[Shard, list[TweetId]] = defaultdict(list)
        for tweet, root in tweets:
            wanted[self._shard_of(root)].append(tweet)

        async def of(shard: Shard) -> dict[TweetId, Any]:
            found: list[Any] = []
            for start in range(0, len(wanted[shard]), _BATCH):
                found += await shard.call("counts", *wanted[shard][start : start + _BATCH])
            return dict(zip(wanted[shard], found, strict=True))

        counts: dict[TweetId, Any] = {}
        for some in await self._each(of, wanted):
            counts |= some
        return [int(counts[tweet] or 0) for tweet, _ in tweets]

    async def top(self, limit: int, after: Ranked | None = None) -> list[Ranked]:
        if limit <= 0:
            return []

        async def of(shard: Shard) -> list[Ranked]:
            if after is None:
                found = await shard.call("top", limit)
            else:
                found = await shard.call("top_behind", limit, after.count, after.tweet)
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
        found = await self._all.infos()
        run = " ".join(f"{info['run_id']} {info['master_replid']}" for info in found).encode()
        if run != self._run:
            warn_of_loss(found)
        self._run = run
        return run

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
        return bool(await self._shard_of(link.root).call(function, *parts))

    async def _each(self, ask: Callable[[Shard], Awaitable[T]], shards: Iterable[Shard]) -> list[T]:
        """What each shard answers, all asked side by side."""
        asked = list(shards)
        if len(asked) == 1:
            return [await ask(asked[0])]
        if any(shard.is_refused for shard in asked):
            raise unavailable()
        return await all_of(ask(shard) for shard in asked)
