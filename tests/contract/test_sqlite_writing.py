"""The one writer of a SQLite file: groups of writes, and what one of them does to its neighbours."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.sqlite.database import WAL_BYTES
from rookery.adapters.sqlite.writing import BATCH, WAITING, Writer
from rookery.domain.errors import Unavailable
from rookery.ports.store import Credentials
from tests.contract.adapters.sqlite import file_in, opened
from tests.contract.expecting import refused
from tests.contract.given import MOST, NOON, Given

T = TypeVar("T")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(file_in(tmp_path)) as database:
        yield database


@asynccontextmanager
async def writer_held(database: Database) -> AsyncIterator[None]:
    """The writer is busy until the end, so that what is written meanwhile becomes one group."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(30)

    held = asyncio.create_task(database.write(hold))
    assert await asyncio.to_thread(begun.wait, 30)
    try:
        yield
    finally:
        go_on.set()
        await held


async def in_one_group(database: Database, *writes: Awaitable[T]) -> list[T | BaseException]:
    """What each of these writes is answered when they wait for the writer together, in this order."""
    async with writer_held(database):
        tasks = [asyncio.ensure_future(write) for write in writes]
        await asyncio.sleep(0)  # each is in the queue
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)


@pytest.mark.parametrize(("writes", "commits"), [(BATCH, 1), (BATCH + 1, 2)])
async def test_writes_that_wait_together_are_committed_together(database: Database, writes: int, commits: int) -> None:
    statements: list[str] = []
    await database.write(lambda sql: sql.set_trace_callback(statements.append))
    statements.clear()
    store = SqliteStore(database, counts=True)
    await in_one_group(database, *(store.check() for _ in range(writes)))
    assert statements.count("COMMIT") == 1 + commits, "one of the write that held the writer, and theirs"


async def test_writes_of_a_group_take_effect_in_order_and_see_those_before(database: Database) -> None:
    def append(number: int) -> Callable[[sqlite3.Connection], bytes]:
        def write(sql: sqlite3.Connection) -> bytes:
            row = sql.execute("SELECT value FROM meta WHERE name = 'list'").fetchone()
            value = (row[0] if row else b"") + bytes([number])
            sql.execute("INSERT OR REPLACE INTO meta VALUES ('list', ?)", (value,))
            return value

        return write

    answers = await in_one_group(database, *(database.write(append(number)) for number in range(50)))
    assert answers == [bytes(range(number + 1)) for number in range(50)]


async def test_a_mistake_in_one_write_is_its_own_alone(database: Database) -> None:
    def mistake(sql: sqlite3.Connection) -> None:
        sql.execute("INSERT INTO meta VALUES ('mistake', x'00')")
        raise ZeroDivisionError

    def fine(sql: sqlite3.Connection) -> str:
        sql.execute("INSERT OR REPLACE INTO meta VALUES ('fine', x'00')")
        return "fine"

    first, second, third = await in_one_group(
        database, database.write(fine), database.write(mistake), database.write(fine)
    )
    assert (first, third) == ("fine", "fine")
    assert isinstance(second, ZeroDivisionError)
    names = {row[0] for row in database.reader.execute("SELECT name FROM meta")}
    assert names == {"secret", "fine"}


async def test_a_write_that_breaks_a_constraint_does_not_fail_its_neighbours(database: Database) -> None:
    store = SqliteStore(database, counts=True)
    given = Given(store)
    ada = await given.user()
    before, after = given.draft(ada), given.draft(ada)
    first, second, third = await in_one_group(
        database,
        store.add_tweet(before, MOST),
        store.add_follows([(ada.id, given.unknown_user())], NOON),
        store.add_tweet(after, MOST),
    )
    assert isinstance(second, Exception)
    assert not isinstance(first, BaseException), f"a neighbour's write was answered {first!r}"
    assert not isinstance(third, BaseException), f"a neighbour's write was answered {third!r}"
    assert set(await store.tweets([before.id, after.id])) == {before.id, after.id}
    assert await store.followees(ada.id, None, 10) == []


async def test_a_database_error_is_told_and_the_writer_goes_on(database: Database) -> None:
    (answer,) = await in_one_group(database, database.write(lambda sql: sql.execute("no such statement").rowcount))
    assert isinstance(answer, Unavailable)
    assert await database.write(lambda sql: sql.execute("SELECT 1").fetchone()) == (1,)


async def test_more_writes_than_may_wait_are_all_answered(database: Database) -> None:
    many = WAITING + 100
    answers = await in_one_group(
        database, *(database.write(lambda sql: sql.execute("SELECT 1").fetchone()[0]) for _ in range(many))
    )
    assert answers == [1] * many


async def test_a_write_whose_caller_gave_up_harms_nobody(database: Database) -> None:
    store = SqliteStore(database, counts=True)
    given = Given(store)
    ada = await given.user()
    async with writer_held(database):
        left = asyncio.create_task(given.post(ada))
        stays = asyncio.create_task(given.post(ada))
        await asyncio.sleep(0)
        left.cancel()
    tweet = await asyncio.wait_for(stays, 30)
    with pytest.raises(asyncio.CancelledError):
        await left
    assert await store.tweets([tweet.id]) == {tweet.id: tweet}
    await store.check()


def test_a_writer_outlives_the_loop_of_a_caller(tmp_path: Path) -> None:
    """A command runs more than one loop after the other, and one may end while its write still waits."""
    database = Database(file_in(tmp_path))
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(30)

    async def give_up() -> None:
        held = asyncio.create_task(database.write(hold))
        await asyncio.to_thread(begun.wait, 30)
        held.cancel()

    async def go_on_elsewhere() -> None:
        go_on.set()
        await asyncio.wait_for(SqliteStore(database, counts=True).check(), 30)
        await database.close()

    asyncio.run(give_up())
    asyncio.run(go_on_elsewhere())


async def test_closing_twice_is_closing(database: Database) -> None:
    await database.close()
    await database.close()


async def test_a_write_whose_turn_does_not_come_is_refused_and_not_done(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rookery.adapters.sqlite.writing.WAIT_SECONDS", 0.01)
    store = SqliteStore(database, counts=True)
    given = Given(store)
    late = [given.person("late"), given.person("later")]
    async with writer_held(database):
        tasks = [asyncio.create_task(store.add_user(person, Credentials())) for person in late]
        await asyncio.sleep(0.02)  # the time that is measured
    for task in tasks:
        with refused(Unavailable, "busy"):
            await task
    assert await store.users([person.id for person in late]) == {}
    in_time = await given.user("in_time")
    assert await store.users([in_time.id]) == {in_time.id: in_time}


async def test_a_write_that_finds_no_place_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rookery.adapters.sqlite.writing.WAIT_SECONDS", 0.01)
    store = SqliteStore(database, counts=True)
    async with writer_held(database):
        waiting = [asyncio.create_task(store.check()) for _ in range(WAITING)]
        await asyncio.sleep(0)  # each is in its place
        with refused(Unavailable, "busy"):
            await store.check()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {type(None), Unavailable}
    monkeypatch.undo()  # a busy machine takes longer to turn to the writer
    await store.check()


async def test_a_writer_thread_that_dies_is_replaced_and_counted(database: Database) -> None:
    def die(_: sqlite3.Connection) -> None:
        raise SystemExit

    first, second = await in_one_group(database, database.write(die), database.write(lambda _: 1))
    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable), "its outcome is not known"
    assert await asyncio.wait_for(database.write(lambda _: 2), 30) == 2
    restarts = next(each for each in database.readings() if each.name == "sqlite_writer_restarts_total")
    assert restarts.value == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_thread_that_is_gone_is_replaced_by_the_next_write(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that meets an error even in dealing with one, as it may without memory."""

    def die(_: sqlite3.Connection) -> None:
        raise SystemExit

    def die_again(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_recover", die_again)
        dying = asyncio.create_task(database.write(die))
        async with asyncio.timeout(30):
            while any(thread.name == "sqlite-writer" for thread in threading.enumerate()):
                await asyncio.sleep(0.001)
    with refused(Unavailable, "store_unavailable"):
        await asyncio.wait_for(dying, 30)
    assert await asyncio.wait_for(database.write(lambda _: 2), 30) == 2
    restarts = next(each for each in database.readings() if each.name == "sqlite_writer_restarts_total")
    assert restarts.value == 1


async def test_a_write_that_hangs_is_refused_in_time_and_told_when_it_takes_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rookery.adapters.sqlite.writing.WAIT_SECONDS", 0.2)
    database = Database(file_in(tmp_path), is_bounded=True)
    late = asyncio.Event()
    database.when_late(late.set)
    begun, go_on = threading.Event(), threading.Event()

    def hang(sql: sqlite3.Connection) -> None:
        sql.execute("INSERT INTO meta VALUES ('late', x'00')")
        begun.set()
        assert go_on.wait(30)

    try:
        hanging = asyncio.create_task(database.write(hang))
        assert await asyncio.to_thread(begun.wait, 30)
        behind = asyncio.create_task(database.write(lambda sql: sql.execute("INSERT INTO meta VALUES ('b', x'00')")))
        with refused(Unavailable, "store_unavailable"):
            await asyncio.wait_for(hanging, 10)
        with refused(Unavailable, "busy"):
            await asyncio.wait_for(behind, 10)
        assert not late.is_set()
    finally:
        go_on.set()
    await asyncio.wait_for(late.wait(), 30)
    names = {row[0] for row in database.reader.execute("SELECT name FROM meta")}
    assert names == {"secret", "late"}, "what was begun is there, what waited behind it is not"
    await database.close()


async def test_the_log_that_grew_behind_a_reader_is_cut_when_it_is_gone(
    database: Database,
) -> None:
    def fill(sql: sqlite3.Connection) -> None:
        sql.execute("INSERT OR REPLACE INTO meta VALUES ('large', randomblob(4000000))")

    def size() -> float:
        value = next(each.value for each in database.readings() if each.name == "sqlite_wal_bytes")
        assert isinstance(value, int)
        return value

    async with database.snapshot():
        for _ in range(20):
            await database.write(fill)
        grown = size()
        assert grown > WAL_BYTES
    for _ in range(4):  # one moves the log into the file, the next begins it anew
        await database.write(lambda sql: sql.execute("INSERT OR REPLACE INTO meta VALUES ('small', x'00')"))
    assert size() <= WAL_BYTES
