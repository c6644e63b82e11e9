"""The ranking on Redis as it grows: longer chains, a million tweets on one shard and on 64, and a file that is synced.

The walk is Redis's own time for a call (INFO commandstats). redis-benchmark sends the same function in the same run.
"""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import redis
import uvloop

from bench.measuring import IN_FLIGHT, Plan, Table, cost_of, in_turns, many, micros, millis, wall_median
from bench.redis import below, chain_of
from rookery.adapters.redis import Access, RedisRanking
from rookery.adapters.system import SystemClock
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from tools.servers import Redis, RedisCluster
from tools.servers.installing import require

CHAINS = (1, 10, 100, 1_000)
TOP = 10
AT_ONCE = 1_000
PARENT = TweetId(b"benchmark-parent")


def run(plan: Plan) -> list[Table]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return [_walks(plan, runner), _tops(plan, runner), _synced(plan, runner)]


def _walks(plan: Plan, runner: asyncio.Runner) -> Table:
    clock, rows, count = SystemClock(), [], plan.pick(2_000, 200)
    with Redis(plan.scratch / "walks") as server, redis.Redis(port=server.port) as by_hand:
        ranking = RedisRanking(Access([server.address]), clock, timeout=30)

        async def grow(length: int) -> Link:
            links = chain_of(clock, length)
            for link in links:
                await ranking.add(link)
            return links[-1]

        async def one_after_the_other(last: Link) -> None:
            for _ in range(count):
                await ranking.add(below(clock, last))

        for length in CHAINS:
            last = runner.run(grow(length))
            by_hand.config_resetstat()
            began = time.perf_counter()
            runner.run(one_after_the_other(last))
            took = (time.perf_counter() - began) / count
            stats = by_hand.info("commandstats")["cmdstat_fcall"]
            rows.append(
                [f"{length:,}", f"{stats['calls'] / count:.2f}", micros(stats["usec_per_call"] / 1e6), micros(took)]
            )
        runner.run(ranking.close())
    head = ["chain", "round trips", "walk in Redis", "retweet, one after the other"]
    return Table("A retweet at the end of a chain", head, rows)


class _Many:
    """So many tweets that retweet nothing, with counts of a long tail."""

    def __init__(self, many: int) -> None:
        clock = SystemClock()
        ids = [clock.new_tweet_id() for _ in range(many)]
        self._links = [Link(one, None, one, 0, many // (at + 1), live=True) for at, one in enumerate(ids)]

    async def walk(self) -> AsyncIterator[Sequence[Link]]:
        for start in range(0, len(self._links), AT_ONCE):
            yield self._links[start : start + AT_ONCE]

    async def of(self, tweets: Sequence[TweetId]) -> Sequence[Link]:
        raise NotImplementedError("none is missing")


def _tops(plan: Plan, runner: asyncio.Runner) -> Table:
    tweets, count, rows = plan.pick(1_000_000, 20_000), plan.pick(2_000, 200), []
    links = _Many(tweets)
    for name, server in (("1", Redis(plan.scratch / "one")), ("64", RedisCluster(plan.scratch / "cluster"))):
        with server:
            ranking = RedisRanking(Access(server.address.split(",")), SystemClock(), timeout=30)

            async def fill(ranking: RedisRanking = ranking) -> float:
                began = time.perf_counter()
                await ranking.recount(links, lambda _: None)
                return time.perf_counter() - began

            async def ask(ranking: RedisRanking = ranking) -> float:
                taken = []
                for _ in range(count):
                    began = time.perf_counter()
                    await ranking.top(TOP)
                    taken.append(time.perf_counter() - began)
                return sorted(taken)[count // 2]

            filled, median = runner.run(fill()), runner.run(ask())
            rows.append([name, f"{filled:,.0f} s", millis(median)])
            runner.run(ranking.close())
    return Table(f"{tweets:,} tweets", ["shards", "recount", "top ten (median)"], rows)


def _synced(plan: Plan, runner: asyncio.Runner) -> Table:
    rows, count, rounds = [], plan.pick(20_000, 2_000), plan.pick(5, 2)
    clock, parent = SystemClock(), Link(PARENT, None, PARENT, 0, 0, live=True)

    def ours(ranking: RedisRanking) -> float:
        runner.run(ranking.add(parent))
        retweet = partial(many, lambda: ranking.add(below(clock, parent)), count)
        costs = in_turns(rounds, {"ours": lambda: cost_of(lambda: runner.run(retweet()))})["ours"]
        return count / wall_median(costs)

    for fsync in ("everysec", "always"):
        with Redis(plan.scratch / fsync, fsync=fsync) as server:
            ranking = RedisRanking(Access([server.address]), clock, timeout=30)
            mine, theirs = ours(ranking), max(_redis_benchmark(server, count) for _ in range(rounds))
            rows.append([fsync, f"{mine:,.0f}", f"{theirs:,.0f}", f"{mine / theirs:.2f}"])
            runner.run(ranking.close())
    note = f"{IN_FLIGHT} in flight each; redis-benchmark (C) is not bound by a client in Python."
    return Table("Retweets per second", ["appendfsync", "ranking", "redis-benchmark", "ratio"], rows, [note])


def _redis_benchmark(server: Redis, count: int) -> float:
    """Its figure for adding retweets, each with an id of its own."""
    program = require("redis-benchmark", "redis-tools")
    function = ["FCALL", "rookery_ranking_v2_add", "1", "{rookery:0}:", "more__rand_int__", PARENT.decode(), "0", "1"]
    command = [program, "-p", str(server.port), "-c", str(IN_FLIGHT), "-n", str(count), "-r", "1000000000000", "-q"]
    told = subprocess.run([*command, *function], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"([\d.]+) requests per second", told)
    return float(found[-1])
