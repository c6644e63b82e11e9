"""Clocks that tests set."""

import random

from rookery.adapters.system import SystemClock
from rookery.domain.ids import TweetId, UserId, id_at
from rookery.ports.clock import Clock


class HandClock(Clock):
    """A clock that a test moves. Each id takes a millisecond of its own."""

    def __init__(self, seed: int = 0, start: int = 1_700_000_000_000) -> None:
        self.millis = start
        self.set_by = 0
        """Milliseconds by which the wall clock was set: below 0, back."""
        self._random = random.Random(seed)

    def now(self) -> int:
        return self.millis + self.set_by

    def monotonic(self) -> float:
        return self.millis / 1000

    def new_user_id(self) -> UserId:
        return UserId(self._next())

    def new_tweet_id(self) -> TweetId:
        return TweetId(self._next())

    def latest(self) -> int:
        return self.millis

    def begin_above(self, millis: int) -> None:
        self.millis = max(self.millis, millis)

    def random(self, size: int) -> bytes:
        return self._random.randbytes(size)

    def _next(self) -> bytes:
        self.millis += 1
        return id_at(self.millis, self._random.randbytes(10))


class ShiftedClock(SystemClock):
    """The machine's clock, so many milliseconds ahead or, below 0, behind. Its ids are too."""

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.ahead = ahead
        self._passed = 0

    def pass_seconds(self, seconds: int) -> None:
        """So much time passes; to set `ahead` is to set the clock."""
        self.ahead += seconds * 1000
        self._passed += seconds

    def monotonic(self) -> float:
        return super().monotonic() + self._passed

    def now(self) -> int:
        return super().now() + self.ahead
