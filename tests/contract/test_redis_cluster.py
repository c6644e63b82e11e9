"""Ranking and store while a Redis Cluster changes: a master is killed, slots move, settings name what is none."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import redis

from rookery.adapters.redis import Access, RedisRanking, RedisStore
from rookery.adapters.system import SystemClock
from rookery.domain.errors import Conflict, Unavailable
from rookery.domain.tweets import Link
from rookery.domain.users import FanoutState
from tests.contract.adapters.redis import base_of, prefix_of, redis_access
from tests.contract.chains import Chains, assert_agrees
from tests.contract.expecting import refused
from tests.contract.expecting import unavailable as is_unavailable
from tests.contract.given import MOST, NOON, Given
from tests.servers import master_of, replicas_of, started
from tools.certificates import Authority
from tools.servers import Redis, RedisCluster

SECONDS = 30.0
"""Two until a master is missed, and what a busy machine may need besides."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    with started(RedisCluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@pytest.fixture
async def ranking(cluster: RedisCluster, tmp_path: Path) -> AsyncIterator[RedisRanking]:
    ranking = RedisRanking(Access(cluster.address.split(",")), SystemClock(), prefix=prefix_of(tmp_path))
    yield ranking
    await ranking.close()


@pytest.fixture
async def store(cluster: RedisCluster, tmp_path: Path) -> AsyncIterator[RedisStore]:
    store = RedisStore(Access(cluster.address.split(",")), SystemClock(), prefix=prefix_of(tmp_path), seconds=0.9)
    await store.open()
    yield store
    await store.close()


async def until_done(step: Callable[[], Awaitable[object]]) -> int:
    """Do it as soon as it can be done; how often it could not."""
    refusals = 0
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await step()
            except Unavailable:
                refusals += 1
                await asyncio.sleep(0.02)
            else:
                return refusals


async def test_a_replica_takes_over_and_nothing_is_wrong(
    cluster: RedisCluster, ranking: RedisRanking, tmp_path: Path
) -> None:
    chains = Chains()
    chain = chains.chain(20)
    await chains.tell_all(ranking)
    await assert_agrees(ranking, chains)
    before = await ranking.run()
    base = base_of(tmp_path, chain[0].id[-1] % 64)
    dead = master_of(cluster, base)
    with redis.Redis(port=dead.port) as connection:
        connection.wait(1, 5_000)
    dead.kill()
    try:
        with is_unavailable("ranking_unavailable"):
            await ranking.counts([(chain[0].id, chain[0].id)])
        added = chains.add(chain[-1])
        assert await until_done(lambda: chains.tell(ranking, added))
        await until_done(ranking.check)
        await assert_agrees(ranking, chains)
        assert await ranking.run() != before, "so that what it may have lost is told again"
        assert master_of(cluster, base) is not dead
    finally:
        dead.start()
        cluster.wait_until_whole()


async def test_a_store_goes_on_with_the_replica(cluster: RedisCluster, store: RedisStore, tmp_path: Path) -> None:
    given = Given(store)
    ada, *others = await given.users(8)
    await given.follow(ada, *others)
    posted = [await given.post(ada)]
    dead = master_of(cluster, f"{{{prefix_of(tmp_path)}.store:{ada.id[-1] % 64}}}:".encode())
    with redis.Redis(port=dead.port) as connection:
        connection.wait(1, 5_000)
    dead.kill()
    try:
        with is_unavailable():
            await given.post(ada)
        draft = given.draft(ada)
        assert await until_done(lambda: store.add_tweet(draft, MOST))
        posted.append(draft)
        await until_done(store.check)
        assert [len(tail) for tail in await store.tails([(ada.id, None)], 10)] == [2]
        assert set(await store.tweets([tweet.id for tweet in posted])) == {tweet.id for tweet in posted}
        assert await store.followees(ada.id, None, 10) == sorted((one.id for one in others), reverse=True)
    finally:
        dead.start()
        cluster.wait_until_whole()


@pytest.mark.parametrize("alone", [True, False])
async def test_a_write_waits_for_a_replica_as_long_as_there_is_one(
    cluster: RedisCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture, alone: bool
) -> None:
    access = Access(cluster.address.split(","), alone=alone)
    async with AsyncExitStack() as stack:
        store = RedisStore(access, SystemClock(), prefix=prefix_of(tmp_path), seconds=0.9)
        stack.push_async_callback(store.close)
        await store.open()
        given = Given(store)
        ada = await given.user()
        replicas = replicas_of(cluster, master_of(cluster, store._shards.of(ada.id).base))
        assert replicas
        for replica in replicas:
            replica.pause()
            stack.callback(replica.resume)
        with is_unavailable():
            await store.set_fanout(ada.id, FanoutState.PUSHED, FanoutState.RISING, NOON)
        assert (await store.users([ada.id]))[ada.id].fanout is FanoutState.RISING, "it may have taken effect"
        change = partial(store.set_fanout, ada.id, FanoutState.RISING, FanoutState.PULLED, NOON)
        if alone:
            await until_done(change)  # one that was refused may have done it
            assert (await store.users([ada.id]))[ada.id].fanout is FanoutState.PULLED
            assert "has no replica that follows it" in caplog.text
        else:
            refused_until = time.monotonic() + 4  # far longer than the replica is waited for
            while time.monotonic() < refused_until:
                with is_unavailable():
                    await change()
                await asyncio.sleep(0.1)
    cluster.wait_until_whole()


def move(cluster: RedisCluster, key: bytes, taker: Redis, between: Callable[[], None]) -> None:
    """Move the slot of a key to another master, first one of its keys and then all, as redis-cli does."""
    giver = master_of(cluster, key)
    with redis.Redis(port=giver.port) as old, redis.Redis(port=taker.port) as new:
        slot = old.cluster("KEYSLOT", key)
        ids = {each: each.execute_command("CLUSTER MYID").decode() for each in (old, new)}
        new.cluster("SETSLOT", slot, "IMPORTING", ids[old])
        old.cluster("SETSLOT", slot, "MIGRATING", ids[new])
        for many in (1, 1_000_000):
            keys = old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, many)  # as one word it would be decoded
            assert old.migrate("127.0.0.1", taker.port, keys, 0, 5_000) == b"OK"
            between()
        for each in (new, old):
            each.cluster("SETSLOT", slot, "NODE", ids[new])


async def test_slots_move_while_retweets_are_counted(
    cluster: RedisCluster, ranking: RedisRanking, store: RedisStore, tmp_path: Path
) -> None:
    chains, given = Chains(), Given(store)
    roots = [chains.add() for _ in range(64)]
    await chains.tell_all(ranking)
    authors = await given.users(16)
    done = asyncio.Event()
    posts = dict.fromkeys((author.id for author in authors), 0)
    steps = 0

    async def retweet(root: Link) -> None:
        nonlocal steps
        while not done.is_set():
            await until_done(partial(chains.tell, ranking, chains.add(root)))
            steps += 1

    async def post(number: int) -> None:
        nonlocal steps
        author, followee = authors[number], authors[number - 1]
        while not done.is_set():
            await until_done(partial(store.add_tweet, given.draft(author), MOST))
            await until_done(partial(store.follow, author.id, followee.id, NOON, MOST))
            posts[author.id] += 1
            steps += 1

    def go_on() -> None:
        """Until they have done something, although a slot is in two places."""
        before, limit = steps, time.monotonic() + SECONDS
        while steps < before + 100:
            assert time.monotonic() < limit
            time.sleep(0.01)

    masters = {master_of(cluster, base_of(tmp_path, number)) for number in range(64)}
    bases = [base_of(tmp_path, root.id[-1] % 64) for root in roots[:3]]
    bases += [f"{{{prefix_of(tmp_path)}.store:{author.id[-1] % 64}}}:".encode() for author in authors[:3]]
    async with asyncio.TaskGroup() as group:
        for root in roots:
            group.create_task(retweet(root))
        for number in range(len(authors)):
            group.create_task(post(number))
        for base in dict.fromkeys(bases):
            taker = next(master for master in masters if master is not master_of(cluster, base))
            await asyncio.to_thread(move, cluster, base, taker, go_on)
        done.set()
    await assert_agrees(ranking, chains)
    for number, author in enumerate(authors):
        assert (await store.user_counts(author.id)).tweets == posts[author.id]
        assert await store.followers(authors[number - 1].id, None, 10) == [author.id]


async def test_a_server_that_is_of_a_cluster_is_not_taken_for_one(
    cluster: RedisCluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ranking = RedisRanking(Access([cluster.nodes[0].address]), SystemClock(), prefix=prefix_of(tmp_path))
    with is_unavailable("ranking_unavailable"):
        await ranking.check()
    await ranking.close()
    assert "is of a cluster: name more of its nodes" in caplog.text


async def test_servers_that_are_no_cluster_are_not_taken_for_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = redis_access("redis").servers[0]
    ranking = RedisRanking(Access([address, address]), SystemClock(), prefix=prefix_of(tmp_path))
    with is_unavailable("ranking_unavailable"):
        await ranking.check()
    await ranking.close()
    assert "is no node of a Redis Cluster" in caplog.text


async def test_a_store_does_not_change_from_one_server_to_a_cluster(cluster: RedisCluster, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for number, (shards, kind) in enumerate(((b"1", "redis-cluster"), (b"64", "redis"))):
            prefix = f"{prefix_of(tmp_path)}{number}"
            store = RedisStore(redis_access(kind), SystemClock(), prefix=prefix, seconds=30)
            stack.push_async_callback(store.close)
            await store.open()
            await store._shards.first.call("set", "shards", shards)
            with refused(Conflict, "shards_differ"):
                await store.open()


async def test_redis_is_entered_with_tls_and_a_password_only(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "authority"), Authority(tmp_path / "stranger")
    pem, own = authority.sign("redis", "127.0.0.1"), authority.sign("own", "127.0.0.1")
    tls = {
        "tls-cert-file": str(pem),
        "tls-key-file": str(pem),
        "tls-ca-cert-file": str(authority.certificate),
    }
    with started(Redis(tmp_path / "redis", password="open sesame", tls=tls)) as server:

        async def enter(password: str, believed: Authority | None, certificate: Path | None) -> None:
            access = Access(
                [server.address],
                password=password,
                tls_authority=believed.certificate if believed else None,
                tls_certificate=certificate,
                tls_key=certificate,
            )
            store, ranking = RedisStore(access, SystemClock()), RedisRanking(access, SystemClock())
            try:
                await store.open()
                await store.check()
                await ranking.check()
            finally:
                await store.close()
                await ranking.close()

        await enter("open sesame", authority, own)
        for wrong in (("wrong", authority, own), ("open sesame", stranger, own), ("open sesame", None, None)):
            with is_unavailable():
                await enter(*wrong)
        with is_unavailable():
            await enter("open sesame", authority, None)
