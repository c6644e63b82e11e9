"""Attack 5: one author with very many followers, all of them reading, posts as fast as they can."""

import asyncio
import os
from collections import Counter
from pathlib import Path

import httpx
import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.system import SystemClock
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from tests.system.one_client.bystander import beside, place

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
FOLLOWERS = 50_000 if LONG else 10_000
POSTS = 1_200 if LONG else 400
OTHERS_POST = (
    b"POST /tweet HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 22\r\n\r\nuser_name=other&body=x"
)


async def fill(folder: Path) -> None:
    """An author and their followers."""
    clock = SystemClock()
    database = Database(folder / "rookery.db")
    store = SqliteStore(database, counts=True)
    try:
        followers = [clock.new_user_id() for _ in range(FOLLOWERS)]
        author = UserRecord(clock.new_user_id(), "author", "author", is_admin=False)
        await store.add_user(author, Credentials())
        for start in range(0, FOLLOWERS, 1_000):
            some = range(start, min(start + 1_000, FOLLOWERS))
            users = [UserRecord(followers[number], f"f{number}", "f", is_admin=False) for number in some]
            await asyncio.gather(*(store.add_user(user, Credentials()) for user in users))
        await store.add_follows([(follower, author.id) for follower in followers], clock.now())
    finally:
        await store.close()
        await database.close()


def post_much(port: int) -> Counter[int]:
    """All the posts, 64 at a time; how often each status was answered."""

    async def post_all() -> Counter[int]:
        told: Counter[int] = Counter()
        left = list(range(POSTS))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:

            async def post_on() -> None:
                while left:
                    form = {"user_name": "author", "body": str(left.pop())}
                    told[(await http.post("/tweet", data=form)).status_code] += 1

            await asyncio.gather(*(post_on() for _ in range(64)))
        return told

    return asyncio.run(post_all())


def test_one_author_does_not_take_all_places(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    asyncio.run(fill(tmp_path / "data"))
    with place(tmp_path) as at:
        measured = beside(at, [OTHERS_POST], post_much, turns=1)
    assert measured.results[0].keys() <= {201, 503}
    assert measured.results[0][201] > 50
    measured.require(floor=0.25, status=201)
