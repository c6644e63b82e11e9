"""The feed: the newest tweets of all whom one follows, merged from timelines, tails and, below those, the store."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rookery.domain.cursors import Page, read_cursor, write_cursor
from rookery.domain.errors import unknown_user
from rookery.domain.ids import ZERO, TweetId, UserId
from rookery.domain.timeline import (
    FILL,
    Held,
    Source,
    descending,
    newest,
    source_of,
    source_of_chunk,
    tweet_of,
    unpack_ids,
)
from rookery.domain.timeline import (
    TAIL as TAIL_LENGTH,
)
from rookery.domain.users import FanoutState
from rookery.ports.clock import Clock
from rookery.ports.store import Store
from rookery.services.filling import (
    DAY_SECONDS,
    EXCEPTIONS,
    HOUR_SECONDS,
    RELATION,
    TAIL,
    TIMELINE,
    Fill,
    Filler,
    Kind,
    Renew,
)
from rookery.services.showing import Showing

CURSOR = "f"
REMEMBERED_MILLIS = (DAY_SECONDS + 2 * HOUR_SECONDS) * 1000
"""How long a reader knows whom he unfollowed: longer than a timeline lives that a late fan-out wrote into."""
_SLICE = 100
"""Authors read before a long pull lets others have the event loop: about a millisecond on SQLite."""
_RELATION_PAGE = 1_000
_MOST_REFILL = 400
"""Where some were deleted more may be, so a page is filled up with twice as many entries each time, up to this."""


@dataclass(frozen=True, slots=True)
class _Exceptions:
    """What a warm read must know beside the timeline."""

    pulled: Sequence[UserId]
    unfollowed: Sequence[UserId]


class Feeds:
    """Reads feeds."""

    def __init__(self, store: Store, filler: Filler, showing: Showing, clock: Clock) -> None:
        self._store = store
        self._filler = filler
        self._showing = showing
        self._clock = clock
        self._timelines = Kind(TIMELINE, DAY_SECONDS, self._load_timelines)
        self._tails = Kind(TAIL, DAY_SECONDS, self._load_tails)
        self._relations = Kind(RELATION, DAY_SECONDS, self._load_relations)
        self._exceptions = Kind(EXCEPTIONS, HOUR_SECONDS, self._load_exceptions)

    async def home(self, owner: UserId, limit: int, cursor: str | None) -> Page[bytes]:
        """A page of the JSON of `Tweet`s by all whom the owner follows, newest first. It is full while there are more.

        Raises:
            NotFound: `unknown_user`.
            Malformed: `malformed_cursor`.
        """
        below = TweetId(read_cursor(CURSOR, cursor)) if cursor is not None else None
        items: list[bytes] = []
        want = limit
        while True:
            entries = await self._newest_entries(owner, below, want + 1)
            for item, shown in zip(entries[:want], await self._showing.show(entries[:want]), strict=True):
                if shown is not None and len(items) == limit:
                    break  # read over: it is the next page's
                below = tweet_of(item)
                if shown is not None:
                    items.append(shown)
            else:
                if len(entries) <= want:
                    return Page(items)
            if below is not None and len(items) == limit:
                return Page(items, write_cursor(CURSOR, below))
            want = max(limit - len(items), min(2 * want, _MOST_REFILL))  # some were deleted: fill the page from below

    async def _newest_entries(self, owner: UserId, below: TweetId | None, want: int) -> Sequence[bytes]:
        """The newest `want` entries of the feed below an id; fewer only at its end.

        One's own tweets are not in one's timeline: a chatty owner would push the others' out of it. A page that shows
        both merges his tail, as it does a celebrity's.
        """
        timeline, exceptions, alive = await self._filler.read(
            [(self._timelines, owner), (self._exceptions, owner), (self._showing.authors, owner)]
        )
        if alive is None or not alive.body or timeline is None or exceptions is None:
            raise unknown_user()
        await self._filler.tidy(self._timelines, owner, timeline)
        known = _read_exceptions(exceptions)
        hidden = frozenset(known.unfollowed)
        sources = [source_of(timeline, below, want, hidden)]
        pulled = [author for author in known.pulled if author not in hidden]
        sources += [source_of(held, below, want) for held in await self._tails_of(pulled)]
        while True:
            entries, short = newest(sources, want)
            if not short:
                return entries
            if short[0] == 0:
                return await self._pull(await self._followees(owner), below, want)
            for at in short:  # a celebrity's tail is used up: go on with him from the store
                sources[at] = await self._read_on(pulled[at - 1], sources[at], below, want)

    async def _read_on(self, author: UserId, source: Source, below: TweetId | None, want: int) -> Source:
        start = source.floor if below is None else min(source.floor, below)
        chunk = (await self._store.tails([(author, TweetId(start))], want))[0]
        more = source_of_chunk(chunk, want)
        return Source([*source.entries, *more.entries], more.floor)

    async def _pull(
        self, authors: Sequence[UserId], below: TweetId | None, want: int, renew: Renew | None = None
    ) -> Sequence[bytes]:
        """The newest `want` entries of many authors below an id: heads of all, then only who can still matter."""
        best: list[bytes] = []
        floors: dict[UserId, TweetId] = {}
        chunk = min(want, TAIL_LENGTH)
        left: list[UserId] = list(authors)
        while left:
            for start in range(0, len(left), _SLICE):
                some = left[start : start + _SLICE]
                sources = await self._heads(some, below, floors, chunk)
                best, _ = newest([Source(best), *sources], want)
                for author, source in zip(some, sources, strict=True):
                    floors[author] = TweetId(source.floor)
                if len(left) > _SLICE:
                    await asyncio.sleep(0)
                    if renew is not None:
                        await renew()
            cutoff = tweet_of(best[-1]) if len(best) == want else ZERO
            left = [author for author, floor in floors.items() if floor > cutoff]
            chunk = max(TAIL_LENGTH, want // max(1, len(left)))
        return best

    async def _heads(
        self, authors: Sequence[UserId], below: TweetId | None, floors: Mapping[UserId, TweetId], chunk: int
    ) -> list[Source]:
        """What comes next of each author: his tail at first, then from the store below what was read of him."""
        if below is None and authors[0] not in floors:
            return [Source(list(descending(held)), held.floor) for held in await self._tails_of(authors)]
        chunks = await self._store.tails([(author, floors.get(author, below)) for author in authors], chunk)
        return [source_of_chunk(entries, chunk) for entries in chunks]

    async def _tails_of(self, authors: Sequence[UserId]) -> list[Held]:
        if not authors:
            return []
        tails = await self._filler.read([(self._tails, author) for author in authors])
        found = [held for held in tails if held is not None]
        for author, held in zip(authors, found, strict=True):
            await self._filler.tidy(self._tails, author, held)
        return found

    async def _followees(self, owner: UserId) -> list[UserId]:
        held = (await self._filler.read([(self._relations, owner)]))[0]
        return [UserId(raw) for raw in unpack_ids(held.body)] if held else []

    async def _load_timelines(self, ids: Sequence[bytes], renew: Renew) -> Mapping[bytes, Fill]:
        found = {}
        for raw in ids:
            owner = UserId(raw)
            entries = await self._pull(await self._followees(owner), None, FILL, renew)
            floor = tweet_of(entries[-1]) if len(entries) == FILL else ZERO
            found[raw] = Fill(entries=entries, floor=floor)
        return found

    async def _load_tails(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        chunks = await self._store.tails([(UserId(raw), None) for raw in ids], TAIL_LENGTH)
        sources = [source_of_chunk(entries, TAIL_LENGTH) for entries in chunks]
        return {raw: Fill(entries=source.entries, floor=source.floor) for raw, source in zip(ids, sources, strict=True)}

    async def _load_relations(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        return {raw: Fill(b"".join(await self._all_followees(UserId(raw)))) for raw in ids}

    async def _all_followees(self, owner: UserId) -> list[UserId]:
        found: list[UserId] = []
        while True:
            page = await self._store.followees(owner, found[-1] if found else None, _RELATION_PAGE)
            found += page
            if len(page) < _RELATION_PAGE:
                return found
            await asyncio.sleep(0)  # a page takes a millisecond, and there may be fifty

    async def _load_exceptions(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        celebrities = {
            change.author for change in await self._store.fanout_changes() if change.state is not FanoutState.PUSHED
        }
        since = self._clock.now() - REMEMBERED_MILLIS
        found = {}
        for raw in ids:
            followees = await self._followees(UserId(raw)) if celebrities else ()
            pulled = [author for author in followees if author in celebrities]
            unfollowed = await self._store.unfollowed_since(UserId(raw), since)
            found[raw] = Fill(len(pulled).to_bytes(4, "big") + b"".join((*pulled, *unfollowed)))
        return found


def _read_exceptions(held: Held) -> _Exceptions:
    pulled = int.from_bytes(held.body[:4], "big")
    ids = [UserId(raw) for raw in unpack_ids(held.body[4:])]
    return _Exceptions(ids[:pulled], ids[pulled:])
