"""Turning ids into what people see (hydrating): fragments and authors from the cache, counts from the ranking."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import author_of, tweet_of
from rookery.domain.tweets import TweetRecord, complete, fragment_of
from rookery.ports.ranking import Place, Ranking
from rookery.ports.store import Store
from rookery.services.filling import AUTHOR, DAY_SECONDS, TWEET, Fill, Filler, Kind, Renew

_log = logging.getLogger(__name__)

_ALIVE = b"\x01"
WITHHELD_SECONDS = 1.0
"""How long a tweet is shown nowhere while it is written: less than clients wait before they ask another server."""
_ROOT = 16
"""Bytes of a cached tweet before its fragment."""


class Showing:
    """Shows tweets by their timeline entries, in one batch."""

    def __init__(self, store: Store, filler: Filler, ranking: Ranking) -> None:
        self._store = store
        self._filler = filler
        self._ranking = ranking
        self.tweets = Kind(TWEET, DAY_SECONDS, self._load_tweets)
        self.authors = Kind(AUTHOR, DAY_SECONDS, self._load_authors)
        self._withheld: dict[TweetId, float] = {}
        """Tweets whose posts are not answered yet, and until when they are shown nowhere, by the event loop's clock."""

    @contextmanager
    def withheld(self, tweet: TweetId) -> Iterator[None]:
        """Show a tweet nowhere until it is in its author's list and in feeds: from before its write to its answer.

        Else a client could see it in its author's list, and not in a feed that it reads after that. It is shown after a
        second at the latest: who did not wait for the answer may have been answered by another process since.
        """
        self._withheld[tweet] = _now() + WITHHELD_SECONDS
        try:
            yield
        finally:
            self.release(tweet)

    def release(self, tweet: TweetId) -> None:
        """Show a tweet from now on, if it was withheld: a repeated request for it is about to be answered."""
        self._withheld.pop(tweet, None)

    @property
    def writing(self) -> int:
        """How many tweets are withheld now."""
        return len(self._withheld)

    def is_withheld(self, tweet: TweetId) -> bool:
        """Whether this process is writing a tweet, so that nobody is shown it yet."""
        until = self._withheld.get(tweet)
        return until is not None and _now() < until

    async def show(self, entries: Sequence[bytes], counts: Mapping[TweetId, int] | None = None) -> list[bytes | None]:
        """The JSON of each entry's `Tweet`; None for one that is deleted or withheld, or whose author is deleted.

        The counts are those given, else the ranking is asked for them.
        """
        if not entries:
            return []
        ids = [tweet_of(item) for item in entries]
        withheld = {raw for raw in ids if self.is_withheld(raw)} if self._withheld else ()
        authors = list(dict.fromkeys(author_of(item) for item in entries))
        wanted = [(self.tweets, raw) for raw in ids] + [(self.authors, raw) for raw in authors]
        held = await self._filler.read(wanted)
        names = {
            author: value.body[1:].decode() if value and value.body else None
            for author, value in zip(authors, held[len(ids) :], strict=True)
        }
        alive = {
            at: (value.body, name)
            for at, (item, value) in enumerate(zip(entries, held, strict=False))
            if value and value.body and (name := names[author_of(item)]) is not None and ids[at] not in withheld
        }
        found = (
            await self._counts([(ids[at], _root_of(body)) for at, (body, _) in alive.items()])
            if counts is None
            else [counts[ids[at]] for at in alive]
        )
        shown: list[bytes | None] = [None] * len(entries)
        for (at, (body, name)), count in zip(alive.items(), found, strict=True):
            shown[at] = complete(body[_ROOT:], name, count)
        return shown

    async def show_records(
        self, records: Sequence[TweetRecord], counts: Mapping[TweetId, int] | None = None
    ) -> list[bytes | None]:
        """As `show`, for tweets that were read from the store already."""
        return await self.show([record.id + record.author for record in records], counts)

    async def show_new(self, record: TweetRecord, user_name: str) -> bytes:
        """The JSON of a tweet as its author is answered: with the count that it starts from."""
        return complete(fragment_of(record), user_name, record.initial)

    async def is_alive(self, user: UserId) -> bool:
        """Whether there is such a user."""
        return user in await self.alive([user])

    async def alive(self, users: Sequence[UserId]) -> set[UserId]:
        """Those of the users who are there."""
        held = await self._filler.read([(self.authors, user) for user in users])
        return {user for user, value in zip(users, held, strict=True) if value is not None and value.body}

    async def _counts(self, places: Sequence[Place]) -> Sequence[int | None]:
        try:
            return await self._ranking.counts(places) if places else []
        except Unavailable:
            _log.warning("counts are unavailable")
            return [None] * len(places)

    async def _load_tweets(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        """The root, which tells where the count is, and the fragment.

        An empty one says deleted, so that a deleted tweet in a timeline costs no more than another.
        """
        records = await self._store.tweets([TweetId(raw) for raw in ids])
        return {
            raw: Fill(b"" if record.deleted else (record.root or record.id) + fragment_of(record))
            for raw, record in records.items()
        }

    async def _load_authors(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        """A one and the handle, or nothing for a deleted user."""
        records = await self._store.users([UserId(raw) for raw in ids])
        return {raw: Fill(b"" if record.deleted else _ALIVE + record.name.encode()) for raw, record in records.items()}


def _root_of(held: bytes) -> TweetId:
    return TweetId(held[:_ROOT])


def _now() -> float:
    return asyncio.get_running_loop().time()
