"""Timelines and tails as the cache holds them, and how several of them make one page.

A value is a run of entries and a footer, 32 bytes each. The first entries of a run are those prepended since it was
filled, in the order they came; the `ordered` ones behind them descend. An entry is a tweet's id and its author's, so
entries compare like tweet ids, and an entry compares with a bare id as its own id does: `entry < id` and `entry >= id`
are exact, because of two byte strings with one beginning the shorter is the lesser.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge as merge_sorted
from itertools import islice
from struct import Struct as Layout
from typing import TypeGuard

from msgspec import Struct

from rookery.domain.ids import ID_BYTES, ZERO, TweetId, UserId

ENTRY_BYTES = 2 * ID_BYTES
FOOTER_BYTES = ENTRY_BYTES
NONCE_BYTES = 8
TAIL = 10
"""Newest tweets of one author in his cached tail. Ten per tail are exact for a page of ten."""
FILL = 101
"""Entries that a timeline is filled with: one page of the greatest size, and the one that tells there is more."""
TRIM_ABOVE = 400
TRIM_TO = 200
FRESH = 40
"""Prepended entries that readers sort each time; more are put in order once."""

_FOOTER = Layout(f">{ID_BYTES}s{NONCE_BYTES}sII")
_FILLING = 0xFFFFFFFF
_FILLING_END = _FILLING.to_bytes(4, "big")


class Held(Struct, frozen=True, gc=False):
    """A filled value of the cache."""

    body: bytes
    floor: bytes
    """The id above which, itself included, the run is complete. Nothing below it is served from it."""
    nonce: bytes
    filled_at: int
    """Seconds since 1970."""
    ordered: int
    """How many entries at the end of the run descend; the ones before were prepended since."""


def claim(nonce: bytes, now: int, prepended: bytes = b"") -> bytes:
    """The value that claims a key for the one who fills it: a footer that says *filling*, his nonce, and since when."""
    return prepended + _FOOTER.pack(ZERO, nonce, now, _FILLING)


def seal(body: bytes, nonce: bytes, filled_at: int, *, floor: bytes = ZERO, ordered: int = 0) -> bytes:
    """A filled value: its body, and a footer with the nonce of whoever filled it."""
    return body + _FOOTER.pack(floor, nonce, filled_at, ordered)


def is_filled(value: bytes | None) -> TypeGuard[bytes]:
    """Whether a cached value may be served; anything else is a miss, whatever it holds."""
    return value is not None and len(value) >= FOOTER_BYTES and value[-4:] != _FILLING_END


def stamp_of(value: bytes) -> int:
    """When a value was claimed or filled, in seconds since 1970."""
    return int.from_bytes(value[-8:-4], "big")


def is_claimed_by(value: bytes, nonce: bytes) -> bool:
    """Whether a value still is the generation that this nonce began."""
    return value[-16:-8] == nonce


def body_of(value: bytes) -> bytes:
    """A value without its footer."""
    return value[:-FOOTER_BYTES]


def open_value(value: bytes) -> Held:
    """A filled value in its parts."""
    floor, nonce, filled_at, ordered = _FOOTER.unpack_from(value, len(value) - FOOTER_BYTES)
    return Held(value[:-FOOTER_BYTES], floor, nonce, filled_at, ordered)


def entry(tweet: TweetId, author: UserId) -> bytes:
    """The 32 bytes by which a timeline knows a tweet."""
    return tweet + author


def author_of(item: bytes) -> UserId:
    """Whose tweet an entry is."""
    return UserId(item[ID_BYTES:])


def tweet_of(item: bytes) -> TweetId:
    """Which tweet an entry is."""
    return TweetId(item[:ID_BYTES])


def unpack(run: bytes) -> list[bytes]:
    """The entries of a run, in its order."""
    return [run[at : at + ENTRY_BYTES] for at in range(0, len(run), ENTRY_BYTES)]


def unpack_ids(packed: bytes) -> list[bytes]:
    """The ids of a packed list of them."""
    return [packed[at : at + ID_BYTES] for at in range(0, len(packed), ID_BYTES)]


def holds_id(packed: bytes, wanted: bytes) -> bool:
    """Whether an id is in a packed list of descending ids (binary search)."""
    low, high = 0, len(packed) // ID_BYTES
    while low < high:
        middle = (low + high) // 2
        found = packed[middle * ID_BYTES : (middle + 1) * ID_BYTES]
        if found == wanted:
            return True
        if found > wanted:
            low = middle + 1
        else:
            high = middle
    return False


def descending(held: Held, below: bytes | None = None) -> Iterator[bytes]:
    """The entries that a held run may serve: newest first, each once, under `below`, not under its floor.

    Costs as much as is taken and as was prepended, however long the run is.
    """
    body = held.body
    ordered_from = len(body) - held.ordered * ENTRY_BYTES
    fresh = sorted(unpack(body[:ordered_from]), reverse=True)
    first = 0 if below is None else _first_below(body, ordered_from, held.ordered, below)
    offsets = range(ordered_from + first * ENTRY_BYTES, len(body), ENTRY_BYTES)
    old = (body[at : at + ENTRY_BYTES] for at in offsets)
    last = None
    for item in merge_sorted(fresh, old, reverse=True) if fresh else old:
        if item < held.floor:
            return
        if item != last and (below is None or item < below):
            last = item
            yield item


def _first_below(body: bytes, start: int, count: int, below: bytes) -> int:
    """How many of the `count` descending entries from `start` are not below an id (binary search)."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        at = start + middle * ENTRY_BYTES
        if body[at : at + ENTRY_BYTES] < below:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True, slots=True)
class Source:
    """What one timeline, tail or author has to give to a page."""

    entries: Sequence[bytes]
    """Descending; all there are from the floor up, or at least as many as the page wants."""
    floor: bytes = ZERO
    """What lies below this id is not among the entries. ZERO when there is nothing more."""


def source_of(held: Held, below: bytes | None, want: int, hidden: Collection[bytes] = ()) -> Source:
    """What a held run gives to a page of `want` entries, without those of hidden authors."""
    visible = (item for item in descending(held, below) if item[ID_BYTES:] not in hidden)
    return Source(list(islice(visible, want)), held.floor)


def source_of_chunk(chunk: Sequence[bytes], asked: int) -> Source:
    """What a store gave of one author when asked for `asked` entries: a full chunk may have more below it."""
    return Source(chunk, tweet_of(chunk[-1]) if len(chunk) >= asked else ZERO)


def newest(sources: Sequence[Source], want: int) -> tuple[list[bytes], list[int]]:
    """The newest `want` entries of several sources, each once, and which sources may hold more that belong among them.

    The page is exact when no source is named; otherwise read those further and ask again.
    """
    merged = sorted({item for source in sources for item in source.entries}, reverse=True)[:want]
    cutoff = merged[-1] if len(merged) == want else ZERO
    return merged, [at for at, source in enumerate(sources) if source.floor > cutoff[:ID_BYTES]]


def join_fill(prepended: bytes, filled: Sequence[bytes], floor: bytes) -> list[bytes]:
    """A filler's own result and what was prepended to his claim meanwhile: descending, each once, from the floor up."""
    return sorted({item for item in (*unpack(prepended), *filled) if item >= floor}, reverse=True)


def tidied(held: Held) -> tuple[list[bytes], bytes] | None:
    """A run that grew too long or too disordered, cut to its newest in order, and its floor; None if it is fine."""
    entries = len(held.body) // ENTRY_BYTES
    if entries <= TRIM_ABOVE and entries - held.ordered <= FRESH:
        return None
    most = TRIM_TO if entries > TRIM_ABOVE else entries
    kept = list(islice(descending(held), most))
    # Duplicates or a high floor may leave less: then the whole run from its floor up was kept, and the floor stands.
    return kept, tweet_of(kept[-1]) if entries > TRIM_ABOVE and len(kept) == most else held.floor
