"""Recounts on Redis that do not come to their end."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from rookery.adapters.redis import Access, RedisRanking
from rookery.adapters.system import SystemClock
from rookery.domain.errors import Unavailable
from rookery.domain.tweets import Link
from rookery.ports.ranking import Ranking
from tests.contract.adapters.redis import base_of, opens_ranking, server
from tests.contract.chains import Chains, assert_agrees, recount
from tests.servers import cut_back, log_sizes, started
from tools.servers import Redis


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Ranking]:
    async with opens_ranking("redis")(tmp_path) as ranking:
        yield ranking


@pytest.fixture
def by_hand() -> Iterator[Any]:
    with redis.Redis(port=server().port) as connection:
        yield connection


def generations(by_hand: Any, folder: Path) -> set[bytes]:
    """Those that have keys."""
    base = base_of(folder)
    return {key[len(base) :].partition(b":")[0] for key in by_hand.scan_iter(base + b"*:l", count=10_000)}


async def test_a_recount_that_fails_leaves_nothing_behind(ranking: Ranking, by_hand: Any, tmp_path: Path) -> None:
    chains = Chains()
    chains.chain(5)
    await chains.tell_all(ranking)

    async def walk() -> AsyncIterator[Sequence[Link]]:
        yield list(chains.links.values())
        raise Unavailable("store_unavailable", "The store went away.")

    before = generations(by_hand, tmp_path)
    with pytest.raises(Unavailable):
        await recount(ranking, chains, walk=walk)
    assert generations(by_hand, tmp_path) == before
    assert by_hand.hget(base_of(tmp_path) + b"meta", "next") is None
    await assert_agrees(ranking, chains)
    await recount(ranking, chains)
    await assert_agrees(ranking, chains)


async def test_what_a_dead_recount_built_goes_minutes_later(ranking: Ranking, by_hand: Any, tmp_path: Path) -> None:
    chains = Chains()
    chains.chain(3)
    await chains.tell_all(ranking)
    meta = base_of(tmp_path) + b"meta"
    now = int(by_hand.time()[0])
    generation = by_hand.fcall("rookery_ranking_v2_begin", 1, base_of(tmp_path), 10)
    more = chains.chain(2)
    for link in more:
        await chains.tell(ranking, link)
    assert b"%d" % generation in generations(by_hand, tmp_path), "changes go to both"
    by_hand.hset(meta, "touched", now - 301)
    for link in chains.chain(2):
        await chains.tell(ranking, link)
    assert b"%d" % generation not in generations(by_hand, tmp_path)
    assert by_hand.hget(meta, "next") is None
    await assert_agrees(ranking, chains)


async def until_answered(ranking: Ranking) -> None:
    """A connection that has ended is noticed by the first who uses it."""
    async with asyncio.timeout(10):
        while True:
            with suppress(Unavailable):
                return await ranking.check()
            await asyncio.sleep(0.01)


async def test_a_recount_begins_again_when_redis_forgot_some_of_it(tmp_path: Path) -> None:
    chains = Chains()
    links = chains.chain(20)
    with started(Redis(tmp_path / "redis", fsync="always")) as own:
        ranking = RedisRanking(Access([own.address]), SystemClock(), timeout=30)
        walks = 0

        async def walk() -> AsyncIterator[Sequence[Link]]:
            nonlocal walks
            walks += 1
            yield links[:10]
            sizes = log_sizes(own)
            yield links[10:]
            if walks == 1:
                cut_back(own, sizes)
                await until_answered(ranking)

        await chains.tell_all(ranking)
        await recount(ranking, chains, walk=walk)
        assert walks == 2
        await assert_agrees(ranking, chains)
        await ranking.close()


async def test_very_many_ends_of_one_long_chain_are_recounted_in_the_time_that_a_call_has(tmp_path: Path) -> None:
    chains = Chains()
    end = chains.chain(1_000)[-1]
    for _ in range(500):
        chains.add(end)
    with started(Redis(tmp_path / "redis")) as own:
        ranking = RedisRanking(Access([own.address]), SystemClock())
        await recount(ranking, chains, size=500)
        await assert_agrees(ranking, chains)
        await ranking.close()


async def test_a_redis_that_was_away_from_the_start_and_knows_no_functions_is_asked_again(tmp_path: Path) -> None:
    own = Redis(tmp_path / "redis")
    ranking = RedisRanking(Access([own.address]), SystemClock())
    chains = Chains()
    chains.chain(3)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await ranking.check()
    with started(own):
        await until_answered(ranking)
        await chains.tell_all(ranking)
        with redis.Redis(port=own.port) as connection:
            connection.function_flush()
        ranking._shards[0]._pause, ranking._shards[0]._retry_at = 0.05, 0.0  # as when it came back so from being away
        await until_answered(ranking)
        await assert_agrees(ranking, chains)
    await ranking.close()
