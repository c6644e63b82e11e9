"""A restore that is killed at each of its steps: nothing acknowledged is lost, and nobody uses a part of a store."""

import asyncio
import os
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from rookery.adapters.sqlite import replacing
from rookery.cli import build
from rookery.client import Client
from rookery.config import load
from rookery.domain.copies import Part
from rookery.domain.errors import Conflict
from rookery.services.copying import Digest, digest_of
from rookery.wiring import Sharing, open_backends
from tests.contract.adapters import redis
from tests.contract.expecting import refused
from tests.serving import Server, running_server
from tests.system.clients import leading
from tests.system.commands import database, rookery
from tests.system.killing import all_steps, killed_at

IN_JOURNAL = 30
"""So many tweets at least are in the write-ahead log only when the server is killed."""
FORCED = sorted(all_steps("restore") | {step for step in all_steps("replace") if "damaged" not in step})
REPLACED = {"replace.renamed", "restore.counted", "restore.cleared"}
"""After these the new store is in its place, and its restore has not ended."""

Holds = Mapping[Part, Digest]


class World:
    """`backup` is of one world; the server of another one, in `old`, was killed."""

    def __init__(self, folder: Path) -> None:
        self.backup, self.old = folder / "backup", folder / "old"
        with running_server(folder / "new", measured=False) as server:
            asyncio.run(live(server, "new", 30))
            rookery("backup", str(self.backup), "--data", str(server.data))
        self.new_holds = holds(folder / "new" / "data")
        server = Server(self.old, measured=False)
        server.start()
        asyncio.run(live(server, "old", 200))
        posted = 201
        while rows_without_journal(self.old, folder / f"bare{posted}") > posted - IN_JOURNAL:
            asyncio.run(post(server, "old", IN_JOURNAL))
            posted += IN_JOURNAL
        server.kill()
        shutil.copytree(self.old, folder / "copy")
        self.old_holds = holds(folder / "copy")
        assert self.old_holds[Part.TWEETS].rows == posted


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def data(world: World, tmp_path: Path) -> Path:
    """The data folder of the server that was killed."""
    return Path(shutil.copytree(world.old, tmp_path / "data"))


async def live(server: Server, name: str, many: int) -> None:
    async with Client(server.url) as client:
        first = await client.post(name, "first")
        await client.retweet("reader", first.id)
    await post(server, name, many - 1)


async def post(server: Server, name: str, many: int) -> None:
    async with Client(server.url) as client:
        for number in range(many):
            await client.post(name, f"{number} {'x' * 200}")


def journal(data: Path) -> Path:
    return data / "rookery.db-wal"


def rows_without_journal(data: Path, folder: Path) -> int:
    folder.mkdir()
    shutil.copy(database(data), database(folder))
    with closing(sqlite3.connect(database(folder))) as sql:
        return int(sql.execute("SELECT count(*) FROM tweet").fetchone()[0])


def holds(data: Path, *flags: str) -> Holds:
    """What a store holds, opened as a server would; or the failure that keeps a server from it."""
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    settings = load(flags={"data": str(data), **given}, environ={}, file=Path(os.devnull)).settings

    async def look() -> Holds:
        async with open_backends(settings, Sharing.NO_SERVER) as backends:
            now = backends.clock.now()
            return {part: await digest_of(backends.store, part, now, lambda _: None) for part in Part}

    return asyncio.run(look())


def restore(world: World, data: Path, *flags: str) -> None:
    """Run it in this process, which takes a third of the time."""
    command = ["restore", str(world.backup), "--data", str(data), "--config", os.devnull, *flags]
    build()(command, exit_on_error=False, result_action="return_value")


def set_aside(data: Path, folder: Path) -> list[Holds]:
    """What each of the stores holds that were put aside."""
    found = []
    for number, aside in enumerate(sorted(data.glob("rookery.db.before-restore-*"))):
        if not aside.name.endswith("-wal"):
            (folder / f"aside{number}").mkdir()
            for file in data.glob(f"{aside.name}*"):
                shutil.copy(
                    file, database(folder / f"aside{number}").with_name(file.name.replace(aside.name, "rookery.db"))
                )
            found.append(holds(folder / f"aside{number}"))
    return found


@pytest.mark.parametrize("step", [*FORCED, "restore.page:4"])
def test_a_forced_restore_that_is_killed_leaves_all_of_one_store_or_is_refused(
    step: str, world: World, data: Path, tmp_path: Path
) -> None:
    command = ("restore", str(world.backup), "--data", str(data), "--force")
    assert killed_at(step, *command)
    if step in REPLACED:
        with refused(Conflict, "store_unfinished"):
            holds(data)
    elif step == "restore.finished":
        assert holds(data) == world.new_holds
    else:
        assert holds(data) == world.old_holds, "as if nobody had begun"
    restore(world, data, "--force")
    assert holds(data) == world.new_holds
    aside = set_aside(data, tmp_path)
    assert aside[0] == world.old_holds, "all that was acknowledged is kept"
    assert len(aside) == (2 if step == "restore.finished" else 1)
    left = {file.name for file in data.iterdir() if not file.name.startswith("rookery.db.before-restore-")}
    assert left == {"rookery.db", "rookery.db.lock"}


@pytest.mark.parametrize("step", ["restore.noted", "restore.page:2", "restore.filled", "restore.counted"])
def test_no_server_starts_on_a_part_of_a_store(step: str, world: World, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert killed_at(step, "restore", str(world.backup), "--data", str(data))
    said = rookery("serve", "--port", "0", "--data", str(data), status=1).stderr
    assert "[store_unfinished]" in said
    assert f"rookery restore {world.backup} did not end. Run it again" in said
    assert said.count("\n") == 1
    restore(world, data)
    assert holds(data) == world.new_holds
    if step == "restore.filled":
        with running_server(tmp_path, measured=False) as server:
            asyncio.run(expect_counts(server))


@pytest.mark.parametrize("command", [("user", "add", "eve"), ("backup", "there"), ("recount",), ("migrate",)])
def test_no_command_works_on_a_part_of_a_store(command: Sequence[str], part: Path, tmp_path: Path) -> None:
    said = rookery(*command, "--data", str(part), status=0 if command == ("migrate",) else 1).stderr
    assert ("[store_unfinished]" in said) == (command != ("migrate",)), "which changes tables only"


@pytest.fixture(scope="module")
def part(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a restore that was killed."""
    data = tmp_path_factory.mktemp("part")
    assert killed_at("restore.page", "restore", str(world.backup), "--data", str(data))
    return data


async def expect_counts(server: Server) -> None:
    async with Client(server.url) as client:
        top = await leading(client, 2)
        assert [tweet.count_retweet for tweet in top] == [1, 0]


def test_several_workers_do_not_start_on_it_either(part: Path) -> None:
    flags = ("--workers", "2", "--cache", "memcached", "--cache-servers", "127.0.0.1:1", "--port", "0")
    assert "[store_unfinished]" in rookery("serve", *flags, "--data", str(part), status=1).stderr


def test_another_backup_is_restored_only_with_force(world: World, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    rookery("backup", str(other), "--data", str(data))
    there = tmp_path / "there"
    assert killed_at("restore.page", "restore", str(world.backup), "--data", str(there))
    said = rookery("restore", str(other), "--data", str(there), status=1).stderr
    assert "[store_unfinished]" in said
    assert str(world.backup) in said
    rookery("restore", str(other), "--data", str(there), "--force")
    assert holds(there) == world.old_holds


def test_a_restore_begins_anew_with_force_where_it_can_not_end(world: World, tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert killed_at("restore.page:4", "restore", str(world.backup), "--data", str(data))
    with closing(sqlite3.connect(database(data), isolation_level=None)) as sql:  # as servers once did
        sql.execute("INSERT INTO user (id, name, name_key, display_name, is_admin) VALUES (x'77', 'eve', 'eve', '', 0)")
    with refused(Conflict, "copies_differ"):
        restore(world, data)
    restore(world, data, "--force")
    assert holds(data) == world.new_holds


def test_what_another_forced_restore_left_is_removed(world: World, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    rookery("backup", str(other), "--data", str(data))
    assert killed_at("restore.page", "restore", str(other), "--data", str(data), "--force")
    assert list(data.glob("rookery.db.restoring-*"))
    with running_server(tmp_path, measured=False) as server:
        assert "a restore of this store did not end" in server.err()
    restore(world, data, "--force")
    assert list(data.glob("rookery.db.restoring-*")) == []
    assert holds(data) == world.new_holds


# A file that SQLite can't read


@pytest.mark.parametrize("step", ["", "replace.damaged-linked", "replace.damaged-unlinked", "replace.renamed"])
def test_a_file_that_was_cut_off_makes_way_with_its_journal(step: str, world: World, data: Path) -> None:
    log = journal(data).read_bytes()
    database(data).write_bytes(b"")
    if step:
        assert killed_at(step, "restore", str(world.backup), "--data", str(data), "--force")
        with refused(Conflict, "store_unfinished" if step == "replace.renamed" else "database_in_parts"):
            holds(data)
    restore(world, data, *(() if step == "replace.damaged-unlinked" else ("--force",)))
    assert holds(data) == world.new_holds
    (aside,) = data.glob("rookery.db.before-restore-*[0-9]")
    assert aside.read_bytes() == b""
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == log
    assert not journal(data).exists()


def test_a_file_that_sqlite_can_not_read_makes_way(world: World, data: Path) -> None:
    database(data).write_bytes(b"Dear diary, nothing of note. " * 500)
    journal(data).unlink()  # else it would mend the file
    with refused(Conflict, "not_rookery"):
        holds(data)
    restore(world, data, "--force")
    assert holds(data) == world.new_holds
    (aside,) = data.glob("rookery.db.before-restore-*[0-9]")
    assert aside.read_bytes().startswith(b"Dear diary")


def test_a_database_in_parts_is_refused(world: World, data: Path) -> None:
    aside = database(data).rename(data / "elsewhere")
    for command in (("serve", "--port", "0"), ("user", "list")):
        assert "[database_in_parts]" in rookery(*command, "--data", str(data), status=1).stderr
    aside.rename(database(data))
    assert holds(data) == world.old_holds


def test_a_journal_that_a_restore_renamed_by_itself_is_missed(world: World, data: Path) -> None:
    """As restores did that were killed between their renames."""
    apart = journal(data).rename(data / "rookery.db.before-restore-1795000000000-wal")
    said = rookery("serve", "--port", "0", "--data", str(data), status=1).stderr
    assert "[database_in_parts]" in said
    assert re.search(rf"{apart.name} holds data of .*rename it to rookery.db-wal;", said)
    apart.rename(journal(data))
    assert holds(data) == world.old_holds


def test_a_database_that_a_command_has_open_is_not_replaced(
    world: World, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacing, "BUSY_MILLIS", 100)
    with closing(sqlite3.connect(database(data), isolation_level=None)) as sql:
        sql.execute("BEGIN")
        sql.execute("SELECT count(*) FROM tweet").fetchone()
        with refused(Conflict, "database_in_use"):
            restore(world, data, "--force")
    assert holds(data) == world.old_holds
    restore(world, data, "--force")
    assert holds(data) == world.new_holds


# A store that is a server


@pytest.mark.parametrize("step", ["restore.noted", "restore.page", "restore.filled"])
def test_a_restore_into_redis_that_was_killed_is_known_to_every_machine(
    step: str, world: World, tmp_path: Path
) -> None:
    keyspace = f"killed_{os.urandom(4).hex()}"
    server = redis.redis_access("redis").servers[0]
    flags = ("--store", "redis", "--store-servers", server, "--store-keyspace", keyspace)
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    assert killed_at(step, "restore", str(world.backup), "--data", str(here), *flags)
    said = rookery("serve", "--port", "0", "--data", str(elsewhere), *flags, status=1).stderr
    assert "[store_unfinished]" in said
    restore(world, elsewhere, *flags)
    named = ("store", "redis", "store.servers", server, "store.keyspace", keyspace)
    assert holds(here, *named) == world.new_holds
