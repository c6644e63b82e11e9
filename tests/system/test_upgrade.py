"""Stores of every released schema, opened with this program: all is there, and life goes on."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis

from rookery.adapters.cassandra.schema import MIGRATIONS as CASSANDRA_MIGRATIONS
from rookery.adapters.redis.store import SCHEMA as REDIS_SCHEMA
from rookery.adapters.sqlite import Database, schema
from rookery.adapters.sqlite.schema import MIGRATIONS as SQLITE_MIGRATIONS
from rookery.adapters.system.faults import KILL_VARIABLE
from rookery.client import Client
from rookery.domain.errors import Conflict
from tests import released
from tests.contract.adapters import cassandra
from tests.contract.adapters.redis import server as redis_server
from tests.serving import running_server
from tests.system.commands import database, rookery
from tests.system.killing import all_steps

Place = Callable[[Path, Path], list[str]]
"""Sets a store up as its file says, in a folder; the flags that name it."""


def on_sqlite(file: Path, folder: Path) -> list[str]:
    released.load_sqlite(file.read_text(), database(folder / "data"))
    return []


def on_cassandra(file: Path, folder: Path) -> list[str]:
    keyspace = f"upgrade_{os.urandom(4).hex()}"
    asyncio.run(released.load_cassandra(file.read_text(), keyspace))
    return ["--store", "cassandra", "--store-servers", cassandra.server().address, "--store-keyspace", keyspace]


def on_redis(file: Path, folder: Path) -> list[str]:
    keyspace = f"upgrade_{os.urandom(4).hex()}"
    released.load_redis(file.read_text(), keyspace)
    return ["--store", "redis", "--store-servers", redis_server().address, "--store-keyspace", keyspace]


PLACES = {"sqlite": on_sqlite, "cassandra": on_cassandra, "redis": on_redis}
NEWEST = {"sqlite": len(SQLITE_MIGRATIONS), "cassandra": len(CASSANDRA_MIGRATIONS), "redis": REDIS_SCHEMA}
RELEASED = [(kind, version) for kind in PLACES for version in released.files(kind)]
IDS = [f"{kind}-{version}" for kind, version in RELEASED]


def test_every_schema_has_its_file() -> None:
    for kind, newest in NEWEST.items():
        assert list(released.files(kind)) == list(range(1, newest + 1))


@pytest.mark.parametrize(("kind", "version"), RELEASED, ids=IDS)
def test_all_of_a_released_store_is_there_and_life_goes_on(kind: str, version: int, tmp_path: Path) -> None:
    flags = PLACES[kind](released.files(kind)[version], tmp_path)
    where = [*flags, "--data", str(tmp_path / "data")]
    if version == NEWEST[kind]:
        assert f"schema {version}" in rookery("migrate", "--check", *where).stdout
    else:
        assert "[schema_too_old]" in rookery("migrate", "--check", *where, status=1).stderr
    assert f"schema {NEWEST[kind]}" in rookery("migrate", *where).stdout
    assert f"schema {NEWEST[kind]}" in rookery("migrate", "--check", *where).stdout
    assert released.digests(*where) == released.DIGESTS.read_text()
    with running_server(tmp_path, *flags) as server:
        asyncio.run(live_on(server.url))


async def live_on(url: str) -> None:
    async with Client(url) as client:
        (tweet,) = (await client.feed_page("@bob_2")).items
        assert (tweet.user_name, tweet.title, tweet.body) == ("ada", "A title", "Grüße 👩‍🚀\nand a second line")
        new = await client.retweet("eve", str(tweet.id), body="years later")
        assert [tweet.id for tweet in (await client.feed_page("@bob_2")).items] == [new.id, tweet.id]
        assert (await client.user("@Bob_2")).count_followers == 1
        await client.follow("@carl", "@eve")
        assert [seen.id for seen in (await client.feed_page("@carl")).items] == [new.id]


# What was released is never changed


def test_the_first_steps_of_sqlite_are_those_that_were_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, file in released.files("sqlite").items():
        monkeypatch.setattr(schema, "MIGRATIONS", SQLITE_MIGRATIONS[:version])
        with closing(sqlite3.connect(tmp_path / f"made-{version}", isolation_level=None)) as made:
            schema.migrate(made)
            released.load_sqlite(file.read_text(), tmp_path / f"stored-{version}")
            with closing(sqlite3.connect(tmp_path / f"stored-{version}")) as stored:
                assert tables(made) == tables(stored)


def tables(sql: sqlite3.Connection) -> list[str]:
    return [row[0] for row in sql.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")]


def test_the_first_steps_of_cassandra_are_those_that_were_released() -> None:
    for version, file in released.files("cassandra").items():
        steps = [released.one_line(statement) for step in CASSANDRA_MIGRATIONS[:version] for statement in step]
        stored = [line for line in file.read_text().splitlines() if not line.startswith("INSERT INTO ")]
        assert stored == steps


# What is refused


def test_a_schema_to_come_is_brought_up_by_whoever_may_and_refused_by_others(tmp_path: Path) -> None:
    """With a program that has one step more, as it is tried before there is one."""
    rookery("user", "add", "ada", "--data", str(tmp_path))
    path = database(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as sql, pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*SQLITE_MIGRATIONS, "ALTER TABLE user ADD COLUMN mood TEXT;"))
        with pytest.raises(Conflict, match="rookery migrate") as refused:
            schema.migrate(sql, only_new=True)
        assert refused.value.code == "schema_too_old"
        assert sql.execute("PRAGMA user_version").fetchone() == (len(SQLITE_MIGRATIONS),)
        schema.migrate(sql)
        assert sql.execute("SELECT name, mood FROM user").fetchall() == [("ada", None)]


async def test_what_an_older_rookery_made_is_kept_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rookery("user", "add", "ada", "--data", str(tmp_path))
    path = database(tmp_path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*SQLITE_MIGRATIONS, "UPDATE user SET name = 'other';"))
    with pytest.raises(Conflict, match="rookery migrate"):
        Database(path, migrates=False)
    left = path.with_name(f"{path.name}.before-schema-2-7.part")
    left.write_text("of one that was killed")
    opened = Database(path)
    assert opened.kept
    await opened.close()
    assert not left.exists()
    with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(opened.kept)) as kept:
        assert now.execute("SELECT name FROM user").fetchall() == [("other",)]
        assert kept.execute("SELECT name FROM user").fetchall() == [("ada",)]
        assert [sql.execute("PRAGMA user_version").fetchone()[0] for sql in (kept, now)] == [1, 2]
    assert opened.kept.stat().st_mode & 0o777 == 0o600
    opened = Database(path)
    assert opened.kept is None
    await opened.close()


_MIGRATION = """
import os, sys
from pathlib import Path
from rookery.adapters.sqlite import Database, schema
from rookery.adapters.system import steps
schema.MIGRATIONS = (*schema.MIGRATIONS, "UPDATE user SET name = 'other';")
Database(Path(sys.argv[1]), reached=steps(os.environ))
"""


@pytest.mark.parametrize("step", sorted(all_steps("migrate")))
def test_a_migration_that_is_killed_leaves_what_was_there(step: str, tmp_path: Path) -> None:
    """Also what is in the write-ahead log only, as a server was killed before."""
    rookery("user", "add", "ada", "--data", str(tmp_path))
    path = database(tmp_path)
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA wal_autocheckpoint = 0")
        with sql:
            sql.execute("UPDATE user SET display_name = 'in the log'")
        for file in tmp_path.glob("rookery.db*"):  # as a kill would leave them: closing would empty the log
            shutil.copy(file, tmp_path / f"killed-{file.name}")
    killed = tmp_path / "killed-rookery.db"
    for environment in ({KILL_VARIABLE: step}, {}):
        done = subprocess.run(
            [sys.executable, "-c", _MIGRATION, str(killed)], env={**os.environ, **environment}, check=False
        )
        assert done.returncode == (-signal.SIGKILL if environment else 0)
        with closing(sqlite3.connect(killed)) as now:
            found = now.execute("SELECT name, display_name FROM user").fetchall()
        assert found == [("ada" if environment else "other", "in the log")]
    kept = list(tmp_path.glob("killed-rookery.db.before-schema-*"))
    assert len(kept) == (2 if step == "migrate.kept" else 1)
    for file in kept:
        with closing(sqlite3.connect(file)) as sql:
            assert sql.execute("SELECT name, display_name FROM user").fetchall() == [("ada", "in the log")]


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    rookery("user", "add", "ada", "--data", str(tmp_path))
    with closing(sqlite3.connect(database(tmp_path))) as sql:
        sql.execute(f"PRAGMA user_version = {len(SQLITE_MIGRATIONS) + 1}")
    done = rookery("migrate", "--check", "--data", str(tmp_path), status=1)
    assert "[schema_too_new]" in done.stderr
    assert "[schema_too_new]" in rookery("migrate", "--data", str(tmp_path), status=1).stderr


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    assert "is made when" in rookery("migrate", "--check", "--data", str(tmp_path / "data")).stdout
    assert not (tmp_path / "data").exists()
    assert "schema 1" in rookery("migrate", "--data", str(tmp_path / "data")).stdout
    assert "schema 1" in rookery("migrate", "--check", "--data", str(tmp_path / "data")).stdout


def test_redis_of_a_later_rookery_is_refused(tmp_path: Path) -> None:
    flags = [*on_redis(released.files("redis")[1], tmp_path), "--data", str(tmp_path)]
    with redis.Redis(port=redis_server().port) as connection:
        connection.hset(f"{{{flags[5]}.store:0}}:meta", "schema", REDIS_SCHEMA + 1)
    for command in (("migrate", "--check"), ("migrate",), ("user", "list"), ("serve", "--port", "0")):
        assert "[schema_too_new]" in rookery(*command, *flags, status=1).stderr
