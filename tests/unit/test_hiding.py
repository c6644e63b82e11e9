"""Tweets of deleted users are taken out of the top list, whatever happens to those of others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rookery.domain.ids import UserId
from rookery.domain.users import UserRecord
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
