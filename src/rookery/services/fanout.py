"""Fan-out on write: a posted tweet is put into the resident timelines of its author's followers, and into his tail.

Followers are walked in slices, and authors take turns slice by slice, so that no one author holds up the rest. Authors
with very many followers are pulled by readers instead; how one comes to that and back is told in docs/adr/0004.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.promises import Promise
from rookery.domain.tallies import SECONDS, Reading, Spread
from rookery.domain.timeline import entry
from rookery.domain.users import FanoutState
from rookery.ports.cache import Cache
from rookery.ports.clock import Clock
from rookery.ports.store import FanoutChange, Store
from rookery.services.filling import DAY_SECONDS, HOUR_SECONDS, SLACK_SECONDS, TAIL, TIMELINE
from rookery.services.places import Places
from rookery.services.promises import Promises

_log = logging.getLogger(__name__)

SLICE = 1_000
MAX_WAITING = 1_000
"""Fan-outs under way before posting waits for them: the backlog has this bound."""
AUTHOR_AT_ONCE = 50
"""Fan-outs of one author under way; further posts wait behind the author's own."""
AUTHOR_WAITING = 200
"""Posts of one author that wait for a place; more are refused at once."""
ADMIT_SECONDS = 5.0
"""How long a post waits for its place among them before it is refused."""
AT_ONCE = 16
"""Slices under way together: where a cache does not answer each takes a second or two."""
ANSWER_SECONDS = 0.05
"""How long an answer waits for its own fan-out, so that most authors' followers see a tweet when he does."""
TURN_FOLLOWERS = 2_000
"""Followers walked until all else that waits for the event loop has had its turn: one to two milliseconds of CPU."""
_RETRY_SECONDS = 1.0
_MOST_RETRY_SECONDS = 60.0
_MOST_DOUBLED = 10
"""Times that such a pause is doubled; a float has no room for a thousand."""
_AWAY_SECONDS = 0.5
"""Seconds until a delivery that the store did not answer is tried again. While it is away one tries for all; and it is
away when it answered no slice for so long, and not the last three."""
_MOST_AWAY_SECONDS = 2.0
"""The longest pause of such a delivery while others are answered: a part of the store may be away."""
_AWAY_AFTER = 3
_AT_ONCE_AGAIN = 8
"""Of the slices under way together, those that may be tries of deliveries that failed before."""
_DELAYS = (*SECONDS, 30.0, 60.0)
_LOOK_SECONDS = 0.05
"""How often to look whether something is due, while all that waits is to be tried again later."""
RISE_SECONDS = HOUR_SECONDS + SLACK_SECONDS
"""Until no cached exceptions are left that don't know the author as pulled."""
FALL_SECONDS = DAY_SECONDS + HOUR_SECONDS + SLACK_SECONDS
"""Until no timeline is left that was filled while the author was not pushed."""
_STEP_SECONDS = 1.0
"""How far the wall clock must be behind its course since the last review to count as set back."""


@dataclass(slots=True, eq=False)
class _Delivery:
    """One tweet on its way to the followers, and how far it is."""

    author: UserId
    item: bytes
    state: FanoutState
    promise: Promise | None
    begun: float
    in_tail: bool = False
    position: UserId | None = None
    walked: int = 0
    failures: int = 0
    due: float = 0.0
    """When to try again, by the monotonic clock."""
    tried: float = 0.0
    """When it was tried last."""
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Fanout:
    """Delivers tweets. `threshold` is the number of followers above which an author is pulled; None pushes all."""

    def __init__(self, store: Store, cache: Cache, clock: Clock, promises: Promises, threshold: int | None) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._promises = promises
        self._threshold = threshold
        self._unfinished: dict[_Delivery, None] = {}
        """What its post did not wait for, in the order in which it came."""
        self._waiting: OrderedDict[UserId, deque[_Delivery]] = OrderedDict()
        """Those of them that nobody is at work on, by authors, in the order of their turns."""
        self._walked_now = 0
        """Followers that were walked in this turn of the event loop."""
        self._behind: deque[asyncio.Future[None]] = deque()
        """Slices for a later turn."""
        self._unanswered = 0
        """Slices in a row for which the store was away."""
        self._answered_at = 0.0
        """When it answered one last, by the monotonic clock."""
        self._again = 0
        """Tries under way of deliveries that failed before."""
        self._probe_at = 0.0
        """While it is away: when the next delivery tries whether it is back, by the monotonic clock."""
        self._seen_at: dict[FanoutChange, float] = {}
        """When this process first saw each change that is not completed, by the monotonic clock."""
        self._ahead = float("-inf")
        """By how many seconds the wall clock was ahead of the monotonic one at the last review."""
        self._under_way: dict[bytes, int] = {}
        self._work = asyncio.Event()
        self._places = Places(MAX_WAITING, AUTHOR_AT_ONCE, AUTHOR_WAITING, ADMIT_SECONDS)
        self._took = Spread(_DELAYS)

    @property
    def backlog(self) -> int:
        """Deliveries not finished."""
        return len(self._unfinished)

    def readings(self) -> Iterable[Reading]:
        """How much waits, and how long it took."""
        yield Reading("fanout_backlog", "Tweets on their way to followers, whose posts are answered.", self.backlog)
        yield Reading("fanout_places_taken", f"Posts and deliveries under way, of {MAX_WAITING}.", self._places.taken)
        yield Reading("fanout_seconds", "From a tweet's write until all followers had it.", self._took)

    async def admit(self, author: UserId) -> None:
        """Take a place for one more delivery, waiting while there is none: this is where posting slows down.

        `deliver` gives it back when all is delivered, `withdraw` if there is nothing to deliver.

        Raises:
            Unavailable: `busy`, after five seconds, or at once where 200 posts of this author wait already.
        """
        await self._places.wait_and_take(author)

    def admit_if_idle(self, author: UserId) -> bool:
        """As `admit`, without waiting, if most places are free.

        For the deliveries of other processes: one that is busy itself would only take them from those at work on them.
        """
        if 4 * self._places.taken >= MAX_WAITING or not self._places.is_free_for(author):
            return False
        self._places.take(author)
        return True

    def withdraw(self, author: UserId) -> None:
        """Give an admitted delivery's place back."""
        self._places.give_back(author)

    async def deliver(self, tweet: TweetId, author: UserId, state: FanoutState, promise: Promise | None = None) -> None:
        """Put a stored tweet, which was admitted, into its author's tail and his followers' timelines.

        The first thousand followers have it when this returns, and as many more as 50 ms suffice for; the worker goes
        on with the rest, and with what failed. `state` is the author's as it was before the tweet was written. The
        promise is kept with the last of it.
        """
        delivery = _Delivery(author, entry(tweet, author), state, promise, self._clock.monotonic())
        self._under_way[delivery.item] = self._under_way.get(delivery.item, 0) + 1
        try:
            finished = await self._try_slice(delivery)
        except BaseException:  # cancelled
            self._leave(delivery)
            raise
        if finished:
            self._leave(delivery)
            return
        self._unfinished[delivery] = None
        self._hand_over(delivery)
        if delivery.failures:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await delivery.done.wait()

    def is_under_way(self, tweet: TweetId, author: UserId) -> bool:
        """Whether this process is still bringing a tweet to its author's followers."""
        return entry(tweet, author) in self._under_way

    async def run(self) -> None:
        """Work off deliveries, slice by slice, until cancelled."""
        hands = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                await hands.acquire()
                group.create_task(self._work_on(await self._next(), hands))
                await asyncio.sleep(0)  # what waits for nothing is done before the next is begun

    async def drain(self) -> None:
        """Return when no delivery waits."""
        while self._unfinished:
            await next(reversed(self._unfinished)).done.wait()

    async def review(self) -> None:
        """Move authors on their way between push and pull on, where their time has come.

        It counts from when this process first saw a change, by the monotonic clock: whatever the wall clock does
        meanwhile, and however long ago another process made it.
        """
        now, here = self._clock.now(), self._clock.monotonic()
        if self._was_set_back(now / 1000 - here):
            self._seen_at.clear()  # values in the cache look younger than they are, and so stay longer
        changes = await self._store.fanout_changes()
        self._seen_at = seen_at = {change: self._seen_at.get(change, here) for change in changes}
        for change in changes:
            new = await self._next_state(change, here - seen_at[change])
            if new is not change.state:
                await self._set_state(change.author, change.state, new)

    def _was_set_back(self, ahead: float) -> bool:
        """Whether the wall clock was set back since the last review; `ahead` is its lead over the monotonic one."""
        before, self._ahead = self._ahead, ahead
        return ahead < before - _STEP_SECONDS

    async def _set_state(self, author: UserId, old: FanoutState, new: FanoutState) -> None:
        now = self._clock.now()
        if await self._store.set_fanout(author, old, new, now):
            self._seen_at[FanoutChange(author, new, now)] = self._clock.monotonic()

    async def _next_state(self, change: FanoutChange, age: float) -> FanoutState:
        wanted = await self._belongs_pulled(change.author)
        match change.state:
            case FanoutState.RISING if not wanted:
                return FanoutState.PUSHED  # he was pushed all the while
            case FanoutState.RISING if age >= RISE_SECONDS:
                return FanoutState.PULLED
            case FanoutState.PULLED if not wanted:
                return FanoutState.FALLING
            case FanoutState.FALLING if age >= FALL_SECONDS:
                return FanoutState.RISING if wanted else FanoutState.PUSHED
        return change.state

    async def _belongs_pulled(self, author: UserId) -> bool:
        """With hysteresis: up at the threshold (seen by `_slice`), down at half of it."""
        return self._threshold is not None and await self._store.has_followers(author, (self._threshold + 1) // 2)

    def _hand_over(self, delivery: _Delivery) -> None:
        queue = self._waiting.setdefault(delivery.author, deque())
        queue.append(delivery)
        self._work.set()

    async def _next(self) -> _Delivery:
        """Take the first delivery that is due, when there is one. Authors take turns, slice by slice."""
        while True:
            delivery = self._take_probe() if self._is_away() else self._take_due()
            if delivery is not None:
                return delivery
            self._work.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if self._waiting else None):
                    await self._work.wait()

    def _is_away(self) -> bool:
        is_late = self._clock.monotonic() - self._answered_at >= _AWAY_SECONDS
        return is_late and self._unanswered >= _AWAY_AFTER

    def _take_due(self) -> _Delivery | None:
        now, may_again = self._clock.monotonic(), self._again < _AT_ONCE_AGAIN
        for _ in range(len(self._waiting)):
            author = next(iter(self._waiting))
            self._waiting.move_to_end(author)
            waiting = self._waiting[author]
            due = next((one for one in waiting if one.due <= now and (may_again or not one.failures)), None)
            if due is not None:
                return self._taken_out(due)
        return None

    def _take_probe(self) -> _Delivery | None:
        """While the store is away: the delivery that was tried longest ago or never, when it is time to try one."""
        now = self._clock.monotonic()
        if not self._waiting or now < self._probe_at:
            return None
        self._probe_at = now + _AWAY_SECONDS
        return self._taken_out(min((queue[0] for queue in self._waiting.values()), key=lambda one: one.tried))

    def _taken_out(self, delivery: _Delivery) -> _Delivery:
        queue = self._waiting[delivery.author]
        queue.remove(delivery)
        if not queue:
            del self._waiting[delivery.author]
        return delivery

    def _go_on(self) -> None:
        """The store is back: all that waited for it is due, the oldest first."""
        for author in sorted(self._waiting, key=lambda author: _age(self._waiting[author][0])):
            self._waiting.move_to_end(author)
            self._waiting[author] = deque(sorted(self._waiting[author], key=_age))
            for delivery in self._waiting[author]:
                delivery.due = 0.0
        self._work.set()

    async def _work_on(self, delivery: _Delivery, hands: asyncio.Semaphore) -> None:
        finished, is_again = False, delivery.failures > 0
        self._again += is_again
        try:
            finished = await self._try_slice(delivery)
        finally:
            self._again -= is_again
            self._work.set()  # another that failed before may be tried in its place
            if finished:
                del self._unfinished[delivery]
                self._leave(delivery)
            else:
                self._hand_over(delivery)
            hands.release()

    async def _try_slice(self, delivery: _Delivery) -> bool:
        """Deliver to the next followers; True when there are no more. What fails is tried again, ever more rarely."""
        delivery.tried = self._clock.monotonic()
        try:
            finished = await self._slice(delivery)
        except Exception as error:  # noqa: BLE001 - one tweet's mistake must not end all fan-out
            if isinstance(error, Unavailable):
                _log.warning("a fan-out waits for the store")
                self._unanswered += 1
                wait = min(_AWAY_SECONDS * 2 ** min(delivery.failures, _MOST_DOUBLED), _MOST_AWAY_SECONDS)
            else:
                _log.exception("a fan-out failed; it is tried again")
                wait = min(_RETRY_SECONDS * 2 ** min(delivery.failures, _MOST_DOUBLED), _MOST_RETRY_SECONDS)
            delivery.failures += 1
            delivery.due = self._clock.monotonic() + wait
            return False
        delivery.failures = 0
        was_away, self._unanswered = self._is_away(), 0
        self._answered_at = self._clock.monotonic()
        if was_away:
            self._go_on()
        return finished

    async def _slice(self, delivery: _Delivery) -> bool:
        if not delivery.in_tail:
            await self._cache.prepend(TAIL, [delivery.author], delivery.item)
            delivery.in_tail = True
        if delivery.state is FanoutState.PULLED:
            self._promises.keep(delivery.promise)
            return True
        await self._turn()
        followers = await self._store.followers(delivery.author, delivery.position, SLICE)
        await self._cache.prepend(TIMELINE, followers, delivery.item)
        self._note_walk(len(followers))
        delivery.walked += len(followers)
        if len(followers) == SLICE:
            delivery.position = followers[-1]
            return False
        if self._threshold is not None and delivery.walked >= self._threshold and delivery.state is FanoutState.PUSHED:
            await self._set_state(delivery.author, FanoutState.PUSHED, FanoutState.RISING)
        self._promises.keep(delivery.promise)
        return True

    def _note_walk(self, followers: int) -> None:
        if not self._walked_now and not self._behind:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._walked_now += followers + 1

    async def _turn(self) -> None:
        """Wait until a slice may be walked. The posts of one commit come back together: all would go on at once."""
        if self._walked_now >= TURN_FOLLOWERS or self._behind:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._behind.append(turn)
            await turn

    def _begin_turn(self) -> None:
        self._walked_now = 0
        for _ in range(min(len(self._behind), TURN_FOLLOWERS // SLICE)):
            turn = self._behind.popleft()
            if not turn.done():  # else its request has ended
                turn.set_result(None)
        if self._behind:
            asyncio.get_running_loop().call_soon(self._begin_turn)

    def _leave(self, delivery: _Delivery) -> None:
        left = self._under_way.pop(delivery.item) - 1
        if left:
            self._under_way[delivery.item] = left
        self.withdraw(delivery.author)
        self._took.add(self._clock.monotonic() - delivery.begun)
        delivery.done.set()


def _age(delivery: _Delivery) -> float:
    return delivery.begun
