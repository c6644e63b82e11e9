"""The Redis ranking's own cost beside the bare driver's: client CPU of an operation, 64 in flight.

redis-py (asyncio, hiredis) with the same pool. Redis runs on the same machine; its CPU is not counted.
"""

import asyncio
from typing import Any

import uvloop
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Driver

from bench.measuring import IN_FLIGHT, Operation, Plan, Table, of_operations
from rookery.adapters.redis import Access, RedisRanking
from rookery.adapters.system import SystemClock
from rookery.domain.tweets import Link
from tools.servers import Redis

CHAIN = 10
TOP = 10


def run(plan: Plan) -> list[Table]:
    with Redis(plan.scratch / "redis") as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ranking = RedisRanking(Access([server.address]), SystemClock(), timeout=10)
        pool = BlockingConnectionPool(max_connections=IN_FLIGHT, host="127.0.0.1", port=server.port)
        driver: Any = Driver(connection_pool=pool)
        try:
            return [_operations(plan, runner, ranking, driver)]
        finally:
            runner.run(ranking.close())
            runner.run(driver.aclose(close_connection_pool=True))


def _operations(plan: Plan, runner: asyncio.Runner, ranking: RedisRanking, driver: Any) -> Table:
    clock, count = SystemClock(), plan.pick(4_000, 500)
    ten, single = chain_of(clock, CHAIN), chain_of(clock, 1)[0]

    async def set_up() -> None:
        for link in (*ten, single):
            await ranking.add(link)
        await driver.hset("bench:hash", mapping={str(number): number for number in range(TOP)})
        await driver.zadd("bench:top", {str(number): number for number in range(1_000)})

    runner.run(set_up())
    places, fields = [(link.id, link.root) for link in ten], [str(number) for number in range(TOP)]
    operations: dict[str, Operation] = {
        "bare driver: HINCRBY": lambda: driver.hincrby("bench:hash", "counted", 1),
        "ranking: add a retweet, chain of 1": lambda: ranking.add(below(clock, single)),
        f"ranking: add a retweet, chain of {CHAIN}": lambda: ranking.add(below(clock, ten[-1])),
        "bare driver: HMGET of ten": lambda: driver.hmget("bench:hash", fields),
        "ranking: counts of ten": lambda: ranking.counts(places),
        "bare driver: ZREVRANGE of ten": lambda: driver.zrevrange("bench:top", 0, TOP - 1, withscores=True),
        "ranking: top ten": lambda: ranking.top(TOP),
    }

    return of_operations("Operations", runner, operations, count, plan.pick(9, 3))


def chain_of(clock: SystemClock, length: int) -> list[Link]:
    """A tweet, a retweet of it, a retweet of that, and so on."""
    root = clock.new_tweet_id()
    links = [Link(root, None, root, 0, 0, live=True)]
    while len(links) < length:
        links.append(below(clock, links[-1]))
    return links


def below(clock: SystemClock, link: Link) -> Link:
    """A retweet."""
    return Link(clock.new_tweet_id(), link.id, link.root, link.depth + 1, 0, live=True)
