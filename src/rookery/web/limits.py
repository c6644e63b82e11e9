"""Rate limits: so many requests a minute for each token, and for each address that comes without."""

from collections.abc import Callable
from dataclasses import dataclass

from rookery.domain.errors import TooMany

WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """Where a caller stands in the present minute."""

    limit: int
    remaining: int
    """How many more; below 0 when this one was too many."""
    reset: int
    """Seconds until it begins anew."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The `RateLimit-*` headers (draft-ietf-httpapi-ratelimit-headers, in its widely read form)."""
        return [
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % max(self.remaining, 0)),
            (b"ratelimit-reset", b"%d" % self.reset),
        ]

    def require(self) -> None:
        """Refuse who has used it up.

        Raises:
            TooMany: `rate_limited`.
        """
        if self.remaining < 0:
            raise TooMany("rate_limited", "Too many requests; slow down.", retry_after=self.reset)


class Limiter:
    """Counts requests in windows of a minute. It forgets all with the window: a minute's callers bound it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._window = -1
        self._counts: dict[bytes | str, int] = {}

    def count(self, caller: bytes | str, limit: int) -> Allowance:
        """One more request of a caller."""
        now = self._monotonic()
        window = int(now // WINDOW_SECONDS)
        if window != self._window:
            self._window = window
            self._counts.clear()
        used = self._counts[caller] = self._counts.get(caller, 0) + 1
        return Allowance(limit, max(limit - used, -1), WINDOW_SECONDS - int(now % WINDOW_SECONDS))
