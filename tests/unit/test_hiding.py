"""Tweets of deleted users are taken out of the top list, whatever happens to those of others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rookery.domain.ids import UserId
from rookery.domain.users import UserRecord
from rookery.services import chores
from rookery.services.callers import ANYONE
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
    jobs = nest.rookery.chores
    await jobs.hide()
    assert jobs.hidden.keys() == {user.id for user in users} - {users[2].id}
    monkeypatch.undo()
    await jobs.hide()
    assert jobs.hidden.keys() == {user.id for user in users}


async def test_they_are_hidden_again_from_a_ranking_that_began_anew(
    nest: Nest, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await deleted(nest, "ada")
    hidden: list[UserId] = []

    async def note(_: Top, user: UserId) -> None:
        hidden.append(user)

    monkeypatch.setattr(Top, "hide", note)
    jobs = nest.rookery.chores
    await jobs.hide()
    await jobs.hide()
    assert hidden == [user.id]
    jobs.telling.run = b"another run"
    await jobs.hide()
    assert hidden == [user.id, user.id]


async def test_a_regular_task_that_fails_is_counted_and_told_of_once_a_minute(
    nest: Nest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each second, for each mistake, with all of its traceback: the log would hold nothing else."""
    monkeypatch.setattr(chores, "_OFTEN_SECONDS", 0.001)
    nest.store.faults["users_to_purge"] = [RuntimeError("a mistake") for _ in range(1_000)]

    def failures() -> dict[str, object]:
        return {reading.labels["chore"]: reading.value for reading in nest.rookery.chores.readings()}

    running = asyncio.create_task(nest.rookery.chores.run())
    try:
        async with asyncio.timeout(20):
            while failures().get("hide", 0) < 5:  # type: ignore[operator]
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert failures().keys() == {"hide", "purge"}, "the others go on"
    told = [record.getMessage() for record in caplog.records if record.name == chores.__name__]
    assert sorted(told) == [f"the task {name} failed; it is tried again" for name in ("hide", "purge")]
