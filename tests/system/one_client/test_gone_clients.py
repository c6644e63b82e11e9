"""Attack 2, its second half: feeds that are dear to read are asked for, and their clients close at once."""

import asyncio
import os
import socket
import time
from pathlib import Path

import httpx
import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.domain.cursors import write_cursor
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from rookery.services.feeds import CURSOR
from tests.serving import running_server

pytestmark = pytest.mark.no_cover  # CPU time is measured

FOLLOWEES = 50_000 if os.environ.get("TEST_LONG") == "1" else 3_000
ANSWERED, GONE = 10, 40


async def fill(folder: Path) -> str:
    """A user who follows many; a page of their feed so old that no timeline reaches it."""
    clock = SystemClock()
    database = Database(folder / "rookery.db")
    store = SqliteStore(database, counts=True)
    try:
        users = [UserRecord(clock.new_user_id(), f"u{n}", f"u{n}", is_admin=False) for n in range(FOLLOWEES + 1)]
        for start in range(0, len(users), 500):
            await asyncio.gather(*(store.add_user(user, Credentials()) for user in users[start : start + 500]))
        oldest: list[TweetRecord] = []
        reader, *others = [user.id for user in users]
        for start in range(0, len(others), 500):
            some = others[start : start + 500]
            await store.add_follows([(reader, other) for other in some], 0)
            tweets = [TweetRecord(clock.new_tweet_id(), one, "", "x", None, initial=0) for one in some]
            await store.add_tweets(tweets)
            oldest = oldest or tweets
        return f"/feed/@u0?limit=100&cursor={write_cursor(CURSOR, oldest[len(oldest) // 2].id)}"
    finally:
        await store.close()
        await database.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process's threads so far."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def until_idle(pid: int) -> float:
    """Wait until the process uses almost nothing; its CPU time by then."""
    deadline, used = time.monotonic() + 60, cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(0.3)  # the time over which it is measured
        before, used = used, cpu_seconds(pid)
        if used - before <= 0.02:
            return used
    raise AssertionError("it never came to rest")


def test_reads_of_clients_that_are_gone_stop(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    cold_feed = asyncio.run(fill(tmp_path / "data"))
    with running_server(tmp_path, "--rate-limit", "off", measured=False) as server:
        pid = server.process.pid
        assert httpx.get(server.url + cold_feed).status_code == 200
        begun = until_idle(pid)
        for _ in range(ANSWERED):
            assert httpx.get(server.url + cold_feed).status_code == 200
        one = (until_idle(pid) - begun) / ANSWERED
        begun = until_idle(pid)
        for _ in range(GONE):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(f"GET {cold_feed} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        gone = until_idle(pid) - begun
    assert gone < GONE * one / 2, f"one costs {one:.3f} s, {GONE} that are gone {gone:.3f} s"
