"""Redis killed, cut back and failed over under load: counts are repaired from the store, and a store loses nothing."""

import asyncio
import logging
import os
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
import redis

from rookery.client import Client, Retries, RookeryError
from tests.servers import cut_back, log_sizes, master_of, replicas_of, started
from tests.serving import Server, running_server
from tests.system.clients import leading
from tests.system.commands import rookery
from tools.servers import Redis, RedisCluster

_log = logging.getLogger(__name__)

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
KILLS = 20 if LONG else 6
CLIENTS = 16
LOST_SECONDS = 2.0
"""What is cut off the append-only file: Redis writes it to the disk once a second, and may be a second late."""
REPAIRED_SECONDS = 60.0
"""Ten until a promise is overdue, a few until another run is noticed, and what a busy machine may need besides."""


@dataclass
class Load:
    """Clients that retweet one tweet, each request again and again under its key until it is answered."""

    server: Server
    root: UUID
    acknowledged: dict[str, float] = field(default_factory=dict)
    """Bodies, and when they were (`time.monotonic`)."""
    refused: Counter[str] = field(default_factory=Counter)
    unannounced: int = 0
    """Refusals that did not say when to come back."""
    by_client: Counter[int] = field(default_factory=Counter)
    stopped: bool = False

    async def go_on(self, client: Client, number: int) -> None:
        sent = 0
        while not self.stopped:
            body = f"{number}: {sent}"
            sent += 1
            while not self.stopped:
                try:
                    await client.retweet(f"user{number}", self.root, body=body, idempotency_key=body)
                except RookeryError as error:
                    self.refused[error.code] += 1
                    self.unannounced += error.retry_after is None
                    await asyncio.sleep(0.02)
                else:
                    self.acknowledged[body] = time.monotonic()
                    self.by_client[number] += 1
                    break

    async def until_more(self, many: int) -> None:
        enough = len(self.acknowledged) + many
        async with asyncio.timeout(60):
            while len(self.acknowledged) < enough:
                await asyncio.sleep(0.005)

    async def until_everyone(self) -> None:
        """Until each has been answered once more."""
        before = self.by_client.copy()
        async with asyncio.timeout(60):
            while any(self.by_client[number] == before[number] for number in range(CLIENTS)):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def loaded(server: Server) -> AsyncIterator[Load]:
    """A server under load, which has ended after this."""
    async with Client(server.url, retries=Retries(tries=1)) as client:
        load = Load(server, (await client.post("ada", "first")).id)
        workers = [asyncio.create_task(load.go_on(client, number)) for number in range(CLIENTS)]
        try:
            yield load
        finally:
            load.stopped = True
            await asyncio.gather(*workers)


async def bodies(client: Client) -> Counter[str]:
    """What there is of all of them."""
    found: Counter[str] = Counter()
    for number in range(CLIENTS):
        with suppress(RookeryError):
            found.update([tweet.body async for tweet in client.tweets(f"@user{number}")])
    return found


async def expect_counts(server: Server, root: UUID) -> None:
    """They get right by themselves."""
    async with Client(server.url) as client:
        there = (await bodies(client)).total()
        async with asyncio.timeout(REPAIRED_SECONDS):
            while (await client.tweet(root)).count_retweet != there:
                await asyncio.sleep(0.1)
            # A Redis that syncs each write may be late for once, and then nobody knows the count.
            while (counts := [tweet.count_retweet for tweet in await leading(client, 1)]) == [None]:
                await asyncio.sleep(0.1)
        assert counts == [there]
    done = await asyncio.to_thread(rookery, "recount", "--data", str(server.data), *server.flags)
    assert " 0 were wrong" in done.stdout


async def expect_all(load: Load) -> None:
    """What was acknowledged is there and counted."""
    async with Client(load.server.url) as client:
        found = await bodies(client)
    assert set(found) >= load.acknowledged.keys(), "nothing is lost"
    assert set(found.values()) == {1}, "nothing is there twice"
    await expect_counts(load.server, load.root)


@asynccontextmanager
async def sizes_of(counting: Redis) -> AsyncIterator[Callable[[], tuple[float, Mapping[Path, int]]]]:
    """How long the append-only files were so many seconds ago, and when just that was."""
    noted: deque[tuple[float, Mapping[Path, int]]] = deque(maxlen=1_000)

    async def note() -> None:
        while True:
            noted.append((time.monotonic(), log_sizes(counting)))
            await asyncio.sleep(0.05)

    task = asyncio.create_task(note())
    try:
        yield lambda: next(note for note in reversed(noted) if note[0] <= time.monotonic() - LOST_SECONDS)
    finally:
        task.cancel()


async def test_a_ranking_that_is_killed_and_cut_back_is_repaired_by_itself(tmp_path: Path) -> None:
    chance = random.Random(5)
    with (
        started(Redis(tmp_path / "redis")) as counting,
        running_server(tmp_path, "--ranking", "redis", "--ranking-servers", counting.address, measured=False) as server,
    ):
        async with loaded(server) as load, sizes_of(counting) as sizes:
            for kill in range(KILLS):
                await load.until_more(chance.randint(20, 200))
                if kill % 3 == 2:
                    await asyncio.sleep(LOST_SECONDS + 0.5)  # so that there is as much to lose
                    await asyncio.to_thread(cut_back, counting, sizes()[1])
                else:
                    counting.kill()
                    await asyncio.to_thread(counting.start)
        assert not load.refused, "tweets go on without it"
        await expect_counts(server, load.root)


async def test_a_store_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(6)
    with started(Redis(tmp_path / "redis", fsync="always")) as keeping:
        flags = ["--store", "redis", "--store-servers", keeping.address]
        flags += ["--ranking", "redis", "--ranking-servers", keeping.address]
        with running_server(tmp_path, *flags, measured=False) as server:
            async with loaded(server) as load:
                for _ in range(KILLS):
                    await load.until_more(chance.randint(20, 200))
                    keeping.kill()
                    await asyncio.to_thread(keeping.start)
                    await load.until_more(1)
            assert set(load.refused) <= {"store_unavailable", "not_ready"}, "and nothing else"
            await expect_all(load)


async def test_a_store_that_syncs_once_a_second_loses_the_last_seconds_at_most(tmp_path: Path) -> None:
    """A kill alone loses nothing that reached the page cache, so its file is cut back, as when the machine died."""
    with started(Redis(tmp_path / "redis")) as keeping:
        flags = ("--store", "redis", "--store-servers", keeping.address)
        with running_server(tmp_path, *flags, measured=False) as server:
            async with loaded(server) as load, sizes_of(keeping) as sizes:
                await asyncio.sleep(LOST_SECONDS + 1)
                await load.until_more(100)
                cut_at, kept = sizes()
                before = set(load.acknowledged)
                await asyncio.to_thread(cut_back, keeping, kept)
                await load.until_more(100)
            async with Client(server.url) as client:
                found = await bodies(client)
            lost = before - set(found)
            assert lost, "else nothing was cut off"
            assert all(load.acknowledged[body] > cut_at for body in lost)
            _log.info("%d of %d acknowledged tweets were lost with %.0f seconds", len(lost), len(before), LOST_SECONDS)


async def test_a_failover_that_loses_the_last_counts_is_repaired(tmp_path: Path) -> None:
    with started(RedisCluster(tmp_path / "cluster")) as cluster:
        flags = ("--ranking", "redis", "--ranking-servers", cluster.address)
        with running_server(tmp_path, *flags, measured=False) as server:
            async with loaded(server) as load:
                await load.until_more(200)
                dead = master_of(cluster, b"{rookery:%d}:" % (load.root.bytes[-1] % 64))
                replica = replicas_of(cluster, dead)[0]
                replica.pause()
                with redis.Redis(port=dead.port) as connection:  # else what is on its way would reach it
                    connection.execute_command("CLIENT KILL TYPE replica")
                await load.until_more(100)
                dead.kill()
                replica.resume()
                await until(lambda: has_new_master(cluster, dead))
                await load.until_more(100)
            assert not load.refused, "tweets go on without it"
            await expect_counts(server, load.root)


async def test_a_store_on_a_cluster_goes_on_when_a_master_is_killed(tmp_path: Path) -> None:
    """What was acknowledged a replica has, too, as long as there is one."""
    with started(RedisCluster(tmp_path / "cluster")) as cluster:
        flags = ["--store", "redis", "--store-servers", cluster.address]
        flags += ["--ranking", "redis", "--ranking-servers", cluster.address]
        with running_server(tmp_path, *flags, measured=False) as server:
            async with loaded(server) as load:
                for master in cluster.nodes[: 3 if LONG else 1]:
                    await load.until_more(200)
                    master.kill()
                    await until(lambda: has_new_master(cluster, master))  # noqa: B023 - done before it changes
                    await load.until_everyone()
                    refused = load.refused.total()
                    await load.until_more(200)
                    assert load.refused.total() == refused, "only while there was no master"
                    await asyncio.to_thread(master.start)
                    await asyncio.to_thread(cluster.wait_until_whole)
            assert set(load.refused) <= {"store_unavailable", "not_ready"}, "and nothing else"
            assert not load.unannounced
            await expect_all(load)


async def has_new_master(cluster: RedisCluster, dead: Redis) -> bool:
    """Whether all slots are served again."""
    alive = next(node for node in cluster.nodes if node is not dead and node.is_running)
    with redis.Redis(port=alive.port) as connection:
        info = connection.execute_command("CLUSTER INFO")
        slots = connection.execute_command("CLUSTER", "SLOTS")
    return info["cluster_state"] == "ok" and all(row[2][1] != dead.port for row in slots)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(REPAIRED_SECONDS):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_nothing_is_lost_while_the_file_is_rewritten(tmp_path: Path) -> None:
    """20,000 retweets in short: 2,000."""
    with started(Redis(tmp_path / "redis", fsync="always")) as counting:
        flags = ("--ranking", "redis", "--ranking-servers", counting.address)
        with running_server(tmp_path, *flags, measured=False) as server:
            async with loaded(server) as load:
                rewrites, enough = 0, 20_000 if LONG else 2_000
                with redis.Redis(port=counting.port) as connection:
                    while len(load.acknowledged) < enough:
                        if not connection.info("persistence")["aof_rewrite_in_progress"]:
                            with suppress(redis.ResponseError):  # it was just asked for
                                connection.bgrewriteaof()
                                rewrites += 1
                        await asyncio.sleep(0.05)
            assert rewrites > 2
            await expect_counts(server, load.root)
            counting.kill()
            counting.start()
            await expect_counts(server, load.root)
