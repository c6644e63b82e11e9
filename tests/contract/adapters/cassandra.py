"""Cassandra under the contract suite: one real node, and a keyspace for each folder.

Making tables takes longer than most tests, so keyspaces are used again: emptied row by row, which is quick for few.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from itertools import count
from pathlib import Path

from rookery.adapters.cassandra import Access, CassandraStore, apply_schema, check_schema, connect
from rookery.adapters.cassandra.schema import TABLES
from rookery.adapters.system import SystemClock
from rookery.ports.clock import Clock
from rookery.ports.store import Store
from tests.servers import running
from tools.servers import Cassandra

SECONDS = 30.0
"""Far more than is ever taken: how long a write may take has tests of its own."""


@cache
def server() -> Cassandra:
    return running(Cassandra)


def access() -> Access:
    return Access([server().address])


_numbers = count(1)
_taken: dict[str, tuple[str, str]] = {}
"""For each folder its keyspace, and the test that it is for."""
_free: list[str] = []


async def keyspace_of(folder: Path) -> str:
    """The keyspace of a folder, to the end of the test that asked for it first."""
    test, key = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0], str(folder)
    _free.extend(_taken.pop(old)[0] for old in [old for old, (_, owner) in _taken.items() if owner != test])
    if key not in _taken:
        if _free:
            keyspace = _free.pop()
            await empty(keyspace)
        else:
            keyspace = await new_keyspace()
        _taken[key] = (keyspace, test)
    return _taken[key][0]


async def new_keyspace() -> str:
    """One that no other test ever gets, for what is dated ahead and would outlast being emptied."""
    keyspace = f"contract_{next(_numbers)}"
    await apply_schema(access(), SystemClock(), keyspace, "1")
    return keyspace


async def empty(keyspace: str) -> None:
    """Take all rows of a keyspace away, but for what is made with the tables."""
    session = await connect(access(), SystemClock(), keyspace=keyspace, seconds=SECONDS)
    stamp = session.stamp()

    async def empty_table(table: str) -> None:
        columns = _KEYS.get(table, "id" if table.endswith("_by_id") else "list")
        where = " AND ".join(f"{column} = ?" for column in columns.split(", "))
        for row in await session.read(f"SELECT DISTINCT {columns} FROM {table}"):
            await session.write(f"DELETE FROM {table} WHERE {where}", *row, stamp=stamp)

    async def empty_purges() -> None:
        """These may be dated ahead. A user is never another test's, so neither are those who are taken away."""
        for user, written in await session.read("SELECT id, writetime(stamp) FROM user_to_purge WHERE list = 0"):
            query = "DELETE FROM user_to_purge WHERE list = 0 AND id = ?"
            await session.write(query, user, stamp=max(stamp, written + 1))

    try:
        await empty_purges()
        await session.each([partial(empty_table, table) for table in TABLES if table not in {"meta", "user_to_purge"}])
        await session.write("DELETE FROM meta WHERE name = 'told run'", stamp=stamp)
        await session.write("DELETE FROM meta WHERE name = 'unfinished'", stamp=stamp)
        await session.decide(("UPDATE meta SET value = ? WHERE name = 'secret' IF EXISTS", (os.urandom(32),)))
    finally:
        await session.close()


_KEYS = {
    "user_by_name": "name_key",
    "user_by_letter": "letter",
    "token_by_hash": "hash",
    "token_by_user": "user",
    "following": "follower",
    "follower": "followee, shard",
    "tweet_by_author": "author",
    "bare_retweet": "author, retweet",
    "idempotency": "key",
    "pending": "bucket, shard",
    "counted": "bucket, shard",
    "pending_bucket": "list_of",
}


async def opened(keyspace: str, clock: Clock | None = None) -> CassandraStore:
    """A store that goes by a clock of the test's; its timestamps are the machine's, as those of other tests."""
    session = await connect(access(), SystemClock(), keyspace=keyspace, seconds=SECONDS)
    await check_schema(session)
    return CassandraStore(session, clock or SystemClock())


@asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[Store]:
    store = await opened(await keyspace_of(folder))
    yield store
    await store.close()
