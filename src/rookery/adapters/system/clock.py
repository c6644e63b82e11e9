"""The machine's clock and random source."""

import secrets
import time

from uuid_utils import uuid7

from rookery.domain.ids import TweetId, UserId


class SystemClock:
    """Implements `ports.clock.Clock`."""

    def __init__(self) -> None:
        self._last = bytes(16)

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def new_user_id(self) -> UserId:
        return UserId(self._ascending())

    def new_tweet_id(self) -> TweetId:
        return TweetId(self._ascending())

    def random(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def _ascending(self) -> bytes:
        # The library ascends within a millisecond; that it also does when the wall clock is set back is ours to see to.
        fresh = uuid7().bytes
        if fresh <= self._last:
            fresh = (int.from_bytes(self._last, "big") + 1).to_bytes(16, "big")
        self._last = fresh
        return fresh
