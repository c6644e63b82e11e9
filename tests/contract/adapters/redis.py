"""Redis under the contract suite: one real server with AOF, and keys of its own for each folder."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import redis

from rookery.adapters.redis import CLUSTER_SHARDS, Access, RedisRanking, RedisStore
from rookery.adapters.system import SystemClock
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from tests.contract.places import Damage, OpenStore, Part
from tests.servers import running
from tools.servers import Redis, RedisCluster


@cache
def server() -> Redis:
    return running(Redis)


@cache
def cluster() -> RedisCluster:
    return running(RedisCluster)


REDIS = ("redis", "redis-cluster")
"""One server, and the cluster."""


def redis_access(kind: str) -> Access:
    """How to get to one of these."""
    return Access([server().address]) if kind == "redis" else Access(cluster().address.split(","))


def prefix_of(folder: Path) -> str:
    """What keeps apart the keys of one folder."""
    return sha256(str(folder).encode()).hexdigest()[:16]


def base_of(folder: Path, shard: int = 0) -> bytes:
    return f"{{{prefix_of(folder)}:{shard}}}:".encode()


def opens_ranking(kind: str) -> Callable[[Path], AbstractAsyncContextManager[Ranking]]:
    """Opens the ranking of a folder."""

    @asynccontextmanager
    async def open_ranking(folder: Path) -> AsyncIterator[Ranking]:
        ranking = RedisRanking(redis_access(kind), SystemClock(), timeout=30, prefix=prefix_of(folder))
        try:
            yield ranking
        finally:
            await ranking.close()

    return open_ranking


def opens_store(kind: str) -> OpenStore:
    """Opens the store of a folder."""

    @asynccontextmanager
    async def open_store(folder: Path) -> AsyncIterator[Store]:
        store = RedisStore(redis_access(kind), SystemClock(), prefix=prefix_of(folder), seconds=30)
        try:
            await store.open()
            yield store
        finally:
            await store.close()

    return open_store


def damage(folder: Path, damages: Sequence[Damage]) -> None:
    with redis.Redis(port=server().port) as connection:
        _damage_in(connection, base_of(folder), damages)


def damage_on_cluster(folder: Path, damages: Sequence[Damage]) -> None:
    """Each tweet in the shard where it lies."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster().nodes[0].port) as connection:
        for shard in range(CLUSTER_SHARDS):
            _damage_in(connection, base_of(folder, shard), damages)


def _damage_in(connection: Any, base: bytes, damages: Sequence[Damage]) -> None:
    generation = connection.hget(base + b"meta", "gen") or b"0"
    prefix = base + generation + b":"
    rows = connection.hmget(prefix + b"l", [damage.tweet for damage in damages]) if damages else []
    for damage, row in zip(damages, rows, strict=True):
        if row is not None:  # else it is not of this shard
            _damage(connection, prefix, damage)


def _damage(connection: Any, prefix: bytes, damage: Damage) -> None:
    rows, counts, top = prefix + b"l", prefix + b"c", prefix + b"t"
    if damage.part is Part.ALL:
        connection.hdel(rows, damage.tweet)
        connection.hdel(counts, damage.tweet)
        connection.zrem(top, damage.tweet)
        return
    row: bytes | None = connection.hget(rows, damage.tweet)
    if row is None:
        return
    match damage.part:
        case Part.COUNT:
            connection.hset(counts, damage.tweet, damage.value)
            if row.startswith(b"1"):
                connection.zadd(top, {damage.tweet: damage.value})
        case Part.INITIAL:
            connection.hset(rows, damage.tweet, row[:17] + str(damage.value).encode())
        case Part.PARENT:
            connection.hset(rows, damage.tweet, row[:1] + bytes(damage.value or 16) + row[17:])
        case Part.LIVE:
            connection.hset(rows, damage.tweet, (b"1" if damage.value else b"0") + row[1:])
            if damage.value:
                connection.zadd(top, {damage.tweet: int(connection.hget(counts, damage.tweet) or 0)})
            else:
                connection.zrem(top, damage.tweet)
