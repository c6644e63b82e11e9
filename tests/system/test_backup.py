"""`rookery backup` under load, and `rookery restore` elsewhere: equal to the moment that the backup shows."""

import asyncio
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rookery.client import Client
from tests.contract.adapters import cassandra, redis
from tests.serving import Server, running_server
from tests.system.commands import rookery
from tools.servers.rookery import apply_schema

WRITERS = 6


@dataclass
class Posted:
    """What people posted while a backup was made: when each tweet was begun, and when it was acknowledged."""

    begun: dict[str, float] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)

    def expect_one_moment(self, found: set[str]) -> None:
        """Of what is missing nothing had been acknowledged before something that is there was begun."""
        last = max(self.begun[body] for body in found)
        assert [body for body, when in self.acknowledged.items() if body not in found and when < last] == []


async def under_load(server: Server, file: Path) -> tuple[set[str], set[str], set[str], Posted]:
    """Back up while people post: what was acknowledged before, what was begun before its end, and what was said."""
    posted = Posted()
    begun, acknowledged = posted.begun, posted.acknowledged
    stopped = False

    async def go_on(client: Client, number: int) -> None:
        count = 0
        while not stopped:
            count += 1
            body = f"{number}: {count}"
            begun[body] = time.monotonic()
            await client.post(f"user{number}", body)
            acknowledged[body] = time.monotonic()
            if count % 5 == 0:
                await client.follow(f"@user{number}", f"@user{(number + 1) % WRITERS}")

    async with Client(server.url) as client:
        for number in range(WRITERS):
            await client.post(f"user{number}", "hello")
        tasks = [asyncio.create_task(go_on(client, number)) for number in range(WRITERS)]
        while len(acknowledged) < 100:
            await asyncio.sleep(0.01)
        before = set(acknowledged)
        done = await asyncio.to_thread(rookery, "backup", str(file), "--data", str(server.data), *server.flags)
        until = set(begun)
        more = len(acknowledged) + 50
        while len(acknowledged) < more:
            await asyncio.sleep(0.01)
        stopped = True
        await asyncio.gather(*tasks)
    return before, until, set(done.stdout.splitlines()), posted


async def bodies(url: str) -> set[str]:
    async with Client(url) as client:
        return {tweet.body for number in range(WRITERS) async for tweet in client.tweets(f"@user{number}", 100)}


def flags_of(kind: str, folder: Path) -> list[str]:
    keyspace = f"backup_{os.urandom(4).hex()}"
    if kind == "cassandra":
        flags = ["--store", "cassandra", "--store-servers", cassandra.server().address, "--store-keyspace", keyspace]
        apply_schema([*flags, "--store-replication", "1"])
        return flags
    if kind == "redis":
        return [
            "--store",
            "redis",
            "--store-servers",
            redis.redis_access("redis").servers[0],
            "--store-keyspace",
            keyspace,
        ]
    return []


@pytest.mark.parametrize(
    ("source", "target"), [("sqlite", "sqlite"), ("sqlite", "cassandra"), ("cassandra", "sqlite"), ("redis", "sqlite")]
)
async def test_a_backup_under_load_is_restored_as_it_was(source: str, target: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    flags = flags_of(source, tmp_path)
    rookery("user", "add", "eve", "--data", str(tmp_path / "here" / "data"), *flags)  # who has a token
    with running_server(tmp_path / "here", *flags, measured=False) as server:
        before, until, said, posted = await under_load(server, file)
    checked = rookery("restore", str(file), "--check").stdout.splitlines()
    assert set(checked[1:]) == said, "the digests of what was written"
    flags = flags_of(target, tmp_path)
    data = tmp_path / "there" / "data"
    restored = rookery("restore", str(file), "--data", str(data), *flags)
    assert set(restored.stdout.splitlines()) == said
    again = tmp_path / "again"
    same = rookery("backup", str(again), "--data", str(data), *flags)
    found_again = digests(same.stdout)
    assert found_again == digests("\n".join(said))
    assert {part for part, digest in found_again.items() if not digest.startswith("0 ")} >= {
        *("users", "tokens", "follows", "tweets", "keys"),
    }
    with running_server(tmp_path / "there", *flags, measured=False) as server:
        found = await bodies(server.url) - {"hello"}
    assert before <= found <= until
    if source == "sqlite":  # the others have no snapshot
        posted.expect_one_moment(found)


def digests(text: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+) +([\d,]+ +[0-9a-f]{64})$", text, re.MULTILINE))


async def test_a_store_that_holds_something_is_put_aside_only_when_told(tmp_path: Path) -> None:
    file, data = tmp_path / "backup", tmp_path / "data"
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            await client.post("ada", "first")
            rookery("backup", str(file), "--data", str(data))
            await client.post("ada", "second")
        assert "[database_in_use]" in rookery("restore", str(file), "--data", str(data), "--force", status=1).stderr
    assert "[not_empty]" in rookery("restore", str(file), "--data", str(data), status=1).stderr
    broken = tmp_path / "broken"
    broken.write_bytes(file.read_bytes()[:-20])
    assert "[broken_backup]" in rookery("restore", str(broken), "--data", str(data), "--force", status=1).stderr
    done = rookery("restore", str(file), "--data", str(data), "--force")
    aside = re.search(r"What was there is in (\S+) now", done.stdout)
    assert aside
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            assert [tweet.body async for tweet in client.tweets("@ada")] == ["first"]
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    Path(aside[1]).rename(other / "data" / "rookery.db")
    with running_server(other) as server:
        async with Client(server.url) as client:
            assert [tweet.body async for tweet in client.tweets("@ada")] == ["second", "first"]


def test_force_is_for_files_only(tmp_path: Path) -> None:
    flags = ["--store", "redis", "--store-servers", "127.0.0.1:1", "--data", str(tmp_path)]
    done = rookery("restore", str(tmp_path / "x"), "--force", *flags, status=2)
    assert "name another store.keyspace" in done.stderr
