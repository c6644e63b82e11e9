"""Attack 4: one who unfollowed very many lately, whose feed is read again and again."""

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from tests.system.one_client.bystander import ASKED, beside, place

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

UNFOLLOWED = 300_000 if os.environ.get("TEST_LONG") == "1" else 70_000


async def fill(folder: Path) -> None:
    """A reader who follows one author, and unfollowed very many."""
    clock = SystemClock()
    database = Database(folder / "rookery.db")
    store = SqliteStore(database, counts=True)
    try:
        reader, author = (UserRecord(clock.new_user_id(), name, name, is_admin=False) for name in ("reader", "author"))
        for user in (reader, author):
            await store.add_user(user, Credentials())
        await store.add_follows([(reader.id, author.id)], clock.now())
        await store.add_tweets([TweetRecord(clock.new_tweet_id(), author.id, "", "x", None) for _ in range(20)])
        gone = [(reader.id, clock.new_user_id(), clock.now()) for _ in range(UNFOLLOWED)]
    finally:
        await store.close()
        await database.close()
    with sqlite3.connect(folder / "rookery.db") as sql:
        sql.executemany("INSERT INTO unfollow VALUES (?,?,?)", gone)
    sql.close()


def read_feed(port: int, seconds: float) -> list[int]:
    """Read the feed again and again; how many tweets each answer had."""
    until, found = monotonic() + seconds, []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        while monotonic() < until:
            answer = http.get("/feed/@reader?limit=10")
            assert answer.status_code == 200, answer.text
            shown: list[Any] = json.loads(answer.content)
            found.append(len(shown))
    return found


def test_unfollows_without_end_hold_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    asyncio.run(fill(tmp_path / "data"))
    with place(tmp_path) as at:
        measured = beside(at, ASKED, read_feed, 2.0, turns=1)
    assert set(measured.results[0]) == {10}
    measured.require(floor=0.1)
