"""Cached runs as the tests of timelines make them.

Tweets are numbers here, the greater the newer, and each has the author that its number says. The model of a run is the
list of the numbers in it; that of a page is sorting all there is.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st

from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import (
    Held,
    entry,
    open_value,
    seal,
)

few = settings(max_examples=25)
"""For what is so simple that a few examples show it."""

NONCE = b"generate"
NOW = 1_700_000_000
MOST = 60
"""Few numbers, so that bounds, floors and duplicates often meet."""

# The least and the greatest bytes are among them: an entry is compared with an id that is its first half.
AUTHORS = [UserId(bytes([byte]) * 16) for byte in (0x00, 0x7F, 0xFE, 0xFF)]


def tweet(number: int) -> TweetId:
    """The id of a tweet; that of 0 is ZERO."""
    return TweetId(number.to_bytes(2, "big") * 8)


def author(number: int) -> UserId:
    return AUTHORS[number % len(AUTHORS)]


def item(number: int) -> bytes:
    return entry(tweet(number), author(number))


def items(numbers: Iterable[int]) -> list[bytes]:
    return [item(number) for number in numbers]


def newest_first(numbers: Iterable[int]) -> list[int]:
    return sorted(set(numbers), reverse=True)


@dataclass(frozen=True)
class Run:
    """A run as it came to be: filled in order, then prepended to."""

    fresh: Sequence[int]
    ordered: Sequence[int]
    floor: int

    @property
    def held(self) -> Held:
        body = b"".join(items([*self.fresh, *self.ordered]))
        return open_value(seal(body, NONCE, NOW, floor=tweet(self.floor), ordered=len(self.ordered)))

    def served(self, below: int | None = None, hidden: Collection[bytes] = ()) -> list[int]:
        """Brute force: each once, from the floor up, under `below`, of no hidden author."""
        return [
            number
            for number in newest_first([*self.fresh, *self.ordered])
            if number >= self.floor and (below is None or number < below) and author(number) not in hidden
        ]


numbers = st.integers(1, MOST)
# Drawn as bytes, because hypothesis draws a byte string at once and a list item by item, ten times as slowly.
in_any_order = st.binary(max_size=15).map(lambda drawn: [1 + byte % MOST for byte in drawn])
in_order = st.binary(max_size=30).map(lambda drawn: newest_first(1 + byte % MOST for byte in drawn))
bounds = st.one_of(st.none(), st.integers(0, MOST + 1))
hiding = st.sets(st.sampled_from(AUTHORS))
runs = st.builds(
    Run,
    fresh=in_any_order,
    ordered=in_order,
    floor=st.integers(0, MOST + 1),
)


def below_id(below: int | None) -> TweetId | None:
    return None if below is None else tweet(below)
