"""The top list, and keeping the counts behind it right."""

import asyncio
import builtins
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from rookery.domain.cursors import MAX_LIMIT
from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import tweet_of
from rookery.domain.tweets import Link, TweetRecord, link_of
from rookery.ports.ranking import Progress, Ranked, Ranking, Recount
from rookery.ports.store import Store
from rookery.services.showing import Showing

_WALK = 1_000
_SLICE = 100
"""Ranked tweets that are looked through before others have the event loop: about two milliseconds."""
_MOST_WRITING = 100
"""Tweets being written that one reading of the ranking makes up for."""


class Top:
    """Tweets by `count_retweet`."""

    def __init__(self, store: Store, ranking: Ranking, showing: Showing) -> None:
        self.store = store
        self.ranking = ranking
        self._showing = showing
        self._search: asyncio.Task[list[bytes]] | None = None
        """The search that goes on now."""
        self._next_search: asyncio.Task[list[bytes]] | None = None
        """The one behind it, for all who ask meanwhile."""

    async def list(self, limit: int) -> list[bytes]:
        """The JSON of the `Tweet`s that lead, ties newest first, with the counts by which they do.

        Raises:
            Unavailable: `ranking_unavailable`.
        """
        # Tweets that are being written are in the ranking, and not shown yet.
        ranked = await self.ranking.top(limit + min(self._showing.writing, _MOST_WRITING))
        records = await self.store.tweets([item.tweet for item in ranked])
        shown = await self._show(ranked, records)
        if len(shown) >= min(limit, len(ranked)):
            return shown[:limit]
        return (await self._searched())[:limit]

    async def hide(self, author: UserId) -> None:
        """Leave all tweets of a deleted user out of the list, a thousand at a time; they are removed later."""
        below: TweetId | None = None
        while True:
            entries = (await self.store.tails([(author, below)], _WALK))[0]
            records = await self.store.tweets([tweet_of(entry) for entry in entries])
            await self.ranking.hide([(record.id, record.root or record.id) for record in records.values()])
            if len(entries) < _WALK:
                return
            below = tweet_of(entries[-1])
            await asyncio.sleep(0)

    async def _show(self, ranked: Sequence[Ranked], records: Mapping[TweetId, TweetRecord]) -> builtins.list[bytes]:
        """Those of ranked tweets that are there."""
        counts = {item.tweet: item.count for item in ranked}
        shown = await self._showing.show_records(
            [records[item.tweet] for item in ranked if item.tweet in records], counts
        )
        return [item for item in shown if item is not None]

    async def _living(self, ranked: Sequence[Ranked]) -> Mapping[TweetId, TweetRecord]:
        """Those of ranked tweets whose author is there; it is cheaper to ask that first where most are not."""
        records = await self.store.tweets([item.tweet for item in ranked])
        alive = await self._showing.alive(list({record.author for record in records.values()}))
        return {tweet: record for tweet, record in records.items() if record.author in alive}

    async def _searched(self) -> builtins.list[bytes]:
        """The longest list, found by a search that began after the call. All who call meanwhile share the next one.

        Tweets of a deleted user are in the ranking until `hide` has passed: there may be any number of them. Each slice
        is of a moment of its own.
        """
        if self._next_search is None:
            self._next_search = asyncio.create_task(self._search_behind(self._search))
            self._next_search.add_done_callback(_look_at)
        return await asyncio.shield(self._next_search)

    async def _search_behind(self, before: "asyncio.Task[builtins.list[bytes]] | None") -> builtins.list[bytes]:
        if before is not None:
            await asyncio.wait([before])
        self._search, self._next_search = self._next_search, None
        shown: list[bytes] = []
        seen: set[TweetId] = set()
        after: Ranked | None = None
        while len(shown) < MAX_LIMIT:
            ranked = await self.ranking.top(_SLICE, after)
            new = [item for item in ranked if item.tweet not in seen]
            shown += await self._show(new, await self._living(new))
            if len(ranked) < _SLICE:
                break
            after = ranked[-1]
            seen.update(item.tweet for item in ranked)  # one may sink meanwhile
            await asyncio.sleep(0)
        return shown[:MAX_LIMIT]

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


def _look_at(search: asyncio.Task[list[bytes]]) -> None:
    """Take note of a failure, also where everyone who waited for the search has gone."""
    if not search.cancelled():
        search.exception()


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
