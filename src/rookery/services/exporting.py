"""All that belongs to one person: what he wrote, whom he follows and who follows him."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from rookery.domain.ids import UserId
from rookery.domain.tweets import Tweet
from rookery.domain.users import UserRecord
from rookery.ports.store import Store
from rookery.services.tweets import Tweets

_PAGE = 500

_decode: Callable[[bytes], Tweet] = msgspec.json.Decoder(Tweet).decode


@dataclass(frozen=True, slots=True)
class Exporting:
    """Reads it page by page, as long as it may be."""

    store: Store
    tweets: Tweets

    async def written_by(self, user: UserRecord) -> AsyncIterator[Tweet]:
        """His tweets, newest first."""
        cursor: str | None = None
        while True:
            page = await self.tweets.by_author(user, _PAGE, cursor)
            for item in page.items:
                yield _decode(item)
            cursor = page.next
            if cursor is None:
                return

    async def followees(self, user: UserRecord) -> AsyncIterator[str]:
        """The handles of those whom he follows."""
        async for name in self._names(user.id, self.store.followees):
            yield name

    async def followers(self, user: UserRecord) -> AsyncIterator[str]:
        """The handles of those who follow him."""
        async for name in self._names(user.id, self.store.followers):
            yield name

    async def _names(
        self, user: UserId, read: Callable[[UserId, UserId | None, int], Awaitable[Sequence[UserId]]]
    ) -> AsyncIterator[str]:
        below: UserId | None = None
        while page := await read(user, below, _PAGE):
            known = await self.store.users(page)
            for one in page:
                if one in known and not known[one].deleted:
                    yield known[one].name
            below = page[-1]
