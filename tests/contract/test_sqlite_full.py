"""A full disk under a SQLite file: writes are refused, reads go on, and it heals when there is space again."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Store
from tests.contract.adapters.mounts import fill, mounted_tmpfs
from tests.contract.adapters.sqlite import by_hand, file_in, open_store, opened
from tests.contract.expecting import unavailable
from tests.contract.given import MOST, Given

LONG = "x" * 2_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_tmpfs(tmp_path / "disk", "6m") as folder:
        yield folder


class Posting:
    """Posts tweets until it is refused, and remembers which were acknowledged and which were not."""

    def __init__(self, store: Store, given: Given, author: UserRecord) -> None:
        self._store = store
        self._given = given
        self._author = author
        self.kept: list[TweetRecord] = []
        self.refused: list[TweetId] = []

    async def post(self, many: int) -> None:
        drafts = [self._given.draft(self._author, body=LONG) for _ in range(many)]
        answers = await asyncio.gather(
            *(self._store.add_tweet(draft, MOST) for draft in drafts), return_exceptions=True
        )
        for draft, answer in zip(drafts, answers, strict=True):
            if isinstance(answer, BaseException):
                assert isinstance(answer, Unavailable), repr(answer)
                assert answer.code == "store_unavailable"
                self.refused.append(draft.id)
            else:
                self.kept.append(draft)

    async def post_until_refused(self) -> None:
        """One by one and sixteen at once in turn."""
        for turn in range(2_000):
            await self.post(16 if turn % 2 else 1)
            if self.refused:
                return
        pytest.fail("the disk was never full")

    async def check(self, store: Store) -> None:
        """What was acknowledged is there, what was refused is not."""
        assert await store.tweets([tweet.id for tweet in self.kept]) == {tweet.id: tweet for tweet in self.kept}
        assert await store.tweets(self.refused) == {}


def assert_sound(path: Path) -> None:
    with by_hand(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_a_full_disk_refuses_writes_and_heals_without_opening_again(small_disk: Path) -> None:
    async with open_store(small_disk) as store:
        given = Given(store)
        ada = await given.user("ada")
        posting = Posting(store, given, ada)
        await posting.post(20)
        for _ in range(2):
            ballast = fill(small_disk)
            await posting.post_until_refused()
            refusals = len(posting.refused)
            await posting.post(16)
            assert len(posting.refused) == refusals + 16, "while it is full there is room for none of these"
            # Reads go on.
            assert await store.user_by_name("ada") == ada
            assert (await store.user_counts(ada.id)).tweets == len(posting.kept)
            await posting.check(store)
            ballast.unlink()
            # Writes go on, too.
            refusals = len(posting.refused)
            await store.check()
            await posting.post(20)
            assert len(posting.refused) == refusals
    assert_sound(file_in(small_disk))
    async with open_store(small_disk) as store:
        await posting.check(store)
        assert (await store.user_counts(ada.id)).tweets == len(posting.kept)


async def test_opening_on_a_full_disk_is_unavailable_until_there_is_space(small_disk: Path) -> None:
    ballast = fill(small_disk)
    with unavailable():
        Database(file_in(small_disk))
    ballast.unlink()
    async with open_store(small_disk) as store:
        await Given(store).user()
        await store.check()
    assert_sound(file_in(small_disk))


async def test_a_full_database_refuses_writes_and_heals_without_opening_again(tmp_path: Path) -> None:
    """The same without a disk of its own: SQLite's own bound on pages makes the same error."""

    def bound_pages(more: int) -> Callable[[sqlite3.Connection], int]:
        def bound(sql: sqlite3.Connection) -> int:
            pages = sql.execute("PRAGMA page_count").fetchone()[0]
            most: int = sql.execute(f"PRAGMA max_page_count = {pages + more}").fetchone()[0]
            return most

        return bound

    path = file_in(tmp_path)
    async with opened(path) as database:
        store = SqliteStore(database, counts=True)
        given = Given(store)
        posting = Posting(store, given, await given.user("ada"))
        await posting.post(20)
        await database.write(bound_pages(4))
        await posting.post_until_refused()
        await posting.check(store)
        await database.write(bound_pages(100_000))
        refusals = len(posting.refused)
        await posting.post(100)
        assert len(posting.refused) == refusals
    assert_sound(path)
    async with open_store(tmp_path) as again:
        await posting.check(again)
