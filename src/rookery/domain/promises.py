"""Promises: what a write owes to caches and ranking, written down with it, so that a crash between loses nothing."""

from dataclasses import dataclass
from enum import IntEnum


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
