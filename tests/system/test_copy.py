"""`rookery copy` between stores: all of it, resumed after a kill, and compared."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from rookery.client import Client
from tests.contract.adapters import cassandra, redis
from tests.serving import Server
from tests.system.clients import leading
from tests.system.commands import database, rookery
from tests.system.killing import all_steps, killed_at
from tests.system.worlds import generated_world
from tools.servers.rookery import apply_schema


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Path:
    """The settings of a store with a small world in it."""
    world = generated_world(tmp_path, users=120, edges=1_500)
    file = settings(tmp_path, "sqlite")
    rookery("load", "graph", str(world.graph_file), "--config", str(file))
    return file


def on_cassandra(folder: Path) -> Path:
    file = settings(folder, "elsewhere", store_lines("cassandra", [cassandra.server().address]))
    apply_schema(["--config", str(file), "--store-replication", "1"])
    return file


def on_redis(folder: Path) -> Path:
    return settings(folder, "elsewhere", store_lines("redis", redis.redis_access("redis").servers))


def on_redis_cluster(folder: Path) -> Path:
    return settings(folder, "elsewhere", store_lines("redis", redis.redis_access("redis-cluster").servers))


def store_lines(kind: str, servers: Sequence[str]) -> str:
    keyspace = f"copy_{os.urandom(4).hex()}"
    return f'[store]\nkind = "{kind}"\nservers = {list(servers)}\nkeyspace = "{keyspace}"\n'


@pytest.fixture(params=[on_cassandra, on_redis, on_redis_cluster], ids=["cassandra", "redis", "redis-cluster"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The settings of an empty store that is a server."""
    made: Callable[[Path], Path] = request.param
    return made(tmp_path)


def settings(folder: Path, name: str, lines: str = "") -> Path:
    file = folder / f"{name}.toml"
    file.write_text(f'data = "{folder / name}"\n{lines}')
    return file


def copy(source: Path, target: Path, *flags: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return rookery("copy", "--from", str(source), "--to", str(target), *flags, status=status)


async def live(data: Path) -> None:
    """Some tweets, a chain, a delete and a deleted user, over HTTP."""
    server = Server(data)
    server.start()
    try:
        async with Client(server.url) as client:
            first = await client.post("user_1", "hello", idempotency_key="key-of-the-first-tweet")
            last = first
            for number in range(30):
                last = await client.retweet(f"user_{number}", last.id, body=f"{number}")
            await client.delete_tweet("@user_7", str((await client.post("user_7", "gone")).id))
            await client.delete_user("@user_9")
    finally:
        server.stop()


async def test_all_of_it_goes_there_and_back(on_sqlite: Path, elsewhere: Path, tmp_path: Path) -> None:
    await live(tmp_path / "sqlite")
    assert "rows are copied" in copy(on_sqlite, elsewhere).stdout
    assert "hold the same" in copy(on_sqlite, elsewhere, "--verify").stdout
    back = settings(tmp_path, "back")
    copy(elsewhere, back)
    assert "hold the same" in copy(on_sqlite, back, "--verify").stdout
    answers = []
    for data in ("sqlite", "back"):
        server = Server(tmp_path / data)
        server.start()
        try:
            async with Client(server.url) as client:
                again = await client.post("user_1", "hello", idempotency_key="key-of-the-first-tweet")
                answers.append((await leading(client, 10), (await client.feed_page("@user_3", 100)).items, again.id))
        finally:
            server.stop()
    assert answers[0] == answers[1]
    assert answers[0][0][0].count_retweet


def test_a_copy_that_was_killed_goes_on_where_it_was(on_sqlite: Path, elsewhere: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rookery", "copy", "--from", str(on_sqlite), "--to", str(elsewhere)]
    folder = tmp_path / "elsewhere"

    def noted() -> bytes:
        return b"".join(file.read_bytes() for file in folder.glob("copying-*.json"))

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as begun:
        limit = time.monotonic() + 60
        while b'"users": null' not in noted():
            assert begun.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < limit
            time.sleep(0.002)
        begun.kill()
    other = settings(tmp_path, "other")
    rookery("user", "add", "ada", "--config", str(other))
    assert "not_the_same" in copy(other, elsewhere, status=1).stderr, "which does not end the other's copy"
    copied = copy(on_sqlite, elsewhere).stdout
    assert int(copied.split()[0].replace(",", "")) < 120 + 1_500, "it began again"
    assert b"users" not in noted()
    assert "hold the same" in copy(on_sqlite, elsewhere, "--verify").stdout


def test_a_finished_copy_is_not_copied_over(on_sqlite: Path, tmp_path: Path) -> None:
    other = settings(tmp_path, "other")
    copy(on_sqlite, other)
    assert copy(on_sqlite, other).stdout == "0 rows are copied.\n"
    token = rookery("user", "token", "user_1", "--config", str(on_sqlite)).stdout
    assert token
    assert "copies_differ" in copy(on_sqlite, other, status=1).stderr
    assert "tokens: " in copy(on_sqlite, other, "--verify", status=1).stderr, "what came since was not copied"


def test_what_differs_is_told(on_sqlite: Path, tmp_path: Path) -> None:
    other = settings(tmp_path, "other")
    copy(on_sqlite, other)
    with sqlite3.connect(database(tmp_path / "other")) as connection:
        connection.execute(
            "DELETE FROM follow WHERE (follower, followee) IN (SELECT follower, followee FROM follow LIMIT 1)"
        )
    connection.close()
    failed = copy(on_sqlite, other, "--verify", status=1)
    assert "follows: " in failed.stderr
    assert "users: " not in failed.stderr
    assert "copies_differ" in failed.stderr


def test_a_store_of_others_is_not_copied_to(on_sqlite: Path, tmp_path: Path) -> None:
    other = settings(tmp_path, "other")
    rookery("user", "add", "ada", "--config", str(other))
    assert "not_the_same" in copy(on_sqlite, other, status=1).stderr
    assert "database_in_use" in copy(on_sqlite, on_sqlite, status=1).stderr


@pytest.mark.parametrize("step", [*sorted(all_steps("copy") - {"copy.finished"}), "copy.page:3"])
def test_no_server_starts_on_a_part_of_a_copy(step: str, on_sqlite: Path, tmp_path: Path) -> None:
    other = settings(tmp_path, "other")
    assert killed_at(step, "copy", "--from", str(on_sqlite), "--to", str(other))
    if step == "copy.noted":
        rookery("user", "list", "--config", str(other))  # nothing is in it yet, and nothing is decided
    else:
        said = rookery("serve", "--port", "0", "--config", str(other), status=1).stderr
        assert "[store_unfinished]" in said
        assert f"rookery copy --from {on_sqlite} --to {other} did not end. Run it again" in said
    copy(on_sqlite, other)
    assert "hold the same" in copy(on_sqlite, other, "--verify").stdout
    assert list((tmp_path / "other").glob("copying-*")) == []
    rookery("user", "list", "--config", str(other))


@pytest.mark.parametrize("content", [b"", b'{"users": nu', b'{"users": 7}', b'{"users": "no hex"}', b"\xff", b"[]"])
def test_a_note_of_a_copy_that_is_torn_is_passed_over(content: bytes, on_sqlite: Path, tmp_path: Path) -> None:
    other = settings(tmp_path, "other")
    assert killed_at("copy.page:3", "copy", "--from", str(on_sqlite), "--to", str(other))
    (note,) = (tmp_path / "other").glob("copying-*.json")
    note.write_bytes(content)
    copy(on_sqlite, other)
    assert "hold the same" in copy(on_sqlite, other, "--verify").stdout


def test_a_torn_note_is_told_where_the_store_does_not_know_better(on_sqlite: Path, tmp_path: Path) -> None:
    """As one that an earlier release left."""
    other = settings(tmp_path, "other")
    assert killed_at("copy.page:3", "copy", "--from", str(on_sqlite), "--to", str(other))
    (note,) = (tmp_path / "other").glob("copying-*.json")
    note.write_bytes(b"")
    with closing(sqlite3.connect(database(tmp_path / "other"), isolation_level=None)) as sql:
        sql.execute("DELETE FROM meta WHERE name = 'unfinished'")
    said = copy(on_sqlite, other, status=1).stderr
    assert "[broken_note]" in said
    assert str(note) in said
    assert said.count("\n") == 1
