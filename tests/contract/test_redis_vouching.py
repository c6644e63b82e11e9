"""A ranking on Redis that needs somebody who vouches for it: it answers no read that may lack what it was told."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from rookery.adapters.redis import Access, RedisRanking
from rookery.adapters.system import SystemClock
from rookery.domain.errors import Unavailable
from rookery.ports.ranking import Ranked
from tests.contract.chains import Chains, counts_of
from tests.contract.expecting import unavailable
from tests.servers import started
from tools.servers import Redis


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Redis]:
    with started(Redis(tmp_path / "redis", fsync="always")) as server:
        yield server


@pytest.fixture
async def ranking(counting: Redis) -> AsyncIterator[RedisRanking]:
    ranking = RedisRanking(Access([counting.address]), SystemClock(), timeout=30, vouched=True)
    yield ranking
    await ranking.close()


async def assert_reads_nothing(ranking: RedisRanking, chains: Chains) -> None:
    with unavailable("ranking_unavailable"):
        await counts_of(ranking, chains.links.values())
    with unavailable("ranking_unavailable"):
        await ranking.top(10)
    with unavailable("ranking_unavailable"):
        await ranking.top(10, Ranked(next(iter(chains.links)), 1))


async def answers(ranking: RedisRanking) -> bool:
    try:
        await ranking.check()
    except Unavailable:
        return False
    return True


async def vouch(ranking: RedisRanking) -> None:
    ranking.vouch(await ranking.run(), ranking.failures)


async def test_nothing_is_read_before_somebody_vouches(ranking: RedisRanking) -> None:
    chains = Chains()
    chains.chain(3)
    await chains.tell_all(ranking)
    await assert_reads_nothing(ranking, chains)
    await vouch(ranking)
    assert ranking.is_vouched
    assert await counts_of(ranking, chains.links.values()) == [2, 1, 0]
    assert await ranking.top(10) == chains.expected_top()


async def test_another_run_is_not_vouched_for(ranking: RedisRanking, counting: Redis) -> None:
    chains = Chains()
    chains.chain(2)
    await chains.tell_all(ranking)
    before = await ranking.run()
    await vouch(ranking)
    counting.kill()
    counting.start()
    async with asyncio.timeout(30):
        while not await answers(ranking):
            await asyncio.sleep(0.01)
    ranking.vouch(before, ranking.failures)
    await assert_reads_nothing(ranking, chains)
    await vouch(ranking)
    assert await ranking.top(10) == chains.expected_top()


async def test_after_a_change_that_failed_nothing_is_read_until_somebody_vouches(
    ranking: RedisRanking, counting: Redis
) -> None:
    chains = Chains()
    root = chains.add()
    await chains.tell_all(ranking)
    await vouch(ranking)
    run, failures = await ranking.run(), ranking.failures
    with redis.Redis(port=counting.port) as connection:
        connection.config_set("maxmemory", 1)
        missed = chains.add(root)
        with unavailable("ranking_unavailable"):
            await ranking.add(missed)
        connection.config_set("maxmemory", 0)
    await assert_reads_nothing(ranking, chains)
    ranking.vouch(run, failures)  # it began to look before the change failed
    await assert_reads_nothing(ranking, chains)
    await ranking.add(missed)
    await vouch(ranking)
    assert await ranking.top(10) == chains.expected_top()
