"""Attack 2: pages of a feed that must be read from the store for all followees, many at once, answered or given up."""

import asyncio
import os
import socket
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.domain.cursors import write_cursor
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from rookery.services.feeds import CURSOR
from tests.system.one_client.bystander import ASKED, beside, place

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
FOLLOWEES = 50_000 if LONG else 4_000
REQUESTS = 1_000 if LONG else 200
MOST_GROWTH = 200 << 20
"""Bytes by which the server's memory may grow; it grew by 10 MB for each request."""


async def fill(folder: Path) -> str:
    """A reader of many followees, each with one tweet; a cursor so old that no timeline reaches it."""
    clock = SystemClock()
    database = Database(folder / "rookery.db")
    store = SqliteStore(database, counts=True)
    try:
        reader = UserRecord(clock.new_user_id(), "heavy", "heavy", is_admin=False)
        await store.add_user(reader, Credentials())
        oldest: list[TweetRecord] = []
        for start in range(0, FOLLOWEES, 1_000):
            users = [
                UserRecord(clock.new_user_id(), f"f{number}", "f", is_admin=False)
                for number in range(start, min(start + 1_000, FOLLOWEES))
            ]
            await asyncio.gather(*(store.add_user(user, Credentials()) for user in users))
            await store.add_follows([(reader.id, user.id) for user in users], clock.now())
            tweets = [TweetRecord(clock.new_tweet_id(), user.id, "", "x", None) for user in users]
            await store.add_tweets(tweets)
            oldest = oldest or tweets
        return write_cursor(CURSOR, oldest[len(oldest) // 2].id)
    finally:
        await store.close()
        await database.close()


def pull(port: int, path: str, is_kept: bool) -> Counter[int]:
    """Send all requests at once, each on a connection of its own; how often each status came, 0 for none."""
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    told: Counter[int] = Counter()
    with ExitStack() as stack:
        clients = []
        for _ in range(REQUESTS):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            client.sendall(head)
            clients.append(client)
        for client in clients:
            if not is_kept:
                client.close()
                continue
            with suppress(ConnectionError):
                answer = client.recv(64)
                told[int(answer.split()[1]) if len(answer) > len("HTTP/1.1 200") else 0] += 1
    return told


def memory_of(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("is_kept", [True, False], ids=["answered", "given up"])
def test_cold_pulls_hold_up_nobody_and_have_a_bound(tmp_path: Path, is_kept: bool) -> None:
    (tmp_path / "data").mkdir()
    cold = f"/feed/@heavy?limit=100&cursor={asyncio.run(fill(tmp_path / 'data'))}"
    with place(tmp_path) as at:
        before = memory_of(at.attacked.process.pid)
        measured = beside(at, ASKED, pull, cold, is_kept, turns=1)
        assert memory_of(at.attacked.process.pid) - before < MOST_GROWTH
    if is_kept:
        told = measured.results[0]
        assert told.keys() <= {200, 503}, told
        assert told[200] > 0
    measured.require(floor=0.1, bursts=3)
