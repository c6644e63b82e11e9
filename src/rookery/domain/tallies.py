"""Numbers that a part keeps of its own doing, for whoever looks at them: how often, how long, how many.

They cost a few hundred nanoseconds and know nobody: what shows them (`web.metrics`) asks for them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar, runtime_checkable

K = TypeVar("K")

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds for how long something took."""


class Spread:
    """How often a value was at most each of `bounds`, which ascend; and the sum of all values."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Those above the bound before and up to this; the last is of those above all."""
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, infinity last, with how many were at most that."""
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            yield bound, seen


class Spreads(Generic[K]):
    """A spread for each of several kinds, which are few."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = bounds
        self._by_kind: dict[K, Spread] = {}

    def add(self, kind: K, value: float) -> None:
        """One more of a kind."""
        spread = self._by_kind.get(kind)
        if spread is None:
            spread = self._by_kind[kind] = Spread(self._bounds)
        spread.add(value)

    def items(self) -> list[tuple[K, Spread]]:
        """Those there are, at this moment."""
        return list(self._by_kind.items())


class Tally(Generic[K]):
    """How often each of several kinds was, which are few."""

    def __init__(self) -> None:
        self._by_kind: dict[K, int] = {}

    def add(self, kind: K, many: int = 1) -> None:
        """So many more of a kind."""
        self._by_kind[kind] = self._by_kind.get(kind, 0) + many

    def items(self) -> list[tuple[K, int]]:
        """Those there are, at this moment."""
        return list(self._by_kind.items())


@dataclass(frozen=True, slots=True)
class Reading:
    """One number as it is at this moment, with what it says. A name that ends in `_total` only ever grows."""

    name: str
    help: str
    value: "float | Spread"
    labels: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Metered(Protocol):
    """A part that has numbers to show."""

    def readings(self) -> Iterable[Reading]:
        """All of them. It is asked from another thread, so it only reads."""
        ...
