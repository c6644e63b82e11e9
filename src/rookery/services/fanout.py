"""Fan-out on write: a posted tweet is put into the resident timelines of its author's followers, and into his tail.

Followers are walked in slices, and authors take turns slice by slice, so that no one author holds up the rest. Authors
with very many followers are pulled by readers instead; how one comes to that and back is told in docs/adr/0004.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import entry
from rookery.domain.users import FanoutState
from rookery.ports.cache import Cache
from rookery.ports.clock import Clock
from rookery.ports.store import FanoutChange, Store
from rookery.services.filling import DAY_SECONDS, HOUR_SECONDS, TAIL, TIMELINE

_log = logging.getLogger(__name__)

SLICE = 1_000
MAX_WAITING = 1_000
"""Fan-outs under way before posting waits for them: the backlog has this bound."""
ANSWER_SECONDS = 0.05
"""How long an answer waits for its own fan-out, so that most authors' followers see a tweet when he does."""
_RETRY_SECONDS = 1.0
_SLACK_MILLIS = 60_000
"""Longer than any post takes from reading its author's state to its last prepend, and than clocks differ."""
RISE_MILLIS = HOUR_SECONDS * 1000 + _SLACK_MILLIS
"""Until no cached exceptions are left that don't know the author as pulled."""
FALL_MILLIS = (DAY_SECONDS + HOUR_SECONDS) * 1000 + _SLACK_MILLIS
"""Until no timeline is left that was filled while the author was not pushed."""


@dataclass(slots=True, eq=False)
class _Delivery:
    """One tweet on its way to the followers, and how far it is."""

    author: UserId
    item: bytes
    state: FanoutState
    position: UserId | None = None
    walked: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Fanout:
    """Delivers tweets. `threshold` is the number of followers above which an author is pulled; None pushes all."""

    def __init__(self, store: Store, cache: Cache, clock: Clock, threshold: int | None) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._threshold = threshold
        self._waiting: deque[_Delivery] = deque()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def backlog(self) -> int:
        """Deliveries not finished."""
        return len(self._waiting)

    async def admit(self) -> None:
        """Wait until there is room for one more delivery: this is where posting slows down."""
        await self._room.wait()

    async def deliver(self, tweet: TweetId, author: UserId, state: FanoutState) -> None:
        """Put a stored tweet into its author's tail and his followers' timelines; returns after 50 ms at the latest.

        `state` is the author's as it was before the tweet was written.
        """
        item = entry(tweet, author)
        await self._cache.prepend(TAIL, [author], item)
        if state is FanoutState.PULLED:
            return
        delivery = _Delivery(author, item, state)
        if await self._try_slice(delivery):
            return
        self._waiting.append(delivery)
        self._signal()
        try:
            await asyncio.wait_for(delivery.done.wait(), ANSWER_SECONDS)
        except TimeoutError:
            return  # the worker goes on with it

    async def run(self) -> None:
        """Work off deliveries until cancelled."""
        while True:
            await self._work.wait()
            delivery = self._waiting[0]
            try:
                finished = await self._try_slice(delivery)
            except Exception:  # noqa: BLE001 - one tweet's mistake must not end all fan-out
                _log.exception("a fan-out failed; it is tried again")
                await asyncio.sleep(_RETRY_SECONDS)
                finished = False
            if finished:
                self._waiting.popleft()
            else:
                self._waiting.rotate(-1)
            self._signal()
            await asyncio.sleep(0)

    async def drain(self) -> None:
        """Return when no delivery waits."""
        while self._waiting:
            await self._waiting[-1].done.wait()

    async def review(self) -> None:
        """Move authors on their way between push and pull on, where their time has come."""
        now = self._clock.now()
        for change in await self._store.fanout_changes():
            new = await self._next_state(change, now)
            if new is not change.state:
                await self._store.set_fanout(change.author, change.state, new, now)

    async def _next_state(self, change: FanoutChange, now: int) -> FanoutState:
        wanted = await self._belongs_pulled(change.author)
        age = now - change.since
        match change.state:
            case FanoutState.RISING if not wanted:
                return FanoutState.PUSHED  # he was pushed all the while
            case FanoutState.RISING if age >= RISE_MILLIS:
                return FanoutState.PULLED
            case FanoutState.PULLED if not wanted:
                return FanoutState.FALLING
            case FanoutState.FALLING if age >= FALL_MILLIS:
                return FanoutState.RISING if wanted else FanoutState.PUSHED
        return change.state

    async def _belongs_pulled(self, author: UserId) -> bool:
        """With hysteresis: up at the threshold (seen by `_slice`), down at half of it."""
        if self._threshold is None:
            return False
        counts = await self._store.user_counts(author)
        return 2 * counts.followers >= self._threshold

    async def _try_slice(self, delivery: _Delivery) -> bool:
        """Deliver to the next followers; True when there are no more. A store that can't be read is tried again."""
        try:
            return await self._slice(delivery)
        except Unavailable:
            _log.warning("fan-out waits for the store")
            await asyncio.sleep(_RETRY_SECONDS)
            return False

    async def _slice(self, delivery: _Delivery) -> bool:
        followers = await self._store.followers(delivery.author, delivery.position, SLICE)
        await self._cache.prepend(TIMELINE, followers, delivery.item)
        delivery.walked += len(followers)
        if len(followers) == SLICE:
            delivery.position = followers[-1]
            return False
        if self._threshold is not None and delivery.walked >= self._threshold and delivery.state is FanoutState.PUSHED:
            await self._store.set_fanout(delivery.author, FanoutState.PUSHED, FanoutState.RISING, self._clock.now())
        delivery.done.set()
        return True

    def _signal(self) -> None:
        (self._work.set if self._waiting else self._work.clear)()
        (self._room.set if len(self._waiting) < MAX_WAITING else self._room.clear)()
