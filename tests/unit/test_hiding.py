"""Tweets of deleted users are taken out of the top list, whatever happens to those of others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId
from rookery.domain.users import UserRecord
from rookery.services import chores as chores_module
from rookery.services.callers import ANYONE
from rookery.services.telling import Telling
from rookery.services.top import Top
from tests.interleaving import InlineDatabase
from tests.unit.nest import Nest, nest_on


@pytest.fixture
async def nest(tmp_path: Path) -> AsyncIterator[Nest]:
    database = InlineDatabase(tmp_path / "test.db")
    async with nest_on(database) as nest:
        yield nest
    await database.close()


async def deleted(nest: Nest, name: str) -> UserRecord:
    user = await nest.user(name)
    await nest.post(user, "x")
    await nest.rookery.services.accounts.delete(ANYONE, user)
    return user


async def test_one_that_fails_holds_up_no_other(nest: Nest, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [await deleted(nest, f"ada{number}") for number in range(5)]
    hide = Top.hide

    async def fail(self: Top, user: UserId) -> None:
        if user == users[2].id:
            raise RuntimeError("a mistake")
        await hide(self, user)

    monkeypatch.setattr(Top, "hide", fail)
    chores = nest.rookery.chores
    await chores.hide()
    assert chores.hidden.keys() == {user.id for user in users} - {users[2].id}
    monkeypatch.undo()
    await chores.hide()
    assert chores.hidden.keys() == {user.id for user in users}


async def test_they_are_hidden_again_from_a_ranking_that_began_anew(
    nest: Nest, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await deleted(nest, "ada")
    hidden: list[UserId] = []

    async def note(_: Top, user: UserId) -> None:
        hidden.append(user)

    monkeypatch.setattr(Top, "hide", note)
    chores = nest.rookery.chores
    await chores.hide()
    await chores.hide()
    assert hidden == [user.id]
    chores.telling.run = b"another run"
    await chores.hide()
    assert hidden == [user.id, user.id]


async def test_a_regular_task_that_fails_is_counted_and_told_of_once_a_minute(
    nest: Nest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each second, for each mistake, with all of its traceback: the log would hold nothing else."""
    now = 100.0
    monkeypatch.setattr(chores_module, "_OFTEN_SECONDS", 0.001)
    monkeypatch.setattr("rookery.services.repeating.time", SimpleNamespace(monotonic=lambda: now))
    faults: list[Exception] = [RuntimeError("a mistake")]

    async def fail(_: Telling) -> None:
        raise faults[-1]

    def failures() -> int:
        return sum(cast("int", reading.value) for reading in nest.rookery.chores.readings())

    async def until_more(many: int) -> None:
        wanted = failures() + many
        async with asyncio.timeout(20):
            while failures() < wanted:
                await asyncio.sleep(0.001)

    def told() -> list[tuple[str, str]]:
        ours = [record for record in caplog.records if record.name == chores_module.__name__]
        return [(record.levelname, record.getMessage()) for record in ours]

    monkeypatch.setattr(Telling, "tell_again", fail)
    mistake = ("ERROR", "the task tell failed; it is tried again")
    running = asyncio.create_task(nest.rookery.chores.run())
    try:
        await until_more(5)
        assert told() == [mistake]
        faults.append(Unavailable("store_unavailable", "The store is away."))
        await until_more(5)
        assert told() == [mistake, ("WARNING", "the task tell waits: The store is away.")], "another kind is told of"
        now += 61.0
        faults.pop()
        await until_more(5)
        assert told()[2:].count(mistake) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
