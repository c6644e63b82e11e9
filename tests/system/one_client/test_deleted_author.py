"""Attack 3: the top list is asked for again and again when the author of all that led it was just deleted."""

import asyncio
import json
import os
import socket
from pathlib import Path
from time import monotonic

import httpx
import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from tests.system.one_client.bystander import ASKED_BESIDE_THE_TOP, beside, place

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LEADING = 49_950 if os.environ.get("TEST_LONG") == "1" else 15_000
BATCH = 5_000


async def fill(folder: Path) -> None:
    """An author of all the tweets that lead, and another one of twelve that follow."""
    clock = SystemClock()
    database = Database(folder / "rookery.db")
    store = SqliteStore(database, counts=True)
    try:
        for name, tweets, initial in (("leader", LEADING, 1_000), ("other", 12, 1)):
            author = UserRecord(clock.new_user_id(), name, name, is_admin=False)
            await store.add_user(author, Credentials())
            for start in range(0, tweets, BATCH):
                many = min(BATCH, tweets - start)
                await store.add_tweets(
                    [TweetRecord(clock.new_tweet_id(), author.id, "", "x", None, initial=initial) for _ in range(many)]
                )
    finally:
        await store.close()
        await database.close()


def ask_for_the_top(port: int, seconds: float) -> list[int]:
    """Ask for a hundred leaders again and again; how many each answer had that are not the deleted author's."""
    until, found = monotonic() + seconds, []
    request = b"GET /top?limit=100 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    while monotonic() < until:
        with socket.create_connection(("127.0.0.1", port), 30) as client:
            client.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answer = b"".join(iter(lambda client=client: client.recv(65_536), b""))  # type: ignore[misc]
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        found.append(sum(item["user_name"] == "other" for item in json.loads(body)))
    return found


def test_a_deleted_author_at_the_top_holds_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    asyncio.run(fill(tmp_path / "data"))
    with place(tmp_path) as at, httpx.Client(base_url=at.attacked.url) as http:
        assert len(http.get("/top?limit=100").json()) == 100
        answer = http.delete("/user", params={"user_id": "@leader"})
        assert answer.status_code == 204, answer.text
        measured = beside(at, ASKED_BESIDE_THE_TOP, ask_for_the_top, 2.0, turns=1, quiet_seconds=0)
    answers = measured.results[0]
    assert set(answers) == {12}, "the list is whole at any moment"
    measured.require(floor=0.1)
