"""Turning ids into what people see (hydrating): fragments and authors from the cache, counts from the ranking."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import author_of, tweet_of
from rookery.domain.tweets import TweetRecord, complete, fragment_of
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services.filling import AUTHOR, DAY_SECONDS, TWEET, Fill, Filler, Kind, Renew

_log = logging.getLogger(__name__)

_ALIVE = b"\x01"


class Showing:
    """Shows tweets by their timeline entries, in one batch."""

    def __init__(self, store: Store, filler: Filler, ranking: Ranking) -> None:
        self._store = store
        self._filler = filler
        self._ranking = ranking
        self.tweets = Kind(TWEET, DAY_SECONDS, self._load_tweets)
        self.authors = Kind(AUTHOR, DAY_SECONDS, self._load_authors)

    async def show(self, entries: Sequence[bytes]) -> list[bytes | None]:
        """The JSON of each entry's `Tweet`; None for one that is deleted, or whose author is."""
        if not entries:
            return []
        ids = [tweet_of(item) for item in entries]
        authors = list(dict.fromkeys(author_of(item) for item in entries))
        wanted = [(self.tweets, raw) for raw in ids] + [(self.authors, raw) for raw in authors]
        held, counts = await asyncio.gather(self._filler.read(wanted), self._counts(ids))
        names = {
            author: value.body[1:].decode() if value and value.body else None
            for author, value in zip(authors, held[len(ids) :], strict=True)
        }
        shown: list[bytes | None] = []
        for item, fragment, count in zip(entries, held, counts, strict=False):
            name = names[author_of(item)]
            alive = name is not None and fragment is not None and fragment.body
            shown.append(complete(fragment.body, name, count) if alive and fragment and name else None)
        return shown

    async def show_records(self, records: Sequence[TweetRecord]) -> list[bytes | None]:
        """As `show`, for tweets that were read from the store already."""
        return await self.show([record.id + record.author for record in records])

    async def show_new(self, record: TweetRecord, user_name: str) -> bytes:
        """The JSON of a tweet as its author is answered: with the count that it starts from."""
        return complete(fragment_of(record), user_name, record.initial)

    async def is_alive(self, user: UserId) -> bool:
        """Whether there is such a user."""
        held = (await self._filler.read([(self.authors, user)]))[0]
        return held is not None and bool(held.body)

    async def _counts(self, ids: Sequence[TweetId]) -> Sequence[int | None]:
        try:
            return await self._ranking.counts(ids)
        except Unavailable:
            _log.warning("counts are unavailable")
            return [None] * len(ids)

    async def _load_tweets(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        """Fragments; an empty one says deleted, so that a deleted tweet in a timeline costs no more than another."""
        records = await self._store.tweets([TweetId(raw) for raw in ids])
        return {raw: Fill(b"" if record.deleted else fragment_of(record)) for raw, record in records.items()}

    async def _load_authors(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        """A one and the handle, or nothing for a deleted user."""
        records = await self._store.users([UserId(raw) for raw in ids])
        return {raw: Fill(b"" if record.deleted else _ALIVE + record.name.encode()) for raw, record in records.items()}
