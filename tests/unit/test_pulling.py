"""The places for pulls: their bounds, each client's share of them, and that none is lost, however a request ends."""

import asyncio
import random
from collections.abc import Callable

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId
from rookery.services import pulling
from rookery.services.pulling import (
    ADDRESS_AT_ONCE,
    ADDRESS_MOST,
    AT_ONCE,
    CALLER_AT_ONCE,
    CALLER_MOST,
    WAIT_SECONDS,
    Asker,
    Patience,
    Pulls,
)
from tests.contract.expecting import refused

ADA, BOB = UserId(b"a" * 16), UserId(b"b" * 16)


class Holders:
    """Requests that hold a place until they are told to let go."""

    def __init__(self) -> None:
        self.pulls = Pulls()
        self.inside: list[Asker | None] = []
        self.refused: list[Asker | None] = []
        self._go = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, *askers: Asker | None) -> list["asyncio.Task[None]"]:
        tasks = [asyncio.create_task(self._hold(asker)) for asker in askers]
        self._tasks += tasks
        await settle()
        return tasks

    async def end(self) -> None:
        self._go.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hold(self, asker: Asker | None) -> None:
        try:
            async with self.pulls.place(asker):
                self.inside.append(asker)
                try:
                    await self._go.wait()
                finally:
                    self.inside.remove(asker)
        except Unavailable as refused:
            if (refused.code, refused.retry_after) != ("busy", 1):
                raise
            self.refused.append(asker)


async def settle() -> None:
    """Let everything run that does not wait for the clock."""
    for _ in range(20):
        await asyncio.sleep(0)


def figures(pulls: Pulls) -> dict[str, object]:
    return {reading.name: reading.value for reading in pulls.readings()}


def assert_unused(pulls: Pulls) -> None:
    """No place, no queue and no count of any client is left."""
    assert figures(pulls)["pulls_under_way"] == figures(pulls)["pulls_waiting"] == 0
    assert (pulls._running, pulls._asking, pulls._queues) == ({}, {}, {})


async def test_an_address_has_its_share_of_the_places_and_others_enter_at_once() -> None:
    holders = Holders()
    await holders.begin(*[Asker("one")] * 50)
    assert len(holders.inside) == ADDRESS_AT_ONCE
    await holders.begin(Asker("two"))
    assert len(holders.inside) == ADDRESS_AT_ONCE + 1
    await holders.end()
    assert not holders.refused
    assert_unused(holders.pulls)


async def test_a_user_has_a_share_wherever_the_requests_come_from() -> None:
    holders = Holders()
    await holders.begin(*[Asker(f"address {number}", ADA) for number in range(CALLER_MOST + 3)])
    assert (len(holders.inside), len(holders.refused)) == (CALLER_AT_ONCE, 3)
    await holders.begin(Asker("address 0", BOB))
    assert len(holders.inside) == CALLER_AT_ONCE + 1
    await holders.end()
    assert_unused(holders.pulls)


async def test_places_and_the_queue_are_bounded_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "MOST", 20)
    holders = Holders()
    await holders.begin(*[Asker(f"address {number}") for number in range(23)])
    assert (len(holders.inside), len(holders.refused)) == (AT_ONCE, 3)
    assert figures(holders.pulls)["pulls_refused_total"] == 3
    await holders.end()
    assert_unused(holders.pulls)


async def test_an_address_is_refused_beyond_its_share_of_the_queue() -> None:
    holders = Holders()
    await holders.begin(*[Asker("one")] * (ADDRESS_MOST + 5))
    assert holders.refused == [Asker("one")] * 5
    await holders.begin(Asker("two"))
    assert Asker("two") in holders.inside
    await holders.end()
    assert_unused(holders.pulls)


async def test_a_wait_ends_after_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "WAIT_SECONDS", 0.01)
    holders = Holders()
    await holders.begin(*[Asker("one")] * ADDRESS_AT_ONCE)
    waiting = await holders.begin(*[Asker("one")] * 3)
    await asyncio.gather(*waiting)
    assert len(holders.refused) == 3
    await holders.end()
    assert_unused(holders.pulls)


async def test_waiting_addresses_take_turns() -> None:
    pulls, entered = Pulls(), list[str]()

    async def enter(address: str) -> None:
        async with pulls.place(Asker(address)):
            entered.append(address)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for address in ["first", "second"] * ADDRESS_AT_ONCE + ["many"] * 30 + ["one"]:
            group.create_task(enter(address))
    assert entered.index("one") < AT_ONCE + 2
    assert_unused(pulls)


async def test_the_process_itself_waits_for_a_place_and_has_no_share() -> None:
    holders = Holders()
    await holders.begin(*[None] * (ADDRESS_MOST + 10))
    assert len(holders.inside) == AT_ONCE
    await holders.end()
    assert not holders.refused
    assert_unused(holders.pulls)


async def test_all_waits_of_a_request_have_one_end() -> None:
    holders, spent = Holders(), Patience(0.01)
    await holders.begin(*[Asker(str(number)) for number in range(AT_ONCE)])
    for _ in range(2):
        with refused(Unavailable, "busy"):
            async with asyncio.timeout(WAIT_SECONDS / 2), holders.pulls.place(Asker("one"), spent):
                pass
        assert spent.seconds <= 0
    await holders.end()
    assert_unused(holders.pulls)


async def test_the_time_of_a_pull_is_no_time_of_waiting() -> None:
    """A pull may take longer than all waits together, and what it read would be for nothing."""
    pulls, patience = Pulls(), Patience(1e-6)
    async with pulls.place(Asker("one", ADA), patience) as waited:
        assert not waited
        await asyncio.sleep(0.001)
    assert patience.seconds == 1e-6


@pytest.mark.parametrize("seed", range(20))
async def test_no_place_is_lost_however_requests_end(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of several clients are cancelled, time out, fail and end at random; no bound is ever passed."""
    monkeypatch.setattr(pulling, "WAIT_SECONDS", 0.002)
    chance, pulls = random.Random(seed), Pulls()
    askers = [None, *(Asker(f"address {number % 3}", user) for number in range(6) for user in (None, ADA, BOB))]
    inside: list[Asker | None] = []

    async def ask() -> None:
        asker = chance.choice(askers)
        async with pulls.place(asker):
            inside.append(asker)
            try:
                assert_bounds(inside)
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(chance.choice((0, 0, 0.0005)))
                if chance.random() < 0.2:
                    raise ArithmeticError
            finally:
                inside.remove(asker)

    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(ask()))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    allowed = (type(None), ArithmeticError, asyncio.CancelledError, Unavailable)
    assert [each for each in ended if not isinstance(each, allowed)] == []
    assert_unused(pulls)


def assert_bounds(inside: list[Asker | None]) -> None:
    def most_of(key_of: Callable[[Asker], object]) -> int:
        keys = [key for asker in inside if asker is not None and (key := key_of(asker)) is not None]
        return max(map(keys.count, keys), default=0)

    assert len(inside) <= AT_ONCE
    assert most_of(lambda asker: asker.address) <= ADDRESS_AT_ONCE
    assert most_of(lambda asker: asker.user) <= CALLER_AT_ONCE
