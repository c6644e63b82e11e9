"""What is particular to a SQLite file: how it is kept, and which files are refused."""

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from rookery.adapters.sqlite import Database, ServerLock, SqliteStore
from rookery.adapters.sqlite.database import SNAPSHOT_SECONDS
from rookery.adapters.sqlite.schema import APPLICATION_ID, MIGRATIONS
from rookery.domain.errors import Conflict
from rookery.ports.store import Store
from tests.contract.adapters.mounts import mounted_tmpfs, remount_read_only
from tests.contract.adapters.sqlite import by_hand, file_in, open_store, opened
from tests.contract.expecting import refused, unavailable
from tests.contract.given import Given


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_in(tmp_path)


def pragma(connection: sqlite3.Connection, name: str) -> object:
    value: object = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def open_files(folder: Path) -> list[str]:
    """What this process holds open in a folder."""
    gc.collect()  # what an exception still holds is nobody's
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the one that listed them
            continue
    return [link for link in links if link.startswith(str(folder))]


# How it is kept


class HandTimer(threading.Timer):
    """A timer whose time comes when a test says so."""

    made: ClassVar[list["HandTimer"]] = []

    def start(self) -> None:
        self.made.append(self)


async def test_a_snapshot_that_nobody_reads_ends_and_frees_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a backup does whose output is not taken away: the log grows behind its snapshot until that is too old."""
    monkeypatch.setattr(threading, "Timer", HandTimer)
    log = path.with_name(path.name + "-wal")

    def free() -> bool:
        with closing(sqlite3.connect(path)) as other:
            return bool(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)

    async with opened(path) as database, database.snapshot() as run:
        timer = HandTimer.made.pop()
        assert timer.interval == SNAPSHOT_SECONDS
        assert await run(lambda sql: sql.execute("SELECT count(*) FROM user").fetchone()) == (0,)
        await Given(SqliteStore(database, counts=True)).user("ada")
        assert not await asyncio.to_thread(free)
        await asyncio.to_thread(timer.function)
        assert await asyncio.to_thread(free)
        assert log.stat().st_size == 0
        with refused(Conflict, "snapshot_too_old"):
            await run(lambda sql: sql.execute("SELECT 1").fetchone())
    assert timer.finished.is_set(), "it is cancelled with the snapshot"


async def test_each_commit_is_synced_to_a_write_ahead_log(path: Path) -> None:
    async with opened(path) as database:
        names = ("journal_mode", "synchronous", "foreign_keys")
        assert await database.write(lambda sql: [pragma(sql, name) for name in names]) == ["wal", 2, 1]


async def test_the_file_says_whose_it_is(path: Path) -> None:
    async with opened(path):
        pass
    with by_hand(path) as connection:
        assert pragma(connection, "application_id") == APPLICATION_ID
        assert pragma(connection, "user_version") == len(MIGRATIONS)
    assert path.read_bytes()[68:72] == b"Rook"


async def test_columns_take_only_their_type(path: Path) -> None:
    async with opened(path):
        pass
    with by_hand(path) as connection:
        loose = connection.execute(
            "SELECT name FROM pragma_table_list WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND NOT strict"
        ).fetchall()
        assert loose == []


async def test_reads_can_not_write(path: Path) -> None:
    async with opened(path) as database:
        with unavailable(), database.reading() as sql:
            sql.execute("DELETE FROM meta")
        with unavailable():
            await database.read_long(lambda sql: sql.execute("DELETE FROM meta"))
        assert await SqliteStore(database, counts=True).secret()


async def test_the_folder_is_made(tmp_path: Path) -> None:
    path = file_in(tmp_path / "not" / "there" / "yet")
    async with opened(path) as database:
        await SqliteStore(database, counts=True).check()
    assert path.exists()


async def test_opening_again_changes_no_table(path: Path) -> None:
    def tables() -> list[str]:
        with by_hand(path) as connection:
            return [row[0] for row in connection.execute("SELECT sql FROM sqlite_schema ORDER BY name")]

    async with opened(path):
        first = tables()
    async with opened(path):
        assert tables() == first


async def test_closing_leaves_one_file_and_nothing_open(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await Given(store).user()
        assert open_files(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [file_in(tmp_path).name]
    assert open_files(tmp_path) == []


async def test_a_long_read_sees_one_moment_while_writes_go_on(path: Path) -> None:
    async with opened(path) as database:
        given = Given(SqliteStore(database, counts=True))
        ada = await given.user()
        await given.post(ada)
        begun, go_on = threading.Event(), threading.Event()

        def count_twice(sql: sqlite3.Connection) -> tuple[int, int]:
            query = "SELECT count(*) FROM tweet"
            first = sql.execute(query).fetchone()[0]
            begun.set()
            assert go_on.wait(10)
            return first, sql.execute(query).fetchone()[0]

        async with asyncio.TaskGroup() as tasks:
            counted = tasks.create_task(database.read_long(count_twice))
            assert await asyncio.to_thread(begun.wait, 10)
            tweet = await given.post(ada)
            assert await SqliteStore(database, counts=True).tweets([tweet.id]), "the bounded reads go on"
            go_on.set()
        assert counted.result() == (1, 1)


async def test_nothing_of_what_was_deleted_is_kept_to_be_read(path: Path) -> None:
    """Not its text, and not what its author signed in with: nobody asks for them again but whoever has the file."""
    async with open_store(path.parent) as store:
        given = Given(store)
        ada = await given.user("ada", token=b"t" * 32, password="$argon2id$secret")
        tweet = await given.post(ada)
        await store.delete_tweet(tweet.id)
        await store.delete_user(ada.id)
    with by_hand(path) as connection:
        assert connection.execute("SELECT title, body FROM tweet").fetchall() == [("", "")]
        assert connection.execute("SELECT password_hash FROM user").fetchall() == [(None,)]
        assert connection.execute("SELECT * FROM token").fetchall() == []


# What is refused


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def assert_refused_untouched(path: Path, code: str) -> None:
    before = contents(path.parent)
    with refused(Conflict, code):
        Database(path)
    assert open_files(path.parent) == []
    assert contents(path.parent) == before


async def test_a_file_of_a_later_rookery_is_refused_and_untouched(path: Path) -> None:
    async with open_store(path.parent) as store:
        await Given(store).user("ada")
    with by_hand(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    assert_refused_untouched(path, "schema_too_new")
    with by_hand(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    async with open_store(path.parent) as store:
        assert await store.user_by_name("ada")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_another_programs_database_is_refused_and_untouched(path: Path, journal: str) -> None:
    with by_hand(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE diary (day TEXT, entry TEXT)")
        connection.execute("INSERT INTO diary VALUES ('Monday', 'Nothing of note.')")
    assert_refused_untouched(path, "not_rookery")


@pytest.mark.parametrize("content", [b"Dear diary,\nnothing of note.\n" * 100, b"short", b"\xff" * 8192])
def test_a_file_that_is_no_database_is_refused_and_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert_refused_untouched(path, "not_rookery")


async def test_an_empty_file_becomes_a_database(path: Path) -> None:
    path.touch()
    async with open_store(path.parent) as store:
        await store.check()


async def test_a_damaged_file_is_unavailable_to_all_who_ask(tmp_path: Path, path: Path) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada = await given.user("ada")
        await store.add_tweets([given.draft(ada) for _ in range(2_000)])
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))  # the tables are there, their rows are not

    async def read(store: Store) -> None:
        await store.users([ada.id])
        await store.user_by_name("ada")
        await store.user_counts(ada.id)
        await store.walk_tweets(given.unknown_tweet(), 10_000)

    with unavailable():
        async with open_store(tmp_path) as store:
            await read(store)


@pytest.mark.parametrize("what", ["parent_is_a_file", "file_is_a_folder"])
async def test_a_path_that_can_not_be_is_unavailable(tmp_path: Path, what: str) -> None:
    if what == "parent_is_a_file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "rookery.db"
        with unavailable():
            ServerLock(path)
    else:
        path = tmp_path / "rookery.db"
        path.mkdir()
    with unavailable():
        Database(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_tmpfs(tmp_path / "disk", "4m") as folder:
        yield folder


async def test_a_disk_that_is_read_only_is_unavailable(small_disk: Path) -> None:
    async with open_store(small_disk / "there") as store:
        await store.check()
    remount_read_only(small_disk)
    for folder in (small_disk / "there", small_disk / "new", small_disk):
        with unavailable():
            Database(file_in(folder))
        with unavailable():
            ServerLock(file_in(folder))
    assert open_files(small_disk) == []
