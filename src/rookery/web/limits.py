"""Rate limits: so many requests a minute by token and by address, and so many passwords and registrations."""

from collections.abc import Callable
from dataclasses import dataclass

from rookery.domain.errors import TooMany
from rookery.web.counters import HOUR, MINUTE, Counters
from rookery.web.options import RateLimits

NETWORK_PASSWORDS = 4
"""So many times the passwords that one address may try are for all addresses of its network."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Where a caller stands in the present window, a minute or an hour."""

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
    """Counts requests in fixed windows, together with all workers that share its counters."""

    def __init__(self, monotonic: Callable[[], float], counters: Counters | None = None) -> None:
        self._monotonic = monotonic  # one clock for all processes of a machine
        self._counters = counters or Counters()

    def count(self, caller: bytes | str, limit: int, seconds: int = MINUTE) -> Allowance:
        """One more request of a caller."""
        now = self._monotonic()
        key = caller.encode() if isinstance(caller, str) else caller
        used = self._counters.add(key, seconds, int(now // seconds))
        return Allowance(limit, max(limit - used, -1), seconds - int(now % seconds))


@dataclass(frozen=True, slots=True)
class Meter:
    """Counts what one request costs besides itself. `note` hears of the allowance that was used up."""

    limiter: Limiter
    limits: RateLimits
    address: str
    network: str
    note: Callable[[Allowance], None]

    def count_password(self, most: int) -> None:
        """One more password to be hashed; `most` a minute from one address, a few times that from its network.

        Raises:
            TooMany: `rate_limited`.
        """
        self._require(f"passwords/{most} {self.address}", most, MINUTE)
        self._require(f"passwords/{most} of {self.network}", most * NETWORK_PASSWORDS, MINUTE)

    def count_registration(self) -> None:
        """One more registration from this network.

        Raises:
            TooMany: `rate_limited`.
        """
        self._require(f"registrations {self.network}", self.limits.registrations, HOUR)

    def _require(self, key: str, limit: int, seconds: int) -> None:
        allowance = self.limiter.count(key, limit, seconds)
        if allowance.remaining < 0:
            self.note(allowance)
        allowance.require()
