"""Places shared out fairly: shares, turns, bounds of what waits, and what is given back."""

import asyncio
import random
from collections import Counter

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId
from rookery.services.places import Places

ADA, BOB, EVE = (UserId(bytes([number]) * 16) for number in range(3))


async def waiting(places: Places, owner: UserId, order: list[UserId]) -> "asyncio.Task[None]":
    async def wait() -> None:
        await places.wait_and_take(owner)
        order.append(owner)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_an_owner_has_its_share_and_others_have_the_rest() -> None:
    places = Places(total=5, share=2, queue=10, seconds=5)
    for _ in range(2):
        await places.wait_and_take(ADA)
    assert not places.is_free_for(ADA)
    for _ in range(2):
        await places.wait_and_take(BOB)
    await places.wait_and_take(EVE)
    assert places.taken == 5
    assert not places.is_free_for(EVE)


async def test_owners_who_wait_take_turns() -> None:
    places = Places(total=2, share=2, queue=10, seconds=5)
    await places.wait_and_take(EVE)
    await places.wait_and_take(EVE)
    order: list[UserId] = []
    tasks = [await waiting(places, owner, order) for owner in (ADA, ADA, ADA, BOB)]
    for given_back in (EVE, EVE, ADA, BOB):
        places.give_back(given_back)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert order == [ADA, BOB, ADA, ADA]
    await asyncio.gather(*tasks)
    assert places.taken == 2


async def test_one_who_waits_for_their_own_share_holds_up_nobody() -> None:
    places = Places(total=3, share=1, queue=10, seconds=5)
    await places.wait_and_take(ADA)
    order: list[UserId] = []
    behind = await waiting(places, ADA, order)
    await places.wait_and_take(BOB)
    await places.wait_and_take(EVE)
    assert order == []
    places.give_back(ADA)
    await behind
    assert order == [ADA]


async def test_who_waits_is_refused_after_the_time_and_at_once_behind_a_full_queue() -> None:
    places = Places(total=1, share=1, queue=1, seconds=0.05)
    await places.wait_and_take(ADA)
    order: list[UserId] = []
    first = await waiting(places, ADA, order)
    with pytest.raises(Unavailable) as refused:
        await places.wait_and_take(ADA)
    assert refused.value.code == "busy"
    with pytest.raises(Unavailable):
        await first
    places.give_back(ADA)
    assert places.taken == 0
    assert places.is_free_for(ADA)


async def test_one_that_is_cancelled_gives_its_place_to_the_next() -> None:
    places = Places(total=1, share=1, queue=5, seconds=5)
    await places.wait_and_take(ADA)
    order: list[UserId] = []
    first, second = await waiting(places, ADA, order), await waiting(places, BOB, order)
    places.give_back(ADA)  # it is the first one's turn, which does not know yet
    first.cancel()
    await second
    assert order == [BOB]
    places.give_back(BOB)
    assert places.taken == 0


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_no_bound_is_passed_and_nothing_is_left(seed: int) -> None:
    chance = random.Random(seed)
    places = Places(total=4, share=2, queue=3, seconds=0.02)
    held: Counter[UserId] = Counter()
    most, outcomes = 0, Counter[str]()

    async def use(owner: UserId) -> None:
        nonlocal most
        try:
            await places.wait_and_take(owner)
        except Unavailable:
            outcomes["refused"] += 1
            return
        held[owner] += 1
        most = max(most, held.total())
        assert held[owner] <= 2
        try:
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
        finally:
            held[owner] -= 1
            places.give_back(owner)
        outcomes["had"] += 1

    tasks = []
    for _ in range(200):
        tasks.append(asyncio.create_task(use(chance.choice((ADA, BOB, EVE)))))
        if chance.random() < 0.2:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert places.taken == 0
    assert all(places.is_free_for(owner) for owner in (ADA, BOB, EVE))
    assert most <= 4
    assert outcomes["had"] > 20
