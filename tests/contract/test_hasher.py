"""What every hasher of passwords promises."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from argon2 import PasswordHasher

from rookery.adapters.argon2 import Argon2Hasher
from rookery.domain.users import MAX_PASSWORD
from rookery.ports.hasher import Hasher

OpenHasher = Callable[[int], AbstractContextManager[Hasher]]
"""A hasher that hashes so many at a time."""


@contextmanager
def _argon2(at_once: int) -> Iterator[Hasher]:
    """With cheap parameters: some milliseconds a hash."""
    hasher = Argon2Hasher(at_once, PasswordHasher(time_cost=2, memory_cost=4096, parallelism=1))
    yield hasher
    hasher.close()


HASHERS: dict[str, OpenHasher] = {"argon2": _argon2}


@pytest.fixture(params=HASHERS.values(), ids=list(HASHERS))
def open_hasher(request: pytest.FixtureRequest) -> OpenHasher:
    opener: OpenHasher = request.param
    return opener


@pytest.fixture
def hasher(open_hasher: OpenHasher) -> Iterator[Hasher]:
    with open_hasher(2) as hasher:
        yield hasher


@pytest.mark.parametrize("password", ["correct horse", "pässwörd 🐎", " leading", "x" * MAX_PASSWORD, "nul\0inside"])
async def test_the_password_is_verified_and_another_is_not(hasher: Hasher, password: str) -> None:
    hashed = await hasher.hash(password)
    assert await hasher.verify(hashed, password)
    for other in (password[:-1], password + "x", password.swapcase() + "!", ""):
        assert not await hasher.verify(hashed, other)


async def test_a_hash_is_salted_and_does_not_tell_the_password(hasher: Hasher) -> None:
    hashes = [await hasher.hash("correct horse") for _ in range(3)]
    assert len(set(hashes)) == 3
    assert not any("correct" in hashed for hashed in hashes)
    assert all([await hasher.verify(hashed, "correct horse") for hashed in hashes])


async def test_a_hash_holds_its_own_parameters(hasher: Hasher) -> None:
    older = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=2).hash("correct horse")
    assert await hasher.verify(older, "correct horse")
    assert not await hasher.verify(older, "wrong horse")


async def test_nobody_has_no_password(hasher: Hasher) -> None:
    assert not await hasher.verify(None, "correct horse")
    assert not await hasher.verify(None, "")
    assert not await hasher.verify(None, "nobody has this password")


@pytest.mark.parametrize("hashed", ["", "not a hash", "$argon2id$v=19$m=4096,t=2,p=1$broken"])
async def test_what_is_no_hash_is_nobodys_password(hasher: Hasher, hashed: str) -> None:
    assert not await hasher.verify(hashed, "correct horse")


async def test_nobody_takes_as_long_as_somebody(hasher: Hasher) -> None:
    """In this process's own CPU time, and at best of several, so that a busy machine doesn't matter."""

    async def cost(hashed: str | None) -> float:
        begun = time.process_time()
        assert not await hasher.verify(hashed, "wrong horse")
        return time.process_time() - begun

    hashed = await hasher.hash("correct horse")
    await hasher.verify(None, "wrong horse")
    somebody = min([await cost(hashed) for _ in range(9)])
    nobody = min([await cost(None) for _ in range(9)])
    assert 0.5 < nobody / somebody < 2


async def test_the_event_loop_turns_while_a_password_is_hashed(hasher: Hasher) -> None:
    turns = 0
    for _ in range(20):  # on a busy machine this thread may wait for a core meanwhile; one that is held up has one turn
        hashing = asyncio.create_task(hasher.hash("correct horse"))
        turns = 0
        while not hashing.done():
            await asyncio.sleep(0)
            turns += 1
        assert await hashing
        if turns > 10:
            break
    assert turns > 10


async def test_more_than_are_hashed_at_once_wait(open_hasher: OpenHasher) -> None:
    for at_once in (1, 3):
        with open_hasher(at_once) as hasher:
            assert hasher.at_once == at_once
            hashed = await hasher.hash("correct horse")
            assert all(await asyncio.gather(*(hasher.verify(hashed, "correct horse") for _ in range(10))))


async def test_who_gives_up_leaves_it_usable(open_hasher: OpenHasher) -> None:
    with open_hasher(1) as hasher:
        waiting = [asyncio.create_task(hasher.verify(None, "correct horse")) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.wait_for(hasher.hash("correct horse"), 30)


async def test_without_memory_no_password_is_wrong(hasher: Hasher) -> None:
    """More memory than there is; a hash that asks for it is not taken for one of another password."""
    greedy = Argon2Hasher(1, PasswordHasher(time_cost=1, memory_cost=2**32 - 1, parallelism=1))
    try:
        with pytest.raises(MemoryError):
            await greedy.hash("password")
        hashed = (await hasher.hash("password")).replace("m=4096", f"m={2**32 - 1}")
        with pytest.raises(MemoryError):
            await hasher.verify(hashed, "password")
    finally:
        greedy.close()
