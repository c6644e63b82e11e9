"""Promises: what a write owes to caches and ranking, written down with it, so that a crash between loses nothing."""

from dataclasses import dataclass
from enum import IntEnum

from rookery.domain.ids import id_at


class Work(IntEnum):
    """What is to be done about a subject. Each can be done twice."""

    POST = 1
    """A tweet is to be counted and brought to its author's followers."""
    DELETE = 2
    """A tweet is to be dropped from the cache and taken back along its chain."""
    FOLLOWS = 3
    """What is cached of a user's followees is to be dropped."""
    USER = 4
    """What is cached of a user is to be dropped."""


COUNTED = frozenset({Work.POST, Work.DELETE})
"""What the ranking is told of."""


AHEAD_MILLIS = 5_000
"""How far ahead of the clock an id is of a time when that was wrong: the clocks of servers differ by less."""
MOST_AHEAD_MILLIS = 25 * 60 * 60 * 1000
"""How far ahead of the clock such ids are looked for."""


def made_ahead(now: int) -> tuple[int, bytes]:
    """Between what to look for promises that were made while the clock was ahead: a time, and the id behind which.

    Nobody else would come to them until the clock is there again. `now` in milliseconds since 1970.
    """
    return now + MOST_AHEAD_MILLIS, id_at(now + AHEAD_MILLIS, b"\xff" * 10)


@dataclass(frozen=True, slots=True)
class ToldRun:
    """A run of the ranking that was told all that is to be counted. Times are milliseconds since 1970."""

    run: bytes
    at: int
    """When it answered last."""
    begun: int
    """When it was told what the run before it had been told last."""
    since: int
    """From when on it was told then."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Work that was promised. The id is a UUIDv7 of when."""

    id: bytes
    work: Work
    subject: bytes
    """A user's or tweet's id."""
