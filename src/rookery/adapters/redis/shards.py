"""Where in Redis each thing of the store lies."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar
from zlib import crc32

from rookery.adapters.redis.calling import Shard, all_of
from rookery.domain.ids import TweetId, UserId
from rookery.domain.users import name_key

T = TypeVar("T", bound=bytes)

AT_ONCE = 500
"""Ids that one call is given."""


class Shards:
    """The shards of a store.

    A user lies in the shard of his id, with his tweets. On a cluster it is noted for each tweet which one that is, in
    the shard of the tweet's own id.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.all = shards

    @property
    def first(self) -> Shard:
        """Where all is that there is once."""
        return self.all[0]

    def of(self, key: bytes) -> Shard:
        """Where what has this id lies, a tweet excepted; and of a token or a promise what is kept by itself."""
        return self.all[key[-1] % len(self.all)]

    def of_name(self, name: str) -> Shard:
        """Where a handle is given."""
        return self.all[crc32(name_key(name).encode(errors="surrogatepass")) % len(self.all)]

    def of_key(self, key: bytes) -> Shard:
        """Where an idempotency key is noted."""
        return self.all[key[0] % len(self.all)]

    def grouped(self, keys: Iterable[T]) -> Mapping[Shard, Sequence[T]]:
        """Each once, by where they lie."""
        groups: defaultdict[Shard, list[T]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            groups[self.of(key)].append(key)
        return groups

    async def of_tweet(self, tweet: TweetId) -> Shard | None:
        """Where a tweet lies, if it may be anywhere."""
        return next(iter(await self.of_tweets([tweet])), None)

    async def of_tweets(self, tweets: Iterable[TweetId], *, search: bool = True) -> Mapping[Shard, Sequence[TweetId]]:
        """Each once, by where it lies; but for those that are nowhere.

        With `search` all shards are asked for those of which it is not noted.
        """
        if len(self.all) == 1:
            return {self.first: list(dict.fromkeys(tweets))}
        groups: defaultdict[Shard, list[TweetId]] = defaultdict(list)

        async def find(shard: Shard, some: Sequence[TweetId]) -> None:
            for tweet, home in zip(some, await shard.call("homes", *some), strict=True):
                if home is not None:
                    groups[self.all[int(home)]].append(tweet)
                else:
                    lost.append(tweet)

        lost: list[TweetId] = []
        await all_of(find(*batch) for batch in batches(self.grouped(tweets)))
        if lost and search:
            await all_of(self._search(shard, some, groups) for shard, some in batches(dict.fromkeys(self.all, lost)))
        return groups

    @staticmethod
    async def _search(shard: Shard, tweets: Sequence[TweetId], found: Mapping[Shard, list[TweetId]]) -> None:
        """Look for tweets where they may lie: of one of them a failover may have lost where."""
        values = await shard.call("tweets", *tweets)
        for tweet, value in zip(tweets, values, strict=True):
            if value is not None:
                found[shard].append(tweet)

    async def house(self, tweets: Sequence[tuple[TweetId, UserId]]) -> None:
        """Note where tweets are to lie: with their authors. A tweet that is there already stays where it is."""
        if len(self.all) == 1:
            return
        authors = dict(tweets)

        async def put(shard: Shard, home: Shard, some: Sequence[TweetId]) -> None:
            number = self.all.index(home)
            for tweet, there in zip(some, await shard.call_and_copy("house", number, *some), strict=True):
                if int(there) == number:
                    continue
                if (await self.all[int(there)].call("tweets", tweet))[0] is None:  # it was never written there
                    await shard.call_and_copy("rehouse", number, tweet, there)

        groups: defaultdict[tuple[Shard, Shard], list[TweetId]] = defaultdict(list)
        for tweet, author in authors.items():
            groups[self.of(tweet), self.of(author)].append(tweet)
        await all_of(put(shard, home, some) for (shard, home), some in groups.items())


def batches(groups: Mapping[Shard, Sequence[T]]) -> Iterable[tuple[Shard, Sequence[T]]]:
    """The same in parts that one call takes."""
    for shard, keys in groups.items():
        for start in range(0, len(keys), AT_ONCE):
            yield shard, keys[start : start + AT_ONCE]
