"""The queue of passwords: who is hashed next, and who is refused. Hashes are computed when the test says so."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from rookery.domain.errors import Failure
from rookery.services import hashing
from rookery.services.hashing import HALF_LIFE, MOST_OF_A_NETWORK, MOST_WAITING, Asker, HashingQueue


@dataclass
class Steps:
    """A hasher that computes one hash for each `step`; RIGHT is everyone's password."""

    at_once: int = 1
    gates: list[asyncio.Event] = field(default_factory=list)

    async def hash(self, password: str) -> str:
        await self._computed()
        return f"hash of {password}"

    async def verify(self, hashed: str | None, password: str) -> bool:
        await self._computed()
        return password == RIGHT

    async def _computed(self) -> None:
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()


RIGHT, WRONG = "right", "wrong"


class Scene:
    """A queue, those who ask, and the order in which they were answered."""

    def __init__(self, at_once: int = 1) -> None:
        self.hasher = Steps(at_once)
        self.now = 1_000.0
        self.queue = HashingQueue(self.hasher, lambda: self.now)
        self.answered: list[str] = []
        self.refused: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def ask(self, who: str, account: str, network: str, password: str = WRONG, *, is_new: bool = False) -> None:
        asker = Asker(network, account, is_new=is_new)
        work: Callable[[], Awaitable[object]] = (
            (lambda: self.queue.hash(asker, password))
            if is_new
            else (lambda: self.queue.verify(asker, "hash", password))
        )

        async def run() -> None:
            try:
                await work()
                self.answered.append(who)
            except Failure as failure:
                self.refused.append(f"{who} {failure.code}")

        self.tasks.append(asyncio.create_task(run()))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def step(self, many: int = 1) -> None:
        for _ in range(many):
            if self.hasher.gates:
                self.hasher.gates.pop(0).set()
            await self.settle()

    async def finish(self) -> list[str]:
        while self.hasher.gates:
            await self.step()
        await asyncio.gather(*self.tasks)
        return self.answered

    async def attack(self, networks: int, each: int = 1, account: str = "ada") -> None:
        """Let these networks have wrong passwords checked, and wait until they are."""
        for turn in range(each):
            for number in range(networks):
                await self.ask(f"old {turn} {number}", account, f"10.0.{number}.0/24")
                await self.step()
        self.answered.clear()


async def test_one_after_the_other_where_nobody_stands_out() -> None:
    scene = Scene()
    for number in range(5):
        await scene.ask(str(number), f"user{number}", f"10.0.{number}.0/24")
    assert await scene.finish() == ["0", "1", "2", "3", "4"]


async def test_as_many_at_once_as_the_hasher_computes() -> None:
    scene = Scene(at_once=3)
    for number in range(5):
        await scene.ask(str(number), "ada", f"10.0.{number}.0/24")
    assert len(scene.hasher.gates) == 3
    await scene.step()
    assert len(scene.hasher.gates) == 3
    assert len(await scene.finish()) == 5


async def test_a_clean_network_goes_before_forty_that_guess() -> None:
    scene = Scene()
    await scene.attack(40, each=2)
    for number in range(40):
        await scene.ask(f"guess {number}", "ada", f"10.0.{number}.0/24")
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["guess 0", "ada"], "only the one whose turn it was already"
    await scene.finish()


async def test_a_new_network_is_heard_at_once_when_forty_clean_ones_begin() -> None:
    scene = Scene()
    for number in range(40):
        await scene.ask(f"guess {number}", "ada", f"10.0.{number}.0/24")
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["guess 0", "ada"]
    await scene.finish()


async def test_accounts_of_their_own_give_attackers_no_lasting_place() -> None:
    scene = Scene()
    for turn in range(40):
        for number in range(5):
            await scene.ask("own", f"own{number}_{turn % 8}", f"10.0.{number}.0/24", RIGHT)
            await scene.step()
    scene.answered.clear()
    for number in range(5):
        await scene.ask("own", f"own{number}_0", f"10.0.{number}.0/24", RIGHT)
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["own", "ada"]
    await scene.finish()


async def test_networks_take_turns_however_many_each_sends() -> None:
    scene = Scene()
    await scene.ask("first", "bob", "10.0.9.0/24")
    for number in range(10):
        await scene.ask(f"many {number}", f"user{number}", "10.0.1.0/24")
    await scene.ask("one", "eve", "10.0.2.0/24")
    await scene.step(3)
    assert scene.answered == ["first", "many 0", "one"]
    await scene.finish()


async def test_an_account_that_is_guessed_at_from_fresh_networks_does_not_hold_up_another() -> None:
    scene = Scene()
    await scene.attack(30)
    for number in range(20):
        await scene.ask(f"guess {number}", "ada", f"10.1.{number}.0/24")
    await scene.ask("bob", "bob", "192.0.2.0/24")
    await scene.step(2)
    assert scene.answered == ["guess 0", "bob"]
    await scene.finish()


async def test_a_known_pair_goes_first_also_from_a_network_that_guesses() -> None:
    scene = Scene()
    await scene.ask("ada", "ada", "10.0.0.0/24", RIGHT)
    await scene.step()
    scene.now += 10 * HALF_LIFE
    await scene.attack(5, each=8, account="bob")
    for number in range(1, 5):
        await scene.ask(f"guess {number}", "bob", f"10.0.{number}.0/24")
    await scene.ask("neighbour", "eve", "10.0.0.0/24")
    await scene.ask("ada", "ada", "10.0.0.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["guess 1", "ada"]
    await scene.finish()


async def test_a_known_pair_that_guesses_is_like_any_other() -> None:
    scene = Scene()
    await scene.ask("eve", "eve", "10.0.0.0/24", RIGHT)
    await scene.step()
    await scene.attack(1, each=10, account="eve")
    await scene.ask("running", "bob", "10.0.7.0/24")
    await scene.ask("guess", "eve", "10.0.0.0/24")
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["running", "ada"]
    await scene.finish()


async def test_sign_ins_go_before_registrations() -> None:
    scene = Scene()
    for number in range(3):
        await scene.ask(f"new {number}", f"new{number}", f"10.0.{number}.0/24", is_new=True)
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["new 0", "ada"]
    await scene.finish()


async def test_a_network_exhausts_its_own_share_only() -> None:
    scene = Scene()
    for number in range(MOST_OF_A_NETWORK + 6):
        await scene.ask(str(number), f"user{number}", "10.0.0.0/24")
    assert [refusal.split()[1] for refusal in scene.refused] == ["rate_limited"] * 5
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    await scene.step(2)
    assert scene.answered == ["0", "ada"]
    await scene.finish()


async def test_where_all_places_are_taken_the_last_in_order_is_refused() -> None:
    scene = Scene()
    await scene.attack(MOST_WAITING + 1)
    for number in range(MOST_WAITING + 1):
        await scene.ask(str(number), "ada", f"10.0.{number}.0/24")
    assert scene.refused == []
    await scene.ask("ada", "ada", "192.0.2.0/24", RIGHT)
    assert scene.refused == ["1 busy"], "who waited longest of those that guess"
    await scene.ask("one more", "ada", "10.0.0.0/24")
    assert scene.refused[1:] == ["one more busy"], "the last in order itself"
    await scene.step(2)
    assert scene.answered[1] == "ada"
    await scene.finish()


async def test_a_wait_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "LONGEST_WAIT", 0.01)
    scene = Scene()
    for number in range(3):
        await scene.ask(str(number), "ada", f"10.0.{number}.0/24")
    await asyncio.wait(scene.tasks[1:], timeout=30)
    assert scene.refused == ["1 busy", "2 busy"]
    await scene.finish()
    await scene.ask("later", "ada", "10.0.9.0/24")
    assert await scene.finish() == ["0", "later"]


async def test_who_gives_up_gives_the_place_back() -> None:
    scene = Scene()
    for number in range(4):
        await scene.ask(str(number), "ada", f"10.0.{number}.0/24")
    scene.tasks[1].cancel()
    scene.tasks[0].cancel()
    await scene.settle()
    assert len(scene.hasher.gates) == 1, "a hash that has begun goes on, and keeps its place"
    await scene.step(3)
    await asyncio.gather(*scene.tasks, return_exceptions=True)
    assert scene.answered == ["2", "3"]
    readings = {reading.name: reading.value for reading in scene.queue.readings()}
    assert readings["passwords_waiting"] == 0


async def test_who_gives_up_in_the_moment_of_the_turn_passes_it_on() -> None:
    scene = Scene()
    for number in range(3):
        await scene.ask(str(number), "ada", f"10.0.{number}.0/24")
    scene.hasher.gates.pop(0).set()
    for _ in range(20):
        await asyncio.sleep(0)
        if not scene.tasks[1].done():
            scene.tasks[1].cancel()
    while scene.hasher.gates:
        await scene.step()
    await asyncio.wait(scene.tasks, timeout=30)
    assert scene.answered[-1] == "2"


async def test_debts_are_forgiven() -> None:
    scene = Scene()
    await scene.attack(1, each=16)
    scene.now += 10 * HALF_LIFE
    await scene.ask("running", "bob", "10.0.7.0/24")
    await scene.ask("first", "eve", "10.0.0.0/24")
    await scene.ask("second", "ada", "192.0.2.0/24")
    assert await scene.finish() == ["running", "first", "second"]


async def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_REMEMBERED", 10)
    monkeypatch.setattr(hashing, "_KNOWN", 10)
    scene = Scene()
    for number in range(30):
        await scene.ask(str(number), f"user{number}", f"10.0.{number}.0/24", RIGHT)
        await scene.step()
    kept = [scene.queue._networks._owed, scene.queue._accounts._owed, scene.queue._pairs._owed, scene.queue._known]
    assert [len(each) for each in kept] == [10] * 4  # type: ignore[arg-type]
