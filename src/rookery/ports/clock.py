"""Time and chance, injected so that tests can set both."""

from typing import Protocol

from rookery.domain.ids import TweetId, UserId


class Clock(Protocol):
    """The time and every random value of the program."""

    def now(self) -> int:
        """Wall time in milliseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for timeouts and ages within this process."""
        ...

    def new_user_id(self) -> UserId:
        """A fresh UUIDv7. Ids of one process ascend, also within a millisecond and when the clock is set back."""
        ...

    def new_tweet_id(self) -> TweetId:
        """A fresh UUIDv7, as for users."""
        ...

    def random(self, size: int) -> bytes:
        """Bytes of a source fit for secrets."""
        ...
