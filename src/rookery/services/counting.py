"""Telling the ranking of a write before the write is answered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.domain.tweets import TweetRecord

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""How long a write waits for a ranking that does not answer. By then every other process has met that, too: each looks
once a second, and vouches for the counts no more. A ranking that was only slow is told, and no count is too low."""
_PAUSE_SECONDS = 0.1
_ONE_ABSENCE_SECONDS = 3.0
"""Failures that are so far apart are of two absences."""


@dataclass(slots=True)
class Counting:
    """Tells the ranking, if it can be told. Tweets go on without it: what is promised is told later."""

    _away_since: float = field(default=0.0)
    """When the ranking began not to answer, by the event loop's clock."""
    _failed_at: float = field(default=float("-inf"))

    async def tell(self, count: Callable[[TweetRecord], Awaitable[None]], tweet: TweetRecord) -> bool:
        """Whether the ranking was told of a tweet that was written or deleted.

        While it does not answer, a write that changes counts is held back until nobody shows them any more.
        """
        while True:
            try:
                await count(tweet)
            except Unavailable:
                if not self._is_worth_waiting(tweet):
                    _log.warning("the ranking missed a count")
                    return False
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self._failed_at = float("-inf")
                return True

    def _is_worth_waiting(self, tweet: TweetRecord) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._failed_at > _ONE_ABSENCE_SECONDS:
            self._away_since = now
        self._failed_at = now
        changes_counts = tweet.retweet is not None or tweet.initial > 0
        return changes_counts and now - self._away_since < PATIENCE_SECONDS
