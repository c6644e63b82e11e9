"""How a cached value is filled: one protocol for every kind of key (docs/adr/0003-fill-protocol.md).

Claim the key with a nonce, only then read the store, and store the result only if the key still is that claim. So what
was dropped meanwhile stays dropped, and what was prepended meanwhile is merged. Within the process one reader fills and
the others wait for him, as long as his claim stands: then his result holds all that was written before they asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.domain.ids import ZERO
from rookery.domain.tallies import Reading, Tally
from rookery.domain.timeline import (
    NONCE_BYTES,
    Held,
    body_of,
    claim,
    is_claimed_by,
    is_filled,
    join_fill,
    open_value,
    seal,
    stamp_of,
    tidied,
)
from rookery.ports.cache import Cache, Swap
from rookery.ports.clock import Clock

CLAIM_SECONDS = 30
RESIDENT_SECONDS = 60 * 60
"""How long a value stays after it was last read."""
SLACK_SECONDS = 60
"""Longer than any post takes from reading its author's state to its last prepend, and than servers' clocks differ."""
DAY_SECONDS = 24 * 60 * 60
HOUR_SECONDS = 60 * 60

TIMELINE = b"tl:"
TAIL = b"ut:"
RELATION = b"rel:"
EXCEPTIONS = b"rx:"
TWEET = b"tw:"
AUTHOR = b"us:"
_KINDS = {
    TIMELINE: "timeline",
    TAIL: "tail",
    RELATION: "relation",
    EXCEPTIONS: "exceptions",
    TWEET: "tweet",
    AUTHOR: "author",
}

_WAIT_SECONDS = 0.01
_WAITS = 5


@dataclass(frozen=True, slots=True)
class Fill:
    """What a loader read for one key: a body, or for timelines and tails descending entries and their floor."""

    body: bytes = b""
    entries: Sequence[bytes] | None = None
    floor: bytes = ZERO


Renew = Callable[[], Awaitable[None]]
Load = Callable[[Sequence[bytes], Renew], Awaitable[Mapping[bytes, Fill]]]
"""Reads the store for some ids; those it has nothing for are left out. A long one calls `renew` between its slices."""
Enter = Callable[[], AbstractAsyncContextManager[bool]]
"""Holds a place for a costly read of the store and tells whether it had to wait for it. Raises `Unavailable`."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A kind of cached value: what its keys begin with, how old it may grow since its fill, and how it is read."""

    prefix: bytes
    max_age: int
    load: Load
    needs_place: bool = False
    """Whether its loader reads so much that only few may run at once."""


@dataclass(frozen=True, slots=True)
class _Landing:
    """How a flight ended. `certain`: its value was stored, so it holds whatever was written before that."""

    held: Held | None
    certain: bool


@dataclass(frozen=True, slots=True)
class _Flight:
    """A read of one key under way. It ends with a landing, or with None when whoever led it failed."""

    done: "asyncio.Future[_Landing | None]" = field(default_factory=asyncio.Future)

    def land(self, landing: _Landing | None) -> None:
        if not self.done.done():
            self.done.set_result(landing)


class Filler:
    """Reads through the cache."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._flights: dict[bytes, _Flight] = {}
        self._reads: Tally[tuple[bytes, bool]] = Tally()

    async def read(self, wanted: Sequence[tuple[Kind, bytes]], enter: Enter | None = None) -> list[Held | None]:
        """The values for (kind, id) in the order asked, from the cache in one round trip, else from the store.

        None for what the store does not have. With `enter` a kind that needs a place is loaded within one. Raises what
        the loaders and `enter` raise. A caller may be cancelled at any moment: others who wait for its read go on.
        """
        keys = [kind.prefix + raw for kind, raw in wanted]
        values = await self._cache.get_many(keys, touch=RESIDENT_SECONDS)
        now = self._now()
        found: list[Held | None] = []
        missing: dict[Kind, list[bytes]] = {}
        outdated = []
        for (kind, raw), key, value in zip(wanted, keys, values, strict=True):
            if is_filled(value) and _is_young(value, now, kind.max_age):
                found.append(open_value(value))
                self._reads.add((kind.prefix, True))
                continue
            if value is not None and not _is_young(value, now, kind.max_age if is_filled(value) else CLAIM_SECONDS):
                outdated.append(key)
            found.append(None)
            self._reads.add((kind.prefix, False))
            missing.setdefault(kind, []).append(raw)
        if missing:
            if outdated:
                await self.drop(outdated)
            filled = {kind: await self._fill(kind, list(dict.fromkeys(ids)), enter) for kind, ids in missing.items()}
            for at, (kind, raw) in enumerate(wanted):
                if found[at] is None:
                    found[at] = filled[kind].get(raw)
        return found

    async def drop(self, keys: Sequence[bytes]) -> None:
        """Forget keys after what they are made from has changed. A fill under way will not be stored nor shared."""
        for key in keys:
            self._flights.pop(key, None)
        await self._cache.delete(keys)

    async def tidy(self, kind: Kind, raw: bytes, held: Held) -> None:
        """Put a run in order and in bounds, if it needs it and nobody else changes it at this moment."""
        tidy = tidied(held)
        if tidy is None:
            return
        key = kind.prefix + raw
        current = (await self._cache.get_for_swap([key]))[0]
        if current is None or not is_filled(current[0]) or open_value(current[0]) != held:
            return
        entries, floor = tidy
        value = seal(b"".join(entries), held.nonce, held.filled_at, floor=floor, ordered=len(entries))
        await self._cache.swap([(key, current[1], value)], RESIDENT_SECONDS)

    def readings(self) -> Iterable[Reading]:
        """How often a value was in the cache, by its kind."""
        for (prefix, hit), many in self._reads.items():
            yield Reading(
                "cache_reads_total",
                "Values asked of the cache, by their kind and whether they were there.",
                many,
                {"kind": _KINDS[prefix], "result": "hit" if hit else "miss"},
            )

    def _now(self) -> int:
        return self._clock.now() // 1000

    async def _fill(self, kind: Kind, ids: Sequence[bytes], enter: Enter | None) -> dict[bytes, Held | None]:
        """Read what nobody reads yet and wait for the rest.

        A flight that was under way may have read the store before this caller asked: its landing serves him if it was
        stored. Else one that began since does, stored or not, and so a thousand who wait share one more read.
        """
        if kind.needs_place and enter:
            return {raw: await self._fill_in_place(kind, raw, enter) for raw in ids}
        found, late = await self._join(kind, ids, only_certain=True)
        if late:
            also, failed = await self._join(kind, late, only_certain=False)
            found.update(also)
            if failed:
                found.update(await self._pull(kind, failed))
        return found

    async def _fill_in_place(self, kind: Kind, raw: bytes, enter: Enter) -> Held | None:
        """As `_fill`, but whoever reads the store holds a place; who shares another's read needs none.

        The place comes first and the flight after it: nobody is held up by the wait of another who has used up a share.
        """
        key = kind.prefix + raw
        flight = self._flights.get(key)
        if flight is not None:
            landing = await asyncio.shield(flight.done)
            if landing is not None and landing.certain:
                return landing.held
        if (landing := await self._next_landing(key)) is not None:
            return landing.held
        async with enter() as waited:
            if waited:
                value = (await self._cache.get_many([key], touch=RESIDENT_SECONDS))[0]
                if is_filled(value) and _is_young(value, self._now(), kind.max_age):
                    return open_value(value)
                if (landing := await self._next_landing(key)) is not None:
                    return landing.held
            found, failed = await self._join(kind, [raw], only_certain=False)
            if failed:
                found.update(await self._pull(kind, failed))
            return found.get(raw)

    async def _next_landing(self, key: bytes) -> _Landing | None:
        """What a flight brings that began after the caller asked; None when none is under way that succeeds."""
        while (flight := self._flights.get(key)) is not None:
            landing = await asyncio.shield(flight.done)
            if landing is not None:
                return landing
        return None

    async def _join(
        self, kind: Kind, ids: Sequence[bytes], *, only_certain: bool
    ) -> tuple[dict[bytes, Held | None], list[bytes]]:
        """Lead the flights that nobody leads and wait for the others: what they brought, and for whom they did not."""
        waited = {raw: flight for raw in ids if (flight := self._flights.get(kind.prefix + raw))}
        found = await self._lead(kind, [raw for raw in ids if raw not in waited])
        late = []
        for raw, flight in waited.items():
            landing = await asyncio.shield(flight.done)
            if landing is not None and (landing.certain or not only_certain):
                found[raw] = landing.held
            else:
                late.append(raw)
        return found, late

    async def _lead(self, kind: Kind, ids: Sequence[bytes]) -> dict[bytes, Held | None]:
        """Claim keys, read the store, store what still is claimed. Keys that others claimed are pulled, not stored."""
        if not ids:
            return {}
        flights = {raw: _Flight() for raw in ids}
        self._flights.update((kind.prefix + raw, flight) for raw, flight in flights.items())
        try:
            nonce = self._clock.random(NONCE_BYTES)
            keys = [kind.prefix + raw for raw in ids]
            try:
                added = await self._cache.add_many(keys, claim(nonce, self._now()), CLAIM_SECONDS)
            except BaseException:
                await self._give_up(keys, nonce)
                raise
            claimed = [raw for raw, mine in zip(ids, added, strict=True) if mine]
            others = [raw for raw, mine in zip(ids, added, strict=True) if not mine]
            found = await self._fill_claimed(kind, claimed, nonce, flights)
            if others:
                found.update(await self._wait_or_pull(kind, others))
            for raw, held in found.items():
                self._land(kind, raw, flights[raw], _Landing(held, certain=False))
            return found
        finally:
            for raw, flight in flights.items():
                self._land(kind, raw, flight, None)

    async def _fill_claimed(
        self, kind: Kind, ids: Sequence[bytes], nonce: bytes, flights: Mapping[bytes, _Flight]
    ) -> dict[bytes, Held | None]:
        if not ids:
            return {}
        keys = [kind.prefix + raw for raw in ids]

        async def renew() -> None:
            await self._renew(keys, nonce)

        try:
            loaded = await kind.load(ids, renew)
            found: dict[bytes, Held | None] = {}
            absent = [raw for raw in ids if raw not in loaded]
            if absent:
                await self._cache.delete([kind.prefix + raw for raw in absent])
                found.update(dict.fromkeys(absent))
            found.update(await self._store(kind, {raw: loaded[raw] for raw in ids if raw in loaded}, nonce, flights))
        except BaseException:
            await self._give_up(keys, nonce)
            raise
        return found

    async def _give_up(self, keys: Sequence[bytes], nonce: bytes) -> None:
        """Take one's own claims back after a failure, else nobody could fill these keys until the claims run out."""
        current = await self._cache.get_for_swap(keys)
        mine = [
            key
            for key, got in zip(keys, current, strict=True)
            if got is not None and not is_filled(got[0]) and is_claimed_by(got[0], nonce)
        ]
        with suppress(Unavailable):  # the claims run out by themselves, and what failed is what the caller is told
            await self._cache.delete(mine)

    async def _store(
        self, kind: Kind, fills: Mapping[bytes, Fill], nonce: bytes, flights: Mapping[bytes, _Flight]
    ) -> dict[bytes, Held]:
        """Replace one's own claims by what was read and what was prepended meanwhile; again while a key changes."""
        done = {raw: open_value(_sealed(fill, b"", nonce, self._now())) for raw, fill in fills.items()}
        left = list(fills)
        while left:
            current = await self._cache.get_for_swap([kind.prefix + raw for raw in left])
            swaps: dict[bytes, tuple[bytes, object, bytes]] = {}
            for raw, got in zip(left, current, strict=True):
                if got is not None and not is_filled(got[0]) and is_claimed_by(got[0], nonce):
                    value = _sealed(fills[raw], body_of(got[0]), nonce, self._now())
                    swaps[raw] = (kind.prefix + raw, got[1], value)
            outcome = await self._cache.swap(list(swaps.values()), RESIDENT_SECONDS)
            left = []
            for (raw, (_, _, value)), swap in zip(swaps.items(), outcome, strict=True):
                done[raw] = open_value(value)
                if swap is Swap.STORED:
                    self._land(kind, raw, flights[raw], _Landing(done[raw], certain=True))
                elif swap is Swap.CHANGED:
                    left.append(raw)
        return done

    async def _renew(self, keys: Sequence[bytes], nonce: bytes) -> None:
        """Date one's own claims anew, with what was prepended to them kept."""
        current = await self._cache.get_for_swap(keys)
        mine = [
            (key, got[1], claim(nonce, self._now(), body_of(got[0])))
            for key, got in zip(keys, current, strict=True)
            if got is not None and not is_filled(got[0]) and is_claimed_by(got[0], nonce)
        ]
        await self._cache.swap(mine, CLAIM_SECONDS)

    async def _wait_or_pull(self, kind: Kind, ids: Sequence[bytes]) -> dict[bytes, Held | None]:
        """Someone else fills these: give him a moment, then read for oneself without storing."""
        found: dict[bytes, Held | None] = {}
        left = list(ids)
        for _ in range(_WAITS):
            values = await self._cache.get_many([kind.prefix + raw for raw in left], touch=RESIDENT_SECONDS)
            waiting = []
            for raw, value in zip(left, values, strict=True):
                if is_filled(value):
                    found[raw] = open_value(value)
                elif value is not None:
                    waiting.append(raw)
            left = [raw for raw in left if raw not in found]
            if not waiting:
                break
            await asyncio.sleep(_WAIT_SECONDS)
        if left:
            found.update(await self._pull(kind, left))
        return found

    async def _pull(self, kind: Kind, ids: Sequence[bytes]) -> dict[bytes, Held | None]:
        """Read the store for oneself."""

        async def nothing_to_renew() -> None:
            """No claim was made."""

        loaded = await kind.load(ids, nothing_to_renew)
        return {
            raw: open_value(_sealed(loaded[raw], b"", bytes(NONCE_BYTES), self._now())) if raw in loaded else None
            for raw in ids
        }

    def _land(self, kind: Kind, raw: bytes, flight: _Flight, landing: _Landing | None) -> None:
        key = kind.prefix + raw
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.land(landing)


def _is_young(value: bytes, now: int, max_age: int) -> bool:
    """Whether a value is younger than so many seconds.

    One from the future was made before a clock was set back: it would stay for longer than its time.
    """
    return -SLACK_SECONDS <= now - stamp_of(value) < max_age


def _sealed(fill: Fill, prepended: bytes, nonce: bytes, now: int) -> bytes:
    if fill.entries is None:
        return seal(fill.body, nonce, now)
    entries = join_fill(prepended, fill.entries, fill.floor)
    return seal(b"".join(entries), nonce, now, floor=fill.floor, ordered=len(entries))
