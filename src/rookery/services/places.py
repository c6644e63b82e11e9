"""Places shared out fairly: each owner has a share, and owners who wait take turns."""

import asyncio
from collections import Counter, OrderedDict, deque

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId


class Places:
    """So many places for all, of which one owner has `share` at most.

    Of one owner `queue` may wait, each for so many `seconds`. A free place goes to the owner who has waited for a turn
    longest, and among an owner's own to the one who came first.
    """

    def __init__(self, total: int, share: int, queue: int, seconds: float) -> None:
        self._total = total
        self._share = share
        self._queue = queue
        self._seconds = seconds
        self.taken = 0
        self._taken_by: Counter[UserId] = Counter()
        self._waiting: dict[UserId, deque[asyncio.Future[None]]] = {}
        self._turns: OrderedDict[UserId, None] = OrderedDict()
        """Owners who wait and have a part of their share left, the next one first."""

    def is_free_for(self, owner: UserId) -> bool:
        """Whether a place can be had at once."""
        return self.taken < self._total and self._taken_by[owner] < self._share and owner not in self._waiting

    def take(self, owner: UserId) -> None:
        """Take a place that `is_free_for` this owner."""
        self.taken += 1
        self._taken_by[owner] += 1

    async def wait_and_take(self, owner: UserId) -> None:
        """Take a place as soon as it is the owner's turn.

        Raises:
            Unavailable: `busy`, after the seconds, or at once where too many of this owner's wait.
        """
        if self.is_free_for(owner):
            self.take(owner)
            return
        queue = self._waiting.get(owner, deque())
        if len(queue) >= self._queue:
            raise _busy()
        self._waiting[owner] = queue
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._line_up(owner)
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # it was the owner's turn in this very moment
                self.give_back(owner)
            else:
                self._leave(owner, turn)
            if isinstance(error, TimeoutError):
                raise _busy() from None
            raise

    def give_back(self, owner: UserId) -> None:
        """Give a place to whoever's turn it is."""
        self.taken -= 1
        self._taken_by[owner] -= 1
        if not self._taken_by[owner]:
            del self._taken_by[owner]
        self._line_up(owner)
        while self._turns and self.taken < self._total:
            following, _ = self._turns.popitem(last=False)
            queue = self._waiting[following]
            turn = queue.popleft()
            if not queue:
                del self._waiting[following]
            if not turn.cancelled():  # else its request has ended, and does not know yet
                self.take(following)
                turn.set_result(None)
            self._line_up(following)

    def _line_up(self, owner: UserId) -> None:
        if owner in self._waiting and self._taken_by[owner] < self._share:
            self._turns.setdefault(owner)

    def _leave(self, owner: UserId, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(owner)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del self._waiting[owner]
            self._turns.pop(owner, None)


def _busy() -> Unavailable:
    return Unavailable("busy", "Too many tweets are on their way; try again in a moment.")
