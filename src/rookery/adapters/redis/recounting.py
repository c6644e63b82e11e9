"""A recount: in each shard a generation is built from the store's links beside the one that is read, and swapped in."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress

from rookery.adapters.redis.calling import Shard, all_of
from rookery.domain.errors import Conflict, Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.clock import Clock
from rookery.ports.ranking import Links, Progress, Recount

_BATCH = 500
_MOST_STEPS = 2_000
"""How far one call walks up: some milliseconds."""
_PATIENCE_SECONDS = 10
"""How long one that does nothing more is waited for by another."""
_TOUCH_SECONDS = 2
"""How often one says that it is alive."""
_AGAIN_SECONDS = 0.2


class Stale(Exception):
    """Another recount began after this one."""


class Recounting:
    """One recount. Whoever began another since makes it fail: the later one goes on."""

    def __init__(
        self,
        shards: Sequence[Shard],
        shard_of: Callable[[TweetId], Shard],
        clock: Clock,
        links: Links,
        progress: Progress,
    ) -> None:
        self._shards = shards
        self._shard_of = shard_of
        self._clock = clock
        self._links = links
        self._progress = progress
        self._generations: dict[Shard, int] = {}
        self._touched = float("-inf")

    async def build(self) -> Recount | None:
        """Build the generations, and compare them with those that are read; None if another began."""
        tweets = 0
        try:
            await self._begin()
            async for some in self._links.walk():
                await self._replay_with_chains(some)
                tweets += len(some)
                self._progress(len(some))
            drifted = await self._drift()
        except Stale:
            await self.abandon()
            return None
        except BaseException:
            await self.abandon()
            raise
        return Recount(tweets, len(drifted))

    async def swap(self) -> bool:
        """Have them read from now on, one shard after the other; False if another began."""
        try:
            for shard, generation in self._generations.items():
                await shard.call("swap", generation)
        except Stale:
            return False
        return True

    async def abandon(self) -> None:
        """Take away what was built and is not read."""
        for shard, generation in self._generations.items():
            with suppress(Unavailable, Stale):
                await shard.call("abandon", generation)

    async def _begin(self) -> None:
        """In the shards' order, so that of two recounts one comes first in all of them."""
        for shard in self._shards:
            while not (generation := await shard.call("begin", _PATIENCE_SECONDS)):
                await self._touch()
                await asyncio.sleep(_AGAIN_SECONDS)
            self._generations[shard] = generation

    async def _touch(self) -> None:
        """Say that this one is alive, now and then."""
        now = self._clock.monotonic()
        if now - self._touched >= _TOUCH_SECONDS:
            self._touched = now
            await all_of(shard.call("replay", number) for shard, number in self._generations.items())

    async def _replay_with_chains(self, some: Sequence[Link]) -> None:
        """Add links, and before those whose parent is missing yet what the store has above them.

        A walk may give a tweet before the one above it, and pass by where that one is put meanwhile.
        """
        levels = [some]
        while levels:
            missing = await self._replay(levels.pop())
            if missing:
                parents = list({link.parent: None for link in missing if link.parent})
                above = await self._links.of(parents)
                if len(above) < len(parents):
                    raise Conflict("inconsistent", "The store has retweets of tweets that it does not have.")
                levels += [missing, above]

    async def _replay(self, links: Sequence[Link]) -> list[Link]:
        """Add links; those whose parent is missing."""
        await self._touch()
        parts: dict[Shard, list[Link]] = defaultdict(list)
        for link in links:
            parts[self._shard_of(link.root)].append(link)
        found = await all_of(self._replay_in(shard, part) for shard, part in parts.items())
        return [link for missing in found for link in missing]

    async def _replay_in(self, shard: Shard, links: Sequence[Link]) -> list[Link]:
        missing: list[Link] = []
        for some in _in_batches(links):
            rows = [part for link in some for part in (link.id, link.parent or b"", link.initial, int(link.live))]
            places = await shard.call("replay", self._generations[shard], *rows)
            missing += [some[int(at)] for at in places]
        return missing

    async def _drift(self) -> set[bytes]:
        """The tweets that differ between what is read and what was built. Changes meanwhile go to both."""
        differ: set[bytes] = set()
        for shard, built in self._generations.items():
            read = int(await shard.field(b"meta", "gen") or 0)
            for one in (read, built):
                async for some in _ids(shard, one):
                    await self._touch()
                    differ.update(await shard.call("compare", built, *some))
        return differ


async def _ids(shard: Shard, generation: int) -> AsyncIterator[list[bytes]]:
    """All ids of a generation, some of them twice."""
    cursor = 0
    while True:
        cursor, ids = await shard.scan(b"%d:l" % generation, cursor, _BATCH)
        for start in range(0, len(ids), _BATCH):  # it may give far more than it was asked for
            yield ids[start : start + _BATCH]
        if not cursor:
            return


def _in_batches(links: Sequence[Link]) -> Iterator[Sequence[Link]]:
    """A call walks the chain of each of its links, and holds up Redis meanwhile."""
    start = steps = 0
    for at, link in enumerate(links):
        steps += 1 + link.depth
        if at > start and (steps > _MOST_STEPS or at - start == _BATCH):
            yield links[start:at]
            start, steps = at, 1 + link.depth
    yield links[start:]


def unavailable() -> Unavailable:
    """What is told when Redis can't do it now."""
    return Unavailable("ranking_unavailable", "The ranking can't be read or written now.")
