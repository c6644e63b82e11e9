"""SQLite under the contract suites: a real file."""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from tests.contract.places import Damage, Part


def file_in(folder: Path) -> Path:
    return folder / "rookery.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = Database(path)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def open_store(folder: Path) -> AsyncIterator[Store]:
    """With the counts in each tweet's own transaction."""
    async with opened(file_in(folder)) as database:
        store = SqliteStore(database, counts=True)
        yield store
        await store.close()


@asynccontextmanager
async def open_store_owing_counts(folder: Path) -> AsyncIterator[Store]:
    """As beside a ranking elsewhere."""
    async with opened(file_in(folder)) as database:
        store = SqliteStore(database, counts=False)
        yield store
        await store.close()


@asynccontextmanager
async def open_ranking(folder: Path) -> AsyncIterator[Ranking]:
    async with opened(file_in(folder)) as database:
        ranking = SqliteRanking(database)
        yield ranking
        await ranking.close()


@contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to the file, behind Rookery's back; each statement is its own transaction."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        yield connection


def damage(folder: Path, damages: Sequence[Damage]) -> None:
    with by_hand(file_in(folder)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for damage in damages:
            if damage.part is Part.ALL:
                connection.execute("DELETE FROM ranking WHERE tweet = ?", (damage.tweet,))
            else:
                column = damage.part.value
                connection.execute(f"UPDATE ranking SET {column} = ? WHERE tweet = ?", (damage.value, damage.tweet))
        connection.execute("COMMIT")
