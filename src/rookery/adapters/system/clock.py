"""The machine's clock and random source."""

import secrets
import time

from rookery.domain.ids import TweetId, UserId, id_at

_CATCHING_UP = 0.5
"""How fast the time in ids goes, against real time, until a wall clock that was set back has caught up with it."""


class SystemClock:
    """Implements `ports.clock.Clock`."""

    def __init__(self) -> None:
        self._last = bytes(16)
        self._id_millis = 0.0
        """The time in the newest id."""
        self._drawn_at = 0.0
        """When that was, by the monotonic clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def new_user_id(self) -> UserId:
        return UserId(self._ascending())

    def new_tweet_id(self) -> TweetId:
        return TweetId(self._ascending())

    def latest(self) -> int:
        return int(self._id_millis)

    def begin_above(self, millis: int) -> None:
        self._id_millis, self._drawn_at = max(self._id_millis, float(millis + 1)), self.monotonic()

    def random(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def _ascending(self) -> bytes:
        monotonic = self.monotonic()
        least = self._id_millis + (monotonic - self._drawn_at) * 1_000 * _CATCHING_UP if self._id_millis else 0.0
        self._id_millis, self._drawn_at = max(float(self.now()), least), monotonic
        fresh = id_at(int(self._id_millis), self.random(10))
        if fresh <= self._last:  # of the same millisecond
            fresh = (int.from_bytes(self._last, "big") + 1).to_bytes(16, "big")
        self._last = fresh
        return fresh
