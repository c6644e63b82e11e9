"""Stores as released schemas had them, kept in `tests/schemas` as text: how they are written, and how they are set up.

`python -m tests.released` writes the files of this program's schemas, which is done once for each and never again.
"""

import asyncio
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import redis

from rookery.adapters.cassandra import connect
from rookery.adapters.cassandra.schema import MIGRATIONS as CASSANDRA_MIGRATIONS
from rookery.adapters.cassandra.schema import TABLES
from rookery.adapters.redis.store import SCHEMA as REDIS_SCHEMA
from rookery.adapters.sqlite.schema import MIGRATIONS as SQLITE_MIGRATIONS
from rookery.adapters.system import SystemClock
from rookery.client import Client
from tests.contract.adapters import cassandra
from tests.contract.adapters.redis import server as redis_server
from tests.serving import running_server
from tests.system.commands import database, rookery
from tools.servers.rookery import apply_schema

FOLDER = Path(__file__).with_name("schemas")
DIGESTS = FOLDER / "digests.txt"
LASTING = ("users", "tokens", "follows", "tweets")
"""What of a store is not past its time after a day."""
KEYSPACE = "released"
SECONDS = 120.0
"""For a statement: a table takes Cassandra long to make when it has those of a thousand tests already."""


def files(kind: str) -> Mapping[int, Path]:
    """The stored file of each schema of one kind of store."""
    found = {int(file.stem.rpartition("-")[2]): file for file in FOLDER.glob(f"{kind}-*.*")}
    return dict(sorted(found.items()))


# One SQLite file


def dump_sqlite(path: Path) -> str:
    with closing(sqlite3.connect(path)) as sql:
        pragmas = [
            f"PRAGMA {name} = {sql.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        return "\n".join([*pragmas, *sql.iterdump()]) + "\n"


def load_sqlite(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as sql:
        sql.executescript(text)


# A keyspace of Cassandra


async def dump_cassandra(keyspace: str) -> str:
    session = await connect(cassandra.access(), SystemClock(), keyspace=keyspace, seconds=SECONDS)
    try:
        lines = [one_line(statement) for migration in CASSANDRA_MIGRATIONS for statement in migration]
        for table in TABLES:
            rows = sorted(row for (row,) in await session.read(f"SELECT JSON * FROM {table}"))
            lines += [f"INSERT INTO {table} JSON '{row.replace(chr(39), chr(39) * 2)}'" for row in rows]
        return "\n".join(lines) + "\n"
    finally:
        await session.close()


async def load_cassandra(text: str, keyspace: str) -> None:
    outside = await connect(cassandra.access(), SystemClock(), keyspace=None, seconds=SECONDS)
    strategy = "{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}"
    await outside.change(f"CREATE KEYSPACE {keyspace} WITH replication = {strategy}")
    await outside.close()
    session = await connect(cassandra.access(), SystemClock(), keyspace=keyspace, seconds=SECONDS)
    try:
        for line in text.splitlines():
            await session.change(line)
    finally:
        await session.close()


def one_line(statement: str) -> str:
    return re.sub(r"\s+", " ", statement)


# Keys of one Redis


def dump_redis(keyspace: str) -> str:
    with redis.Redis(port=redis_server().port) as connection:
        keys = sorted(key for key in connection.scan_iter(count=1_000) if key.startswith(b"{%b." % keyspace.encode()))
        return "".join(
            json.dumps([part.decode("latin-1") for part in command]) + "\n"
            for key in keys
            for command in _made_by(connection, key)
        )


def _made_by(connection: Any, key: bytes) -> Iterator[list[bytes]]:
    match connection.type(key):
        case b"hash":
            yield [b"HSET", key, *(part for pair in sorted(connection.hgetall(key).items()) for part in pair)]
        case b"set":
            yield [b"SADD", key, *sorted(connection.smembers(key))]
        case b"zset":
            scored = connection.zrange(key, 0, -1, withscores=True)
            yield [b"ZADD", key, *(part for member, score in scored for part in (b"%d" % score, member))]
        case b"string":
            yield [b"SET", key, connection.get(key)]
        case other:
            raise AssertionError(other)
    if (millis := connection.pexpiretime(key)) > 0:
        yield [b"PEXPIREAT", key, b"%d" % millis]


def load_redis(text: str, keyspace: str) -> None:
    with redis.Redis(port=redis_server().port) as connection:
        for line in text.splitlines():
            name, key, *rest = (part.encode("latin-1") for part in json.loads(line))
            if name != b"PEXPIREAT":  # that time is past
                connection.execute_command(name, key.replace(KEYSPACE.encode(), keyspace.encode(), 1), *rest)


# Writing the files


async def _live(url: str) -> None:
    """A bit of everything that is kept: names, passwords, tokens, follows, chains, deletes, keys."""
    async with Client(url) as client:
        for name in ("ada", "Bob_2", "carl", "dora", "eve"):
            await client.register(name, "a password" if name != "eve" else None)
        for name in ("ada", "carl", "eve"):
            await client.follow("@Bob_2", f"@{name}")
        await client.follow("@ada", "@Bob_2")
        await client.unfollow("@Bob_2", "@carl")
        first = await client.post("ada", "Grüße 👩‍🚀\nand a second line", title="A title", count_retweet=41)
        last = first
        for name in ("Bob_2", "carl", "dora"):
            last = await client.retweet(
                name,
                last.id,
                body="" if name == "carl" else f"says {name}",
                idempotency_key=f"key-of-a-retweet-by-{name}",
            )
        gone = await client.post("ada", "gone")
        await client.delete_tweet("@ada", str(gone.id))
        await client.post("dora", "of a user who is deleted")
        await client.delete_user("@dora")


def digests(*flags: str) -> str:
    """What a store holds, as `rookery backup` tells it, but for what has an end."""
    with tempfile.TemporaryDirectory() as folder:
        done = rookery("backup", f"{folder}/backup", *flags)
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if line.startswith(LASTING))


def _write(file: Path, text: str) -> None:
    if not file.exists():  # what is released stays as it is
        file.write_text(text)
        print(file)  # noqa: T201 - says what it did


def _settings(folder: Path, lines: str) -> Path:
    """A settings file, and a data folder beside it."""
    file = folder / f"{os.urandom(4).hex()}.toml"
    file.write_text(f'data = "{file.with_suffix("")}"\n{lines}')
    return file


def write_all() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_server(folder) as server:
            asyncio.run(_live(server.url))
        where = ("--data", str(server.data))
        rookery("user", "token", "ada", *where)
        own = folder / "own.toml"
        own.write_text(f'data = "{server.data}"')
        _write(FOLDER / f"sqlite-{len(SQLITE_MIGRATIONS)}.sql", dump_sqlite(database(server.data)))
        _write(DIGESTS, digests(*where))
        on_redis = f'[store]\nkind = "redis"\nservers = ["{redis_server().address}"]\nkeyspace = "{KEYSPACE}"\n'
        rookery("copy", "--from", str(own), "--to", str(_settings(folder, on_redis)))
        _write(FOLDER / f"redis-{REDIS_SCHEMA}.jsonl", dump_redis(KEYSPACE))
        ring = cassandra.server().address
        on_cassandra = _settings(
            folder, f'[store]\nkind = "cassandra"\nservers = ["{ring}"]\nkeyspace = "{KEYSPACE}"\n'
        )
        apply_schema(["--config", str(on_cassandra), "--store-replication", "1"])
        rookery("copy", "--from", str(own), "--to", str(on_cassandra))
        _write(FOLDER / f"cassandra-{len(CASSANDRA_MIGRATIONS)}.cql", asyncio.run(dump_cassandra(KEYSPACE)))


if __name__ == "__main__":
    write_all()
