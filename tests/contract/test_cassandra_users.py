"""Users whom a ring knows by half: their maker died, or is at work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.cassandra import CassandraStore, user_rows
from rookery.adapters.cassandra.journal import UserRows
from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import Database, SqliteRanking
from rookery.config import Settings
from rookery.domain.errors import Unavailable
from rookery.domain.users import UserRecord
from rookery.services.callers import ANYONE
from rookery.services.loading import Loading
from rookery.wiring import Backends, Rookery, join
from tests.contract.adapters.cassandra import open_store
from tests.contract.expecting import refused
from tests.contract.given import Given, sweep

TOKEN = b"t" * 32


@asynccontextmanager
async def rookery_on(store: CassandraStore, folder: Path) -> AsyncIterator[Rookery]:
    clock, hasher, ranking = store._clock, Argon2Hasher(), Database(folder / "ranking.db")
    backends = Backends(store, MemoryCache(1 << 20, clock.monotonic), SqliteRanking(ranking), clock, apart=True)
    try:
        yield join(Settings(data=folder, auth="open"), backends, hasher)
    finally:
        hasher.close()
        await ranking.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CassandraStore]:
    async with open_store(tmp_path) as store:
        assert isinstance(store, CassandraStore)
        yield store


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[CassandraStore]:
    """The same, as another process has it."""
    async with open_store(tmp_path) as store:
        assert isinstance(store, CassandraStore)
        yield store


@pytest.fixture
async def ada(store: CassandraStore) -> UserRecord:
    """Who has her handle, is promised, and is nowhere."""
    ada = Given(store).person("ada")
    await store._journal.add(None, UserRows(ada, None, None))
    assert await user_rows.claim_name(store._session, ada.name, ada.id)
    return ada


async def test_who_posts_under_it_is_told_to_come_again(store: CassandraStore, ada: UserRecord, tmp_path: Path) -> None:
    async with rookery_on(store, tmp_path) as rookery:
        accounts = rookery.services.accounts
        with refused(Unavailable, "busy"):
            await accounts.find_or_make(ANYONE, ada.name)
        await sweep(store)
        assert (await accounts.find_or_make(ANYONE, ada.name)).id == ada.id


async def test_who_loads_it_is_told_to_come_again(store: CassandraStore, ada: UserRecord, tmp_path: Path) -> None:
    async with rookery_on(store, tmp_path) as rookery:
        loading = Loading(store, rookery.backends.clock, rookery.services.top, rookery.promises)
        with refused(Unavailable, "busy"):
            await loading.follows([(ada.name, "bob")])
        await sweep(store)
        assert (await loading.follows([(ada.name, "bob")])).added == 1


async def test_an_unfinished_registration_is_finished_or_was_never_begun(
    store: CassandraStore, other: CassandraStore
) -> None:
    given = Given(store)
    ada, second = given.person("ada"), given.person("Ada")
    await store._journal.add(None, UserRows(ada, "hash", TOKEN))
    await store._journal.add(None, UserRows(second, "other", b"o" * 32))
    assert await sweep(other) == [], "nobody outside waits for it"
    found = await other.user_by_name("ada")
    assert found in (ada, second)
    owners = [await other.token_owner(token) for token in (TOKEN, b"o" * 32)]
    assert sorted(owner is None for owner in owners) == [False, True]
    assert len(await other.users([ada.id, second.id])) == 1, "who did not get the name is nobody"
    assert await sweep(other) == []
