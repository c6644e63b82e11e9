"""The top list, and keeping the counts behind it right."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link, TweetRecord, link_of
from rookery.ports.ranking import Progress, Ranked, Ranking, Recount
from rookery.ports.store import Store
from rookery.services.showing import Showing

_WALK = 1_000
_MOST_REFILL = 400
"""Where some authors are deleted more may be, so the list is filled up with twice as many each time, up to this."""


@dataclass(frozen=True, slots=True)
class Top:
    """Tweets by `count_retweet`."""

    store: Store
    ranking: Ranking
    showing: Showing

    async def list(self, limit: int) -> list[bytes]:
        """The JSON of the `Tweet`s that lead, ties newest first.

        Raises:
            Unavailable: `ranking_unavailable`.
        """
        shown: list[bytes] = []
        after: Ranked | None = None
        asked = limit
        while len(shown) < limit:
            ranked = await self.ranking.top(asked, after)
            records = await self.store.tweets([item.tweet for item in ranked])
            found = await self.showing.show_records([records[item.tweet] for item in ranked if item.tweet in records])
            shown += [item for item in found if item is not None]  # else he who wrote it is deleted: read on
            if len(ranked) < asked:
                break
            after, asked = ranked[-1], min(2 * asked, _MOST_REFILL)
        return shown[:limit]

    async def count(self, tweet: TweetRecord) -> None:
        """Tell the ranking of a tweet, and first of those above it that it does not know."""
        await self._tell(link_of(tweet))

    async def uncount(self, tweet: TweetRecord) -> None:
        """Tell the ranking that a tweet was deleted."""
        link = link_of(tweet)
        while not await self.ranking.remove(link):
            await self._tell_above(link)

    async def recount(self, progress: Progress) -> Recount:
        """Make every count right by what the store holds."""
        return await self.ranking.recount(_Links(self.store), progress)

    async def _tell(self, link: Link) -> None:
        while not await self.ranking.add(link):
            await self._tell_above(link)

    async def _tell_above(self, link: Link) -> None:
        """Add the missing part of a chain from its upper end. No recursion: a chain may be a thousand long."""
        missing = [link]
        while missing[-1].parent is not None:
            parent = (await self.store.tweets([missing[-1].parent]))[missing[-1].parent]
            missing.append(link_of(parent))
            if await self.ranking.add(missing[-1]):
                break
        for above in reversed(missing[1:]):
            await self.ranking.add(above)


@dataclass(frozen=True, slots=True)
class _Links:
    """Implements `ports.ranking.Links` on the store."""

    store: Store

    async def walk(self) -> AsyncIterator[Sequence[Link]]:
        position: bytes | None = b""
        while position is not None:
            records, position = await self.store.walk_tweets(position, _WALK)
            yield [link_of(record) for record in records]

    async def of(self, tweets: Sequence[TweetId]) -> Sequence[Link]:
        return [link_of(record) for record in (await self.store.tweets(tweets)).values()]
