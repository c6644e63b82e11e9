"""Telling the ranking of a write before the write is answered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rookery.domain.errors import Unavailable
from rookery.domain.tweets import TweetRecord

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""How long a write waits, from the first failure on, for a ranking that does not answer."""
MET_SECONDS = 3.5
"""After so long an absence every process has met it: each looks once a second, waits a second for the answer, and
vouches for the counts no more."""
_PAUSE_SECONDS = 0.1

Count = Callable[[TweetRecord], Awaitable[None]]


@dataclass(slots=True)
class Counting:
    """Tells the ranking, if it can be told. Tweets go on without it: what is promised is told later."""

    _answered_at: float = float("-inf")
    """When the ranking was last known to answer, by the event loop's clock."""

    def answered(self) -> None:
        """Note that the ranking answers: others may show counts."""
        self._answered_at = asyncio.get_running_loop().time()

    async def tell(self, count: Count, tweet: TweetRecord) -> bool:
        """Whether the ranking was told of a tweet that was written or deleted. It is tried once."""
        try:
            await count(tweet)
        except Unavailable:
            _log.warning("the ranking missed a count")
            return False
        return True

    async def tell_late(self, count: Count, tweet: TweetRecord) -> bool:
        """The same after it could not be told: again and again, while other processes may show counts without it.

        A ranking that was only slow is told, so that no count is too low when the write is answered. One that is away
        is waited for until `PATIENCE_SECONDS`, or no longer than until its absence is as old as `MET_SECONDS`.
        """
        if tweet.retweet is None and not tweet.initial:
            return False  # it changes no count
        clock = asyncio.get_running_loop().time
        until = clock() + PATIENCE_SECONDS
        while clock() < min(until, self._answered_at + MET_SECONDS):
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                await count(tweet)
            except Unavailable:
                continue
            return True
        return False
