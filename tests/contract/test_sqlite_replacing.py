"""A database that takes another one's place while a process begins to open that one."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rookery.adapters.sqlite import Database, SqliteStore
from rookery.adapters.sqlite.replacing import put_in_place
from rookery.domain.errors import Unavailable
from tests.contract.adapters.sqlite import file_in, open_store
from tests.contract.given import Given


async def test_a_process_that_opens_a_database_being_replaced_gets_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fresh = file_in(tmp_path / "old"), file_in(tmp_path / "new")
    for folder, name in ((path.parent, "old"), (fresh.parent, "new")):
        async with open_store(folder) as store:
            await Given(store).user(name)
    fresh = fresh.rename(path.with_name("fresh"))
    has_lock, opens = threading.Event(), threading.Event()

    def reached(step: str) -> None:
        if step == "replace.linked":
            has_lock.set()
            assert opens.wait(10)

    connect = sqlite3.connect

    def connected(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        if has_lock.is_set():
            opens.set()  # the file is open, and nothing was read from it
        return connection

    def open_it() -> Database | None:
        assert has_lock.wait(10)
        try:
            return Database(path)
        except Unavailable:  # it had the old one open
            return None

    monkeypatch.setattr(sqlite3, "connect", connected)
    replaced, opened = await asyncio.gather(
        asyncio.to_thread(put_in_place, path, fresh, 7, reached), asyncio.to_thread(open_it)
    )
    now = opened or Database(path)
    try:
        store = SqliteStore(now, counts=True)
        assert [user.name for user in await store.list_users("", 10)] == ["new"]
        await Given(store).user("later")
    finally:
        await now.close()
    assert replaced
    for file, names in ((path, ["later", "new"]), (replaced, ["old"])):
        with closing(sqlite3.connect(file)) as sql:
            assert [name for (name,) in sql.execute("SELECT name FROM user ORDER BY name")] == names
