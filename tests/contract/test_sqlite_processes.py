"""Several processes at one SQLite file: one server, commands beside it, and whoever is killed."""

import asyncio
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from rookery.adapters.sqlite import Database, ServerLock
from rookery.adapters.sqlite.schema import MIGRATIONS, check, migrate
from rookery.domain.errors import Conflict
from rookery.domain.ids import UserId
from rookery.domain.users import UserRecord
from tests.contract.adapters.sqlite import by_hand, file_in, open_store, opened
from tests.contract.expecting import refused
from tests.contract.given import Given

_BOUND = 30

_HOLD = """
import sys
from pathlib import Path
from rookery.adapters.sqlite import ServerLock

lock = ServerLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

_OPEN = """
import asyncio, sys
from pathlib import Path
from rookery.adapters.sqlite import Database

for path in sys.argv[1:]:
    print("ready", flush=True)
    sys.stdin.readline()
    database = Database(Path(path))
    print("open", flush=True)
    asyncio.run(database.close())
"""

_REGISTER = """
import asyncio, sys
from pathlib import Path
from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials

async def main(path, name, many):
    database, clock = Database(Path(path)), SystemClock()
    store = SqliteStore(database, counts=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(many)):
        user = UserRecord(clock.new_user_id(), f"{name}_{number}", "")
        await store.add_user(user, Credentials())
        print(user.id.hex(), flush=True)
    await database.close()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def process(program: str, *arguments: object) -> AsyncIterator[Process]:
    """A program in a process of its own, which is gone at the end."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *map(str, arguments), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def line_of(running: Process) -> str:
    """The next line that it says."""
    assert running.stdout is not None
    line = await asyncio.wait_for(running.stdout.readline(), _BOUND)
    assert line, (await running.communicate())[1].decode()
    return line.decode().strip()


async def rest_of(running: Process) -> list[str]:
    """Let it begin, and all that it says until it ends well."""
    said, complained = await asyncio.wait_for(running.communicate(b"go\n"), _BOUND)
    assert running.returncode == 0, complained.decode()
    return said.decode().split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_in(tmp_path)


# One server


def test_a_second_server_is_refused_until_the_first_is_closed(path: Path) -> None:
    with ServerLock(path):
        for _ in range(2):
            with refused(Conflict, "database_in_use"):
                ServerLock(path)
    with ServerLock(path):
        pass


def test_servers_of_different_files_do_not_meet(path: Path) -> None:
    with ServerLock(path), ServerLock(path.with_name("other.db")):
        pass


async def test_a_server_in_another_process_is_seen(path: Path) -> None:
    async with process(_HOLD, path) as holder:
        assert await line_of(holder) == "held"
        with refused(Conflict, "database_in_use"):
            ServerLock(path)
        await asyncio.wait_for(holder.communicate(b""), _BOUND)  # its input ends, and so does it
        with ServerLock(path):
            pass


async def test_a_killed_server_leaves_no_lock(path: Path) -> None:
    async with process(_HOLD, path) as holder:
        assert await line_of(holder) == "held"
        os.kill(holder.pid, signal.SIGKILL)
        assert await asyncio.wait_for(holder.wait(), _BOUND) == -signal.SIGKILL
        with ServerLock(path):
            pass


# Commands beside it


async def test_a_command_beside_a_server_writes_too(path: Path) -> None:
    with ServerLock(path):
        async with open_store(path.parent) as store, process(_REGISTER, path, "cli", 100) as command:
            assert await line_of(command) == "ready"
            given = Given(store)
            theirs = asyncio.create_task(rest_of(command))
            mine: list[UserRecord] = []
            while not theirs.done() or len(mine) < 100:
                mine += await asyncio.gather(*(given.user() for _ in range(8)))
            ids = [UserId(bytes.fromhex(line)) for line in await theirs]
            assert len(ids) == 100
            found = await store.users([*ids, *(user.id for user in mine)])
            assert len(found) == 100 + len(mine)


async def test_a_write_waits_for_another_process_to_finish_its_own(path: Path) -> None:
    async with open_store(path.parent) as store:
        given = Given(store)
        with by_hand(path) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = [asyncio.create_task(given.user()) for _ in range(4)]
            done, _ = await asyncio.wait(waiting, timeout=0.2)
            assert not done
            assert await store.users([]) == {}
            assert await store.user_by_name("ada") is None, "reads do not wait"
            other.execute("COMMIT")
        people = await asyncio.wait_for(asyncio.gather(*waiting), _BOUND)
        assert len(await store.users([person.id for person in people])) == 4


async def test_opening_the_file_twice_in_one_process_takes_no_lock_from_the_first(path: Path) -> None:
    """POSIX: whoever closes a descriptor of a file lets go of all the locks that his process has on it.

    Then the next process to close takes itself for the last, and removes the log that others go on writing.
    """

    async def register_elsewhere(name: str) -> list[UserId]:
        async with process(_REGISTER, path, name, 5) as command:
            assert await line_of(command) == "ready"
            return [UserId(bytes.fromhex(line)) for line in await rest_of(command)]

    async with open_store(path.parent) as first, open_store(path.parent) as second:
        given = Given(first)
        ids = [user.id for user in await given.users(5)]
        for turn in range(3):
            ids += await register_elsewhere(f"turn_{turn}")
            ids += [user.id for user in await given.users(5)]
            assert set(await first.users(ids)) == set(await second.users(ids)) == set(ids)
        assert path.with_name(path.name + "-wal").exists(), "the log was removed while it was written"
    with by_hand(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with open_store(path.parent) as store:
        assert set(await store.users(ids)) == set(ids)


# Two at once from the start


async def test_processes_that_make_a_file_at_the_same_moment_all_open_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(40)]
    async with (
        process(_OPEN, *paths) as first,
        process(_OPEN, *paths) as second,
        process(_OPEN, *paths) as third,
        process(_OPEN, *paths) as fourth,
    ):
        programs = (first, second, third, fourth)
        for path in paths:
            for program in programs:
                assert await line_of(program) == "ready"
            for program in programs:
                assert program.stdin is not None
                program.stdin.write(b"go\n")
            for program in programs:
                assert await line_of(program) == "open"
            with by_hand(path) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
                assert connection.execute("SELECT count(*) FROM meta WHERE name = 'secret'").fetchone() == (1,)


@pytest.mark.parametrize("lock", ["IMMEDIATE", "EXCLUSIVE"])
async def test_opening_waits_for_another_process_that_is_making_the_file(path: Path, lock: str) -> None:
    with by_hand(path) as other:
        other.execute(f"BEGIN {lock}")
        opening = asyncio.create_task(asyncio.to_thread(Database, path))
        await asyncio.wait([opening], timeout=0.2)
        other.execute("COMMIT")
    database = await asyncio.wait_for(opening, _BOUND)
    await database.close()


@pytest.mark.parametrize("moment", range(1, 8))
def test_a_file_that_is_being_made_is_never_taken_for_another_programs(path: Path, moment: int) -> None:
    """Just before one of the questions is answered another process makes the file, unless it has to wait for us."""
    asked: list[str] = []

    def make_it_now(statement: str) -> None:
        asked.append(statement)
        if len(asked) == moment:
            with by_hand(path) as other, suppress(sqlite3.OperationalError):
                other.execute("PRAGMA busy_timeout = 0")
                migrate(other)

    with by_hand(path) as connection:
        connection.set_trace_callback(make_it_now)
        check(connection)


# Whoever is killed


@pytest.mark.parametrize("after", [1, 37, 150])
async def test_what_a_killed_server_had_answered_is_there(path: Path, after: int) -> None:
    async with process(_REGISTER, path, "killed", 100_000) as server:
        assert server.stdin is not None
        assert await line_of(server) == "ready"
        server.stdin.write(b"go\n")
        answered = [UserId(bytes.fromhex(await line_of(server))) for _ in range(after)]
        os.kill(server.pid, signal.SIGKILL)
        said, _ = await asyncio.wait_for(server.communicate(), _BOUND)
        answered += [UserId(bytes.fromhex(line)) for line in said.decode().split() if len(line) == 32]
    with by_hand(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with open_store(path.parent) as store:
        assert set(await store.users(answered)) == set(answered)
        await Given(store).user()


async def test_a_reader_that_stays_does_not_hold_up_writes(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        with by_hand(path) as reader:
            reader.execute("BEGIN")
            before = reader.execute("SELECT count(*) FROM user").fetchone()
            for database in (first, second):
                await database.write(
                    lambda sql: sql.execute("INSERT OR REPLACE INTO meta VALUES ('probe', x'00')").rowcount
                )
            assert reader.execute("SELECT count(*) FROM user").fetchone() == before
