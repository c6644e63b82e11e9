"""The queue of passwords that wait to be hashed: bounded, and fair by network and by account.

A hash takes a core for tens of milliseconds on purpose, so a few clients who guess passwords can ask for more hashes
than the machine computes. Then the order decides who gets in. A network that sent many passwords lately goes behind
those that did not; a client in a network where its account signed in before goes first among equals.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from rookery.domain.errors import Failure, TooMany, Unavailable
from rookery.domain.tallies import Reading, Tally
from rookery.ports.hasher import Hasher

T = TypeVar("T")

MOST_WAITING = 64
"""Passwords that may wait in a process. One more takes the place of the last in order, which is refused."""
MOST_OF_A_NETWORK = 16
"""Passwords of one network that may wait: the attackers in it exhaust their own share."""
LONGEST_WAIT = 10.0
"""Seconds that a password waits at most, so that its client is answered before a proxy gives up (HAProxy: 15)."""
HALF_LIFE = 300.0
"""Seconds in which half of a network's or an account's debt is forgiven."""
_RIGHT = 0.25
"""What a network and a pair still owe for a password that was right, where another one costs 1."""
_SHARE_OF_A_PAIR = 1 / 8
"""The part of its network's debt that a known pair owes at least, as attackers may have many accounts in a network."""
CROWDED = 16
"""Passwords that wait from which on the last who came goes first among equals: the first may have given up."""
_REMEMBERED = 10_000
"""Networks, accounts and pairs of both whose debts are remembered, each."""
_KNOWN = 20_000
"""Pairs of an account and a network where it signed in that are remembered."""


@dataclass(frozen=True, slots=True)
class Asker:
    """A client that needs a hash: the network it is in (an IPv4 /24, an IPv6 /48) and the key of its account's name."""

    network: str
    account: str
    is_new: bool = False
    """The hash is for a registration, which goes behind sign-ins of the same rank."""

    @property
    def pair(self) -> tuple[str, str]:
        """The account in this network: the nearest that a server knows to a device."""
        return self.account, self.network


class _Debts:
    """Passwords that each key asked for lately, halved each `HALF_LIFE`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._owed: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def of(self, key: Hashable) -> float:
        """The debt of a key now, in passwords."""
        owed, at = self._owed.get(key, (0.0, 0.0))
        return owed * 0.5 ** ((self._monotonic() - at) / HALF_LIFE) if owed else 0.0

    def add(self, key: Hashable, passwords: float) -> None:
        """Raise the debt of a key, or lower it, to nothing at least."""
        owed = max(self.of(key) + passwords, 0.0)
        self._owed[key] = (owed, self._monotonic())
        self._owed.move_to_end(key)
        if len(self._owed) > _REMEMBERED:
            self._owed.popitem(last=False)


Rank = tuple[int, int]
"""The debt of the network or pair when the password came, in powers of two; and the kind of the sign-in."""


@dataclass(slots=True, eq=False)
class _Waiting:
    asker: Asker
    rank: Rank
    arrival: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class HashingQueue:
    """Hashes and verifies passwords, as many at once as the `Hasher` computes; the rest wait in this order.

    First comes the network with the least debt, in powers of two: the passwords that it sent lately, and of the right
    ones a part. A network where the account signed in before counts by the pair's own debt, if that is less. Among
    equals known pairs go first, then other sign-ins, then registrations; then accounts with less debt; then the first
    who came, or the last while it is crowded.
    """

    def __init__(self, hasher: Hasher, monotonic: Callable[[], float]) -> None:
        self._hasher = hasher
        self._running = 0
        self._waiting: list[_Waiting] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._arrivals = count()
        self._networks, self._accounts, self._pairs = (_Debts(monotonic) for _ in range(3))
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._refused: Tally[str] = Tally()

    async def hash(self, asker: Asker, password: str) -> str:
        """A salted hash of a new password.

        Raises:
            Unavailable: `busy`, when too many wait or the wait was too long.
            TooMany: `rate_limited`, when too many of the same network wait.
        """

        async def work() -> str:
            return await self._hasher.hash(password)

        return await self._run(asker, work)

    async def verify(self, asker: Asker, hashed: str | None, password: str) -> bool:
        """Whether this is the password; takes as long for None.

        Raises:
            Unavailable, TooMany: as `hash`.
        """

        async def work() -> bool:
            is_right = await self._hasher.verify(hashed, password)
            if is_right:
                self._forgive(asker)
                self.know(asker)
            return is_right

        return await self._run(asker, work)

    def know(self, asker: Asker) -> None:
        """Remember that an account belongs into a network: it signed in or registered there."""
        self._known[asker.pair] = None
        self._known.move_to_end(asker.pair)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def readings(self) -> Iterable[Reading]:
        """How busy it is, and how many it refused."""
        places = self._hasher.at_once + MOST_WAITING
        taken = self._running + len(self._waiting)
        yield Reading("passwords_waiting", f"Passwords that are hashed or wait for it, of {places}.", taken)
        for why, many in self._refused.items():
            yield Reading("passwords_refused_total", "Passwords refused in the queue, by reason.", many, {"why": why})

    def _charge(self, asker: Asker) -> None:
        """Raise the debts for a password, also for one that is refused then: whoever asks often goes behind."""
        self._networks.add(asker.network, 1)
        if not asker.is_new:
            self._pairs.add(asker.pair, 1)
            self._accounts.add(asker.account, 1)

    def _forgive(self, asker: Asker) -> None:
        """Lower them again for a right password, but not to nothing for a network: attackers have accounts too."""
        self._networks.add(asker.network, _RIGHT - 1)
        self._pairs.add(asker.pair, _RIGHT - 1)
        self._accounts.add(asker.account, -1)

    def _rank(self, asker: Asker) -> Rank:
        debt = self._networks.of(asker.network)
        is_known = asker.pair in self._known
        if is_known:
            debt = min(debt, max(self._pairs.of(asker.pair), debt * _SHARE_OF_A_PAIR))
        kind = 0 if is_known else 1 + asker.is_new
        return _magnitude(debt), kind

    def _order(self, waiting: _Waiting) -> tuple[Rank, int, int]:
        """What orders those who wait, the next first. All of one account are alike: its user may be among them."""
        arrival = waiting.arrival if len(self._waiting) < CROWDED else -waiting.arrival
        return waiting.rank, _magnitude(self._accounts.of(waiting.asker.account)), arrival

    async def _run(self, asker: Asker, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work in the asker's turn. The place stays taken until it is done, also when the client gives up."""
        rank = self._rank(asker)
        self._charge(asker)
        await self._take_place(asker, rank)

        async def run() -> T:
            try:
                return await work()
            finally:
                self._pass_on()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _take_place(self, asker: Asker, rank: Rank) -> None:
        if self._running < self._hasher.at_once:
            self._running += 1
            return
        waiting = _Waiting(asker, rank, next(self._arrivals))
        self._make_room(waiting)
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                await waiting.turn
        except TimeoutError as error:
            self._give_up(waiting)
            self._refused.add("late")
            raise _busy() from error
        except BaseException:
            self._give_up(waiting)
            raise

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        elif waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.exception() is None:
            self._pass_on()  # its turn came in the moment in which it gave up

    def _make_room(self, newcomer: _Waiting) -> None:
        """Let one more wait, in the place of the last in order where all are taken.

        Raises:
            Unavailable, TooMany: when the newcomer itself is the last.
        """
        network = newcomer.asker.network
        neighbours = [waiting for waiting in self._waiting if waiting.asker.network == network]
        if len(neighbours) >= MOST_OF_A_NETWORK:
            self._refuse_last([*neighbours, newcomer], newcomer, "network")
        elif len(self._waiting) >= MOST_WAITING:
            self._refuse_last([*self._waiting, newcomer], newcomer, "full")

    def _refuse_last(self, among: list[_Waiting], newcomer: _Waiting, why: str) -> None:
        self._refused.add(why)
        failure: Failure = _busy() if why == "full" else _too_many_of_a_network()
        last = max(among, key=self._order)
        if last is newcomer:
            raise failure
        self._waiting.remove(last)
        if not last.turn.done():
            last.turn.set_exception(failure)

    def _pass_on(self) -> None:
        """Give a place that was taken to the first in order."""
        self._running -= 1
        while self._waiting:
            first = min(self._waiting, key=self._order)
            self._waiting.remove(first)
            if not first.turn.done():
                self._running += 1
                first.turn.set_result(None)
                return


def _magnitude(debt: float) -> int:
    """0, 1, 2 to 3, 4 to 7 and so on are alike: small differences shall not outweigh what comes next in the order."""
    return round(debt).bit_length()


def _busy() -> Unavailable:
    return Unavailable("busy", "Too many sign-ins at once; try again in a moment.")


def _too_many_of_a_network() -> TooMany:
    return TooMany("rate_limited", "Too many sign-ins of your network at once; slow down.", retry_after=2)
