"""What a contract suite must be told of an adapter: how to open it, and what only its technology can do to it."""

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from rookery.domain.ids import TweetId
from rookery.ports.cache import Cache
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store

OpenStore = Callable[[Path], AbstractAsyncContextManager[Store]]
"""Opens the store that belongs to a folder, made when it is not there; leaving closes it and all it stands on."""


class Part(Enum):
    """What of a ranked tweet is damaged."""

    COUNT = "count"
    INITIAL = "initial"
    PARENT = "parent"
    LIVE = "live"
    ALL = "all"
    """The tweet is forgotten."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What went wrong with one tweet in the ranking, behind its back. `value` is what the part becomes."""

    tweet: TweetId
    part: Part
    value: int | bytes | None = None


@dataclass(frozen=True, slots=True)
class RankingPlace:
    """A ranking that belongs to a folder, as for `OpenStore`, and how to damage it while it is open."""

    open: Callable[[Path], AbstractAsyncContextManager[Ranking]]
    damage: Callable[[Path, Sequence[Damage]], None]


@dataclass(frozen=True, slots=True)
class OpenCache:
    """An empty cache, and how its time passes (seconds): by its injected clock, or by waiting where it has none."""

    cache: Cache
    pass_time: Callable[[float], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True)
class CachePlace:
    """An empty cache with room for all that a test puts there."""

    open: Callable[[], AbstractAsyncContextManager[OpenCache]]
