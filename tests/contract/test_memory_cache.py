"""The bounds of the cache in the process: in bytes over all and for each item; the least recently used goes first."""

import random

import pytest

from rookery.adapters.memory import MemoryCache
from rookery.adapters.memory.cache import ITEM_BYTES, ITEM_LIMIT, PART_BYTES
from rookery.ports.cache import Swap
from tests.contract.adapters.memory import HandClock

TTL = 60
VALUE = b"v" * 100
SIZE = ITEM_BYTES + 1 + len(VALUE)
"""What an item costs whose key is one letter."""


def room_for(items: int) -> MemoryCache:
    return MemoryCache(items * SIZE, HandClock())


async def held(cache: MemoryCache, keys: bytes) -> bytes:
    """Which of these keys are there, without using them but in their own order."""
    return b"".join([key for key in letters(keys) if (await cache.get_for_swap([key]))[0]])


def letters(keys: bytes) -> list[bytes]:
    return [keys[at : at + 1] for at in range(len(keys))]


async def add(cache: MemoryCache, keys: bytes) -> None:
    for key in letters(keys):
        assert await cache.add_many([key], VALUE, TTL) == [True]


async def test_what_was_used_least_recently_goes_first() -> None:
    cache = room_for(3)
    await add(cache, b"abc")
    assert cache.used_bytes == 3 * SIZE
    await add(cache, b"d")
    assert await held(cache, b"abcd") == b"bcd"
    assert cache.used_bytes == 3 * SIZE


async def test_what_is_read_stays() -> None:
    for read in ("get_many", "get_for_swap"):
        cache = room_for(3)
        await add(cache, b"abc")
        if read == "get_many":
            await cache.get_many([b"a"], touch=TTL)
        else:
            await cache.get_for_swap([b"a"])
        await add(cache, b"d")
        assert await held(cache, b"abcd") == b"acd"


async def test_what_is_swapped_stays() -> None:
    cache = room_for(3)
    await add(cache, b"abc")
    (got,) = await cache.get_for_swap([b"a"])
    assert got is not None
    await cache.get_many([b"b", b"c"], touch=TTL)
    assert await cache.swap([(b"a", got[1], VALUE)], TTL) == [Swap.STORED]
    await add(cache, b"d")
    assert await held(cache, b"abcd") == b"acd"


async def test_prepending_keeps_nobody() -> None:
    """An author who posts all day must not keep the timelines of followers who are away."""
    cache = MemoryCache(3 * SIZE + PART_BYTES + 1, HandClock())
    await add(cache, b"abc")
    assert await cache.prepend(b"", [b"a"], b"+") == 1
    await add(cache, b"d")
    assert await held(cache, b"abcd") == b"bcd"


async def test_what_is_prepended_takes_room_too() -> None:
    cache = room_for(3)
    await add(cache, b"abc")
    assert await cache.prepend(b"", [b"c"], b"+") == 1
    assert await held(cache, b"abc") == b"bc"
    assert cache.used_bytes == 2 * SIZE + 1


async def test_reading_gives_back_what_the_parts_cost() -> None:
    cache = room_for(100)
    await add(cache, b"a")
    for _ in range(10):
        await cache.prepend(b"", [b"a"], b"+" * 32)
    assert cache.used_bytes == SIZE + 10 * (32 + PART_BYTES)
    await cache.get_many([b"a"], touch=TTL)
    assert cache.used_bytes == SIZE + 10 * 32
    await cache.delete([b"a"])
    assert cache.used_bytes == 0


@pytest.mark.parametrize("key", [b"k", b"k" * 100])
async def test_an_item_that_is_too_big_is_not_stored(key: bytes) -> None:
    cache = MemoryCache(10 * ITEM_LIMIT, HandClock())
    most = ITEM_LIMIT - ITEM_BYTES - len(key)
    assert await cache.add_many([key], bytes(most + 1), TTL) == [False]
    assert await cache.get_many([key], touch=TTL) == [None]
    assert await cache.add_many([key], bytes(most), TTL) == [True]
    assert await cache.get_many([key], touch=TTL) == [bytes(most)]


async def test_an_item_bigger_than_all_the_room_drives_nobody_out() -> None:
    cache = room_for(3)
    await add(cache, b"abc")
    assert await cache.add_many([b"d"], VALUE * 100, TTL) == [False]
    assert await held(cache, b"abcd") == b"abc"


async def test_what_grows_too_big_by_prepending_is_forgotten() -> None:
    cache = MemoryCache(10 * ITEM_LIMIT, HandClock())
    await add(cache, b"ab")
    most = (ITEM_LIMIT - SIZE) // (1_000 + PART_BYTES)
    for _ in range(most):
        await cache.prepend(b"", [b"a"], bytes(1_000))
    assert (await cache.get_for_swap([b"b"]))[0]
    assert await cache.prepend(b"", [b"a"], bytes(1_000)) == 1
    assert await cache.prepend(b"", [b"a"], b"+") == 0
    assert await held(cache, b"ab") == b"b"
    assert cache.used_bytes == SIZE


async def test_what_is_swapped_for_something_too_big_is_forgotten() -> None:
    cache = MemoryCache(10 * ITEM_LIMIT, HandClock())
    await add(cache, b"a")
    (got,) = await cache.get_for_swap([b"a"])
    assert got is not None
    assert await cache.swap([(b"a", got[1], bytes(ITEM_LIMIT))], TTL) == [Swap.GONE]
    assert await cache.get_many([b"a"], touch=TTL) == [None], "the old value is out of date"
    assert cache.used_bytes == 0


async def test_a_cache_that_is_off_stores_nothing() -> None:
    cache = MemoryCache(0, HandClock())
    assert await cache.add_many([b"a", b"b"], b"", TTL) == [False, False]
    assert await cache.get_many([b"a"], touch=TTL) == [None]
    assert await cache.get_for_swap([b"a"]) == [None]
    assert await cache.swap([(b"a", 0, b"value")], TTL) == [Swap.GONE]
    assert await cache.prepend(b"", [b"a"], b"+") == 0
    await cache.delete([b"a"])
    assert (len(cache), cache.used_bytes) == (0, 0)


async def test_what_is_past_its_time_gives_its_room_back_when_it_is_met() -> None:
    clock = HandClock()
    cache = MemoryCache(10 * SIZE, clock)
    await add(cache, b"ab")
    await clock.pass_time(TTL + 1)
    await cache.get_many([b"a"], touch=TTL)
    await add(cache, b"b")
    assert (len(cache), cache.used_bytes) == (1, SIZE)


async def test_closing_gives_all_room_back() -> None:
    cache = room_for(3)
    await add(cache, b"abc")
    await cache.close()
    assert (len(cache), cache.used_bytes) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_it_never_uses_more_than_its_bound_and_reckons_right(seed: int) -> None:
    chance = random.Random(seed)
    clock = HandClock()
    limit = 20 * SIZE
    cache = MemoryCache(limit, clock)
    keys = [b"%d" % number for number in range(60)]
    for _ in range(3_000):
        some = chance.sample(keys, 3)
        match chance.randrange(6):
            case 0:
                await cache.add_many(some, bytes(chance.randrange(400)), chance.choice([5, TTL]))
            case 1:
                await cache.get_many(some, touch=TTL)
            case 2:
                await cache.prepend(b"", some, bytes(chance.randrange(64)))
            case 3:
                got = await cache.get_for_swap(some)
                items = [(key, found[1], bytes(300)) for key, found in zip(some, got, strict=True) if found]
                await cache.swap(items, TTL)
            case 4:
                await cache.delete(some[:1])
            case _:
                await clock.pass_time(1)
        assert cache.used_bytes <= limit
    left = [
        (key, value)
        for key, value in zip(keys, await cache.get_many(keys, touch=TTL), strict=True)
        if value is not None
    ]
    assert cache.used_bytes == sum(ITEM_BYTES + len(key) + len(value) for key, value in left)
    await cache.delete(keys)
    assert (len(cache), cache.used_bytes) == (0, 0)
