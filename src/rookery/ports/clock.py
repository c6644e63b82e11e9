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
        """A fresh UUIDv7. Ids of one process ascend, also within a millisecond and when the clock is set back.

        Their time is the wall clock's. When that is set back it goes on at half its speed until the clock has caught
        up, so that ids drawn meanwhile have times of their own.
        """
        ...

    def new_tweet_id(self) -> TweetId:
        """A fresh UUIDv7, as for users."""
        ...

    def latest(self) -> int:
        """The time in the newest id, in milliseconds since 1970; 0 before the first."""
        ...

    def begin_above(self, millis: int) -> None:
        """Let all further ids have a later time than this one, in milliseconds since 1970."""
        ...

    def random(self, size: int) -> bytes:
        """Bytes of a source fit for secrets."""
        ...
