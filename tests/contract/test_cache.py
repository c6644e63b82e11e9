"""What every cache promises. One may forget at any moment, but these have room enough to be held to every key."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from rookery.ports.cache import Cache, Swap
from tests.contract.expecting import assert_ends_when_cancelled
from tests.contract.places import CachePlace, OpenCache

TTL = 600
KIND = b"tl:"
A, B, C = KIND + bytes(range(16)), KIND + b"\n\r \x00\xff:" + b"b" * 10, KIND + b"c" * 16


@pytest.fixture
async def opened(cache_place: CachePlace) -> AsyncIterator[OpenCache]:
    async with cache_place.open() as opened:
        yield opened


@pytest.fixture
def cache(opened: OpenCache) -> Cache:
    return opened.cache


async def get(cache: Cache, key: bytes) -> bytes | None:
    (value,) = await cache.get_many([key], touch=TTL)
    return value


async def put(cache: Cache, key: bytes, value: bytes, ttl: int = TTL) -> None:
    assert await cache.add_many([key], value, ttl) == [True]


async def token_of(cache: Cache, key: bytes) -> object:
    (got,) = await cache.get_for_swap([key])
    assert got is not None
    return got[1]


async def swap(cache: Cache, key: bytes, token: object, value: bytes, ttl: int = TTL) -> Swap:
    (outcome,) = await cache.swap([(key, token, value)], ttl)
    return outcome


# Adding and reading


async def test_what_was_never_added_is_a_miss(cache: Cache) -> None:
    assert await cache.get_many([A, B], touch=TTL) == [None, None]
    assert await cache.get_for_swap([A, B]) == [None, None]
    assert await cache.get_many([], touch=TTL) == []


@pytest.mark.parametrize("value", [b"", b"\x00", b"value\r\n", bytes(range(256)) * 400])
async def test_a_value_is_given_as_it_was_added(cache: Cache, value: bytes) -> None:
    await put(cache, A, value)
    assert await get(cache, A) == value
    (got,) = await cache.get_for_swap([A])
    assert got is not None
    assert got[0] == value


async def test_values_come_in_the_order_of_the_keys(cache: Cache) -> None:
    await put(cache, A, b"a")
    await put(cache, B, b"b")
    assert await cache.get_many([B, C, A, B], touch=TTL) == [b"b", None, b"a", b"b"]
    assert [got and got[0] for got in await cache.get_for_swap([B, C, A])] == [b"b", None, b"a"]


async def test_only_the_first_to_add_a_key_stores_it(cache: Cache) -> None:
    assert await cache.add_many([A, B], b"first", TTL) == [True, True]
    assert await cache.add_many([C, A], b"second", TTL) == [True, False]
    assert await cache.get_many([A, B, C], touch=TTL) == [b"first", b"first", b"second"]
    assert await cache.add_many([], b"", TTL) == []


async def test_of_many_who_add_at_once_one_stores(cache: Cache) -> None:
    answers = await asyncio.gather(*(cache.add_many([A], b"%d" % number, TTL) for number in range(50)))
    assert answers.count([True]) == 1
    assert await get(cache, A) == b"%d" % answers.index([True])


async def test_thousands_of_keys_at_once(cache: Cache) -> None:
    keys = [b"tw:%d" % number for number in range(3_000)]
    assert await cache.add_many(keys, b"v", TTL) == [True] * 3_000
    assert await cache.get_many([*keys, b"tw:none"], touch=TTL) == [b"v"] * 3_000 + [None]
    await cache.delete(keys[:1_500])
    assert await cache.get_many(keys, touch=TTL) == [None] * 1_500 + [b"v"] * 1_500


# Time to live


async def test_a_value_lives_as_long_as_it_was_given(opened: OpenCache) -> None:
    cache = opened.cache
    await put(cache, A, b"short", 100)
    await put(cache, B, b"long", 200)
    await opened.pass_time(90)
    assert [got and got[0] for got in await cache.get_for_swap([A, B])] == [b"short", b"long"]
    await opened.pass_time(20)
    assert [got and got[0] for got in await cache.get_for_swap([A, B])] == [None, b"long"]
    assert await cache.add_many([A, B], b"again", 100) == [True, False]
    await opened.pass_time(100)
    assert await cache.get_many([A, B], touch=TTL) == [None, None]


async def test_what_is_read_lives_on(opened: OpenCache) -> None:
    cache = opened.cache
    for key in (A, B):
        await put(cache, key, b"value", 100)
    for _ in range(3):
        await opened.pass_time(70)
        assert await cache.get_many([A], touch=100) == [b"value"]
    await opened.pass_time(110)
    assert await cache.get_many([A, B], touch=100) == [None, None]


async def test_reading_for_a_swap_and_a_refused_add_lengthen_no_life(opened: OpenCache) -> None:
    cache = opened.cache
    await put(cache, A, b"value", 100)
    await opened.pass_time(80)
    assert (await cache.get_for_swap([A]))[0]
    assert await cache.add_many([A], b"another", 1_000) == [False]
    await opened.pass_time(30)
    assert await get(cache, A) is None


async def test_a_swap_gives_a_new_life(opened: OpenCache) -> None:
    cache = opened.cache
    await put(cache, A, b"claim", 100)
    await opened.pass_time(80)
    assert await swap(cache, A, await token_of(cache, A), b"filled", 1_000) is Swap.STORED
    await opened.pass_time(900)
    assert (await cache.get_for_swap([A]))[0]
    await opened.pass_time(110)
    assert await cache.get_for_swap([A]) == [None]


async def test_a_refused_swap_gives_no_new_life(opened: OpenCache) -> None:
    cache = opened.cache
    await put(cache, A, b"claim", 100)
    token = await token_of(cache, A)
    await cache.prepend(KIND, [A[3:]], b"+")
    assert await swap(cache, A, token, b"filled", 1_000) is Swap.CHANGED
    await opened.pass_time(110)
    assert await get(cache, A) is None


# Compare and set


async def test_a_swap_replaces_what_gave_the_token(cache: Cache) -> None:
    await put(cache, A, b"old")
    assert await swap(cache, A, await token_of(cache, A), b"new") is Swap.STORED
    assert await get(cache, A) == b"new"


async def test_a_token_is_good_once(cache: Cache) -> None:
    await put(cache, A, b"old")
    token = await token_of(cache, A)
    assert await swap(cache, A, token, b"old") is Swap.STORED
    assert await swap(cache, A, token, b"newer") is Swap.CHANGED
    assert await get(cache, A) == b"old"


async def test_reading_leaves_a_token_good(cache: Cache) -> None:
    await put(cache, A, b"old")
    await cache.prepend(KIND, [A[3:]], b"+")
    token = await token_of(cache, A)
    assert await get(cache, A) == b"+old"
    assert await cache.add_many([A], b"another", TTL) == [False]
    await token_of(cache, A)
    assert await swap(cache, A, token, b"new") is Swap.STORED


async def test_after_a_prepend_a_swap_is_told_that_it_changed(cache: Cache) -> None:
    await put(cache, A, b"old")
    token = await token_of(cache, A)
    await cache.prepend(KIND, [A[3:]], b"+")
    assert await swap(cache, A, token, b"new") is Swap.CHANGED
    assert await get(cache, A) == b"+old"
    assert await swap(cache, A, await token_of(cache, A), b"new") is Swap.STORED
    assert await get(cache, A) == b"new"


async def test_after_a_delete_a_swap_is_told_that_it_is_gone(cache: Cache) -> None:
    await put(cache, A, b"old")
    token = await token_of(cache, A)
    await cache.delete([A])
    assert await swap(cache, A, token, b"new") is Swap.GONE
    assert await get(cache, A) is None


async def test_after_its_time_a_swap_is_told_that_it_is_gone(opened: OpenCache) -> None:
    await put(opened.cache, A, b"old", 100)
    token = await token_of(opened.cache, A)
    await opened.pass_time(110)
    assert await swap(opened.cache, A, token, b"new") is Swap.GONE
    assert await get(opened.cache, A) is None


async def test_a_token_from_before_a_delete_never_fits_again(cache: Cache) -> None:
    tokens: list[object] = []
    for _ in range(20):
        await put(cache, A, b"the same")
        for token in tokens:
            assert await swap(cache, A, token, b"stale") is Swap.CHANGED
        tokens.append(await token_of(cache, A))
        await cache.prepend(KIND, [A[3:]], b"+")
        tokens.append(await token_of(cache, A))
        await cache.delete([A])
    assert await get(cache, A) is None


async def test_several_swaps_are_each_their_own(cache: Cache) -> None:
    for key in (A, B, C):
        await put(cache, key, b"old")
    got = await cache.get_for_swap([A, B, C])
    tokens = [found[1] for found in got if found is not None]
    await cache.delete([B])
    await cache.prepend(KIND, [C[3:]], b"+")
    items = [(B, tokens[1], b"new"), (A, tokens[0], b"new"), (C, tokens[2], b"new")]
    assert await cache.swap(items, TTL) == [Swap.GONE, Swap.STORED, Swap.CHANGED]
    assert await cache.get_many([A, B, C], touch=TTL) == [b"new", None, b"+old"]
    assert await cache.swap([], TTL) == []


async def test_of_many_who_swap_at_once_one_stores(cache: Cache) -> None:
    await put(cache, A, b"old")
    tokens = [await token_of(cache, A) for _ in range(50)]
    answers = await asyncio.gather(*(swap(cache, A, token, b"%d" % at) for at, token in enumerate(tokens)))
    assert answers.count(Swap.STORED) == 1
    assert answers.count(Swap.CHANGED) == 49
    assert await get(cache, A) == b"%d" % answers.index(Swap.STORED)


# Prepending


async def test_the_last_prepended_comes_first(cache: Cache) -> None:
    await put(cache, A, b"|")
    for entry in (b"1", b"2", b"3"):
        assert await cache.prepend(KIND, [A[3:]], entry) == 1
    assert await get(cache, A) == b"321|"
    assert await cache.prepend(KIND, [A[3:]], b"4") == 1
    assert await get(cache, A) == b"4321|"


async def test_prepending_makes_no_key_and_counts_those_there_are(cache: Cache) -> None:
    for raw in (b"1", b"3"):
        await put(cache, b"tl:" + raw, b"|")
    await put(cache, b"ut:2", b"|")
    assert await cache.prepend(b"tl:", [b"1", b"2", b"3", b"4"], b"+") == 2
    keys = [b"tl:1", b"tl:2", b"tl:3", b"tl:4", b"ut:2"]
    assert await cache.get_many(keys, touch=TTL) == [b"+|", None, b"+|", None, b"|"]
    assert await cache.prepend(b"tl:", [], b"+") == 0


async def test_prepending_leaves_the_age(opened: OpenCache) -> None:
    await put(opened.cache, A, b"|", 100)
    await opened.pass_time(80)
    assert await opened.cache.prepend(KIND, [A[3:]], b"+") == 1
    await opened.pass_time(30)
    assert await opened.cache.prepend(KIND, [A[3:]], b"+") == 0
    assert await get(opened.cache, A) is None


async def test_what_was_prepended_before_a_delete_does_not_come_back(cache: Cache) -> None:
    await put(cache, A, b"|")
    await cache.prepend(KIND, [A[3:]], b"+")
    await cache.delete([A])
    assert await cache.prepend(KIND, [A[3:]], b"-") == 0
    await put(cache, A, b"new")
    assert await get(cache, A) == b"new"


async def test_no_prepend_is_lost_among_swaps(cache: Cache) -> None:
    """Writers prepend while a reader puts the value in order again and again, as for a timeline."""
    await put(cache, A, b"")
    entries = [b"%03d" % number for number in range(200)]
    done = asyncio.Event()

    async def keep_in_order() -> None:
        while not done.is_set():
            (got,) = await cache.get_for_swap([A])
            assert got is not None
            value, token = got
            parts = sorted(value[at : at + 3] for at in range(0, len(value), 3))
            await asyncio.sleep(0)
            await swap(cache, A, token, b"".join(parts))

    async def prepend(some: list[bytes]) -> None:
        for entry in some:
            assert await cache.prepend(KIND, [A[3:]], entry) == 1
            await asyncio.sleep(0)

    ordering = asyncio.create_task(keep_in_order())
    await asyncio.gather(*(prepend(entries[at::4]) for at in range(4)))
    done.set()
    await asyncio.wait_for(ordering, 30)
    value = await get(cache, A)
    assert value is not None
    assert sorted(value[at : at + 3] for at in range(0, len(value), 3)) == entries


# Forgetting


async def test_what_is_deleted_is_forgotten_and_may_come_again(cache: Cache) -> None:
    await put(cache, A, b"old")
    await put(cache, B, b"stays")
    await cache.delete([A, C])
    await cache.delete([A])
    await cache.delete([])
    assert await cache.get_many([A, B], touch=TTL) == [None, b"stays"]
    await put(cache, A, b"new")
    assert await get(cache, A) == b"new"


async def test_reads_of_what_is_closed_are_misses(cache: Cache) -> None:
    await put(cache, A, b"value")
    await cache.close()
    assert await get(cache, A) is None
    assert await cache.get_for_swap([A]) == [None]
    assert await cache.prepend(KIND, [A[3:]], b"+") == 0
    await cache.delete([A])


async def test_a_caller_ends_when_he_is_cancelled(cache: Cache) -> None:
    await put(cache, A, b"value")
    await assert_ends_when_cancelled(lambda: cache.get_many([A], touch=TTL))
    await assert_ends_when_cancelled(lambda: cache.add_many([B], b"", TTL))
    assert await get(cache, A) == b"value"
