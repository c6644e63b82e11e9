"""Redis under the contract suite: one real server with AOF, and keys of its own for each folder."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import redis

from rookery.adapters.redis import RedisRanking
from rookery.adapters.system import SystemClock
from rookery.ports.ranking import Ranking
from tests.contract.places import Damage, Part
from tests.servers import running
from tools.servers import Redis


@cache
def server() -> Redis:
    return running(Redis)


def base_of(folder: Path) -> bytes:
    return b"{%b}:" % sha256(str(folder).encode()).hexdigest()[:16].encode()


@asynccontextmanager
async def open_ranking(folder: Path) -> AsyncIterator[Ranking]:
    ranking = RedisRanking(server().address, SystemClock(), timeout=30, base=base_of(folder))
    try:
        yield ranking
    finally:
        await ranking.close()


def damage(folder: Path, damages: Sequence[Damage]) -> None:
    with redis.Redis(port=server().port) as connection:
        base = base_of(folder)
        generation = connection.hget(base.decode() + "meta", "gen") or b"0"
        assert isinstance(generation, bytes)
        for damage in damages:
            _damage(connection, base + generation + b":", damage)


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
