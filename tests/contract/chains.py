"""Chains of tweets as a store knows them, and the counts that every ranking of them must hold: the tests' model."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import count

import msgspec

from rookery.domain.ids import TweetId, id_at
from rookery.domain.tweets import Link, TweetRecord
from rookery.ports.ranking import Links, Ranked, Ranking, Recount
from tests.contract.given import NOON

Walk = Callable[[], AsyncIterator[Sequence[Link]]]


class Chains:
    """All links of a store. `expected` is the definition: initial + live tweets whose chain holds it."""

    def __init__(self) -> None:
        self._times = count(NOON)
        self.links: dict[TweetId, Link] = {}

    def add(self, parent: Link | None = None, *, initial: int = 0, live: bool = True) -> Link:
        """One more tweet in the store, newer than all before."""
        now = next(self._times)
        tweet = TweetId(id_at(now, now.to_bytes(10, "big")))  # each chain in another shard, where there are some
        root, depth = (parent.root, parent.depth + 1) if parent else (tweet, 0)
        self.links[tweet] = Link(tweet, parent.id if parent else None, root, depth, initial, live)
        return self.links[tweet]

    def chain(self, length: int) -> list[Link]:
        """A root and what hangs on it, one below the other."""
        links = [self.add()]
        while len(links) < length:
            links.append(self.add(links[-1]))
        return links

    def delete(self, link: Link) -> Link:
        """The store marks it deleted."""
        self.links[link.id] = msgspec.structs.replace(link, live=False)
        return self.links[link.id]

    def above(self, tweet: TweetId) -> Iterator[TweetId]:
        """The tweets above one in its chain, the nearest first."""
        parent = self.links[tweet].parent
        while parent is not None:
            yield parent
            parent = self.links[parent].parent

    def expected(self) -> dict[TweetId, int]:
        counts = {tweet: link.initial for tweet, link in self.links.items()}
        for tweet, link in self.links.items():
            if link.live:
                for above in self.above(tweet):
                    counts[above] += 1
        return counts

    def expected_top(self) -> list[Ranked]:
        counts = self.expected()
        live = [Ranked(tweet, counts[tweet]) for tweet, link in self.links.items() if link.live]
        return sorted(live, key=lambda ranked: (ranked.count, ranked.tweet), reverse=True)

    async def walk(self, size: int = 1_000) -> AsyncIterator[Sequence[Link]]:
        """As a recount reads them: in ascending order, each as it stands when it is read."""
        last = TweetId(b"")
        while some := [self.links[tweet] for tweet in sorted(self.links) if tweet > last][:size]:
            yield some
            last = some[-1].id

    async def tell(self, ranking: Ranking, link: Link) -> None:
        """Add a link, and first those above it that are missing, as callers do."""
        while not await ranking.add(link):
            assert link.parent is not None
            await self.tell(ranking, self.links[link.parent])

    async def untell(self, ranking: Ranking, link: Link) -> None:
        """Remove a link, and first add those above it that are missing, as callers do."""
        while not await ranking.remove(link):
            assert link.parent is not None
            await self.tell(ranking, self.links[link.parent])

    async def tell_all(self, ranking: Ranking) -> None:
        for link in self.links.values():
            await self.tell(ranking, link)


async def assert_agrees(ranking: Ranking, chains: Chains) -> None:
    """Counts and the whole top list are those of the model."""
    expected = chains.expected()
    counts = await counts_of(ranking, chains.links.values())
    assert dict(zip(expected, counts, strict=True)) == expected
    assert await ranking.top(len(expected) + 1) == chains.expected_top()


async def counts_of(ranking: Ranking, tweets: Iterable[Link | TweetRecord]) -> list[int]:
    """The counts of these, in this order."""
    return await ranking.counts([(tweet.id, tweet.root or tweet.id) for tweet in tweets])


async def whole_top(ranking: Ranking, limit: int) -> list[Ranked]:
    """The top list page by page."""
    found: list[Ranked] = []
    while page := await ranking.top(limit, found[-1] if found else None):
        assert len(page) <= limit
        assert not any(item in found for item in page), "what was on an earlier page comes again"
        found += page
    return found


class Read(Links):
    """The links of a store as a recount reads them, so many at a time. A test may walk otherwise."""

    def __init__(self, chains: Chains, size: int = 1_000, walk: Walk | None = None) -> None:
        self._chains = chains
        self._walk = walk or (lambda: chains.walk(size))

    def walk(self) -> AsyncIterator[Sequence[Link]]:
        return self._walk()

    async def of(self, tweets: Sequence[TweetId]) -> Sequence[Link]:
        return [self._chains.links[tweet] for tweet in tweets if tweet in self._chains.links]


async def recount(
    ranking: Ranking, chains: Chains, size: int = 1_000, walk: Walk | None = None
) -> tuple[Recount, list[int]]:
    """A recount's result, and the progress it told."""
    progress: list[int] = []
    return await ranking.recount(Read(chains, size, walk), progress.append), progress
