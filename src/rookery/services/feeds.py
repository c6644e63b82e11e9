"""The feed: the newest tweets of all whom one follows, merged from timelines, tails and, below those, the store."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from rookery.domain.cursors import Page, read_cursor, write_cursor
from rookery.domain.errors import unknown_user
from rookery.domain.ids import ID_BYTES, ZERO, TweetId, UserId
from rookery.domain.timeline import (
    FILL,
    Held,
    Source,
    author_of,
    descending,
    holds_id,
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
from rookery.services.paging import full_page
from rookery.services.pulling import Asker, Patience, Pulls
from rookery.services.showing import Showing

CURSOR = "f"
REMEMBERED_MILLIS = (DAY_SECONDS + 2 * HOUR_SECONDS) * 1000
"""How long a reader knows whom he unfollowed: longer than a timeline lives that a late fan-out wrote into."""
MOST_UNFOLLOWED = 1_000
"""Unfollows that a reader's exceptions hold (16 bytes each). Of a user with more, authors are looked up instead."""
_OVERFLOWN = 1 << 31
"""In the count that exceptions begin with: there are more unfollows than they hold."""
_SLICE = 100
"""Authors read before a long pull lets others have the event loop: about a millisecond on SQLite."""
_TAILS_MOST = 1_000
"""Authors whose tails a pull takes from the cache. Those of more would push everything else out of it."""
_RELATION_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class _Exceptions:
    """What a warm read must know beside the timeline."""

    pulled: Sequence[UserId]
    unfollowed: Sequence[UserId] | None
    """None when there are too many to list."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """One page being read: whose feed, for which client, and the deleted authors met so far."""

    owner: UserId
    asker: Asker | None
    patience: Patience
    gone: set[UserId]


class Feeds:
    """Reads feeds."""

    def __init__(self, store: Store, filler: Filler, showing: Showing, clock: Clock, pulls: Pulls) -> None:
        self._store = store
        self._filler = filler
        self._showing = showing
        self._clock = clock
        self._pulls = pulls
        self._timelines = Kind(TIMELINE, DAY_SECONDS, self._load_timelines, needs_place=True)
        self._tails = Kind(TAIL, DAY_SECONDS, self._load_tails)
        self._relations = Kind(RELATION, DAY_SECONDS, self._load_relations)
        self._exceptions = Kind(EXCEPTIONS, HOUR_SECONDS, self._load_exceptions, needs_place=True)

    async def home(self, owner: UserId, limit: int, cursor: str | None, asker: Asker | None = None) -> Page[bytes]:
        """A page of the JSON of `Tweet`s by all whom the owner follows, newest first. It is full while there are more.

        What must be read from the store for all followees takes one of the asker's places. None is the process itself.

        Raises:
            NotFound: `unknown_user`.
            Malformed: `malformed_cursor`.
            Unavailable: `busy`, when no place is free in time.
        """
        below = TweetId(read_cursor(CURSOR, cursor)) if cursor is not None else None
        reading = _Reading(owner, asker, Patience(), set())
        items, last = await full_page(
            limit, below, partial(self._newest_entries, reading), partial(self._show, reading), tweet_of
        )
        return Page(items, write_cursor(CURSOR, last) if last is not None else None)

    async def _show(self, reading: _Reading, entries: Sequence[bytes]) -> Sequence[bytes | None]:
        """Show entries, and note whose author is deleted: what else they wrote need not be looked at."""
        shown = await self._showing.show(entries)
        if None in shown:
            dropped = {author_of(item) for item, each in zip(entries, shown, strict=True) if each is None}
            reading.gone.update(dropped - await self._showing.alive(list(dropped)))
        return shown

    async def _newest_entries(self, reading: _Reading, below: TweetId | None, want: int) -> Sequence[bytes]:
        """The newest `want` entries of the feed below an id; fewer only at its end.

        One's own tweets are not in one's timeline: a chatty owner would push the others' out of it. A page that shows
        both merges his tail, as it does a celebrity's.
        """
        owner, place = reading.owner, partial(self._pulls.place, reading.asker, reading.patience)
        timeline, exceptions, alive = await self._filler.read(
            [(self._timelines, owner), (self._exceptions, owner), (self._showing.authors, owner)], place
        )
        if alive is None or not alive.body or timeline is None or exceptions is None:
            raise unknown_user()
        await self._filler.tidy(self._timelines, owner, timeline)
        known = _read_exceptions(exceptions)
        hidden: Collection[UserId]
        if known.unfollowed is None:
            hidden = await self._not_followed(reading, timeline, known.pulled, below, want)
        else:
            hidden = {*known.unfollowed, *reading.gone}
        sources = [source_of(timeline, below, want, hidden)]
        pulled = [author for author in known.pulled if author not in hidden]
        sources += [source_of(held, below, want) for held in await self._tails_of(pulled)]
        while True:
            entries, short = newest(sources, want)
            if not short:
                return entries
            if short[0] == 0:
                async with place():
                    return await self._pull(await self._followees(owner), below, want, without=reading.gone)
            for at in short:  # a celebrity's tail is used up: go on with him from the store
                sources[at] = await self._read_on(pulled[at - 1], sources[at], below, want)

    async def _not_followed(
        self, reading: _Reading, timeline: Held, pulled: Sequence[UserId], below: TweetId | None, want: int
    ) -> Collection[UserId]:
        """The authors among a page's candidates whom the owner does not follow, and those who are deleted.

        A fan-out that read the followers before an unfollow may have put its tweet in afterwards. Where the unfollows
        are too many to list, the store is asked about the authors that the page would show instead.
        """
        followed: set[UserId] = set()
        hidden = set(reading.gone)
        asked, unknown = want, set(pulled)
        while True:
            entries = list(islice(descending(timeline, below), asked))
            unknown |= {author_of(item) for item in entries}
            unknown -= followed | hidden
            if unknown:
                there = await self._store.followed_among(reading.owner, list(unknown))
                followed |= there
                hidden |= unknown - there
            visible = sum(author_of(item) not in hidden for item in entries)
            if visible >= want or len(entries) < asked:
                return hidden
            asked, unknown = 2 * asked, set()

    async def _read_on(self, author: UserId, source: Source, below: TweetId | None, want: int) -> Source:
        start = source.floor if below is None else min(source.floor, below)
        chunk = (await self._store.tails([(author, TweetId(start))], want))[0]
        more = source_of_chunk(chunk, want)
        return Source([*source.entries, *more.entries], more.floor)

    async def _pull(
        self,
        followees: bytes,
        below: TweetId | None,
        want: int,
        renew: Renew | None = None,
        without: Collection[UserId] = (),
    ) -> Sequence[bytes]:
        """The newest `want` entries of packed authors below an id: heads of all, then only who can still matter."""
        best: list[bytes] = []
        if len(followees) > (_TAILS_MOST if below is None else want) * ID_BYTES:
            best = await self._newest_of_each(followees, below, want, renew, without)
            left = [author_of(item) for item in best]
        else:
            left = _authors(followees, without)
        floors: dict[UserId, TweetId] = {}
        chunk = min(want, TAIL_LENGTH)
        while left:
            for start in range(0, len(left), _SLICE):
                some = left[start : start + _SLICE]
                sources = await self._heads(some, below, floors, chunk)
                best, _ = newest([Source(best), *sources], want)
                for author, source in zip(some, sources, strict=True):
                    floors[author] = TweetId(source.floor)
                await _breathe(renew)
            cutoff = tweet_of(best[-1]) if len(best) == want else ZERO
            left = [author for author, floor in floors.items() if floor > cutoff]
            chunk = max(TAIL_LENGTH, want // max(1, len(left)))
        return best

    async def _newest_of_each(
        self,
        followees: bytes,
        below: TweetId | None,
        want: int,
        renew: Renew | None,
        without: Collection[UserId],
    ) -> list[bytes]:
        """The newest `want` among the newest entries of each author: no other author has any of the newest `want`.

        So it stays when one of them is deleted meanwhile, as its entry keeps its place here and is dropped when shown.
        """
        best: list[bytes] = []
        step = _SLICE * ID_BYTES
        for start in range(0, len(followees), step):
            some = _authors(followees[start : start + step], without)
            chunks = await self._store.tails([(author, below) for author in some], 1)
            cutoff = best[-1] if len(best) == want else ZERO
            if more := [chunk[0] for chunk in chunks if chunk and chunk[0] > cutoff]:
                best = sorted({*best, *more}, reverse=True)[:want]
            await _breathe(renew)
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

    async def _followees(self, owner: UserId) -> bytes:
        """The ids of all followees, packed and descending: a list of 50,000 would take four times the memory."""
        held = (await self._filler.read([(self._relations, owner)]))[0]
        return held.body if held else b""

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
        return {raw: Fill(await self._all_followees(UserId(raw))) for raw in ids}

    async def _all_followees(self, owner: UserId) -> bytes:
        pages: list[bytes] = []
        last: UserId | None = None
        while True:
            page = await self._store.followees(owner, last, _RELATION_PAGE)
            pages.append(b"".join(page))
            if len(page) < _RELATION_PAGE:
                return b"".join(pages)
            last = page[-1]
            await asyncio.sleep(0)  # a page takes a millisecond, and there may be fifty

    async def _load_exceptions(self, ids: Sequence[bytes], _: Renew) -> Mapping[bytes, Fill]:
        celebrities = [
            change.author for change in await self._store.fanout_changes() if change.state is not FanoutState.PUSHED
        ]
        since = self._clock.now() - REMEMBERED_MILLIS
        found = {}
        for raw in ids:
            followees = await self._followees(UserId(raw)) if celebrities else b""
            pulled = [author for author in celebrities if holds_id(followees, author)]
            unfollowed = await self._store.unfollowed_since(UserId(raw), since, MOST_UNFOLLOWED)
            found[raw] = Fill(_write_exceptions(_Exceptions(pulled, unfollowed)))
        return found


def _authors(packed: bytes, without: Collection[UserId]) -> list[UserId]:
    return [UserId(raw) for raw in unpack_ids(packed) if raw not in without]


async def _breathe(renew: Renew | None) -> None:
    """Let others have the event loop between two slices, and be cancelled if nobody waits for the result any more."""
    await asyncio.sleep(0)
    if renew is not None:
        await renew()


def _write_exceptions(known: _Exceptions) -> bytes:
    count = len(known.pulled) | (_OVERFLOWN if known.unfollowed is None else 0)
    return count.to_bytes(4, "big") + b"".join((*known.pulled, *(known.unfollowed or ())))


def _read_exceptions(held: Held) -> _Exceptions:
    count = int.from_bytes(held.body[:4], "big")
    pulled = count & ~_OVERFLOWN
    ids = [UserId(raw) for raw in unpack_ids(held.body[4:])]
    return _Exceptions(ids[:pulled], None if count & _OVERFLOWN else ids[pulled:])
