"""What survives a loss of power: in which order files, and the names of files, are brought to the disk."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rookery.adapters.sqlite.replacing import put_in_place
from rookery.services import copying


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced, linked and renamed, by name, in the order in which it is."""
    found: list[str] = []

    def noted(name: str, real: Callable[..., Any], told: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            result = real(*args)
            found.append(f"{name} {told(*args)}")
            return result

        return call

    sync = noted("sync", os.fsync, lambda descriptor: Path(f"/proc/self/fd/{descriptor}").readlink().name)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", noted("name", Path.replace, lambda _, new: new.name))
    monkeypatch.setattr(Path, "rename", noted("name", Path.rename, lambda _, new: new.name))
    monkeypatch.setattr(Path, "hardlink_to", noted("name", Path.hardlink_to, lambda new, _: new.name))
    return found


def test_a_note_of_a_copy_is_synced_before_it_gets_its_name_and_then_its_name(tmp_path: Path, done: list[str]) -> None:
    folder = tmp_path / "notes"
    copying._note(folder / "copying-1.json", {"users": "00"})
    assert done == ["sync copying-1.new", "name copying-1.json", "sync notes"]
    assert copying._noted(folder / "copying-1.json", can_begin_again=False) == {"users": "00"}


def test_each_name_is_synced_before_the_next_is_given(tmp_path: Path, done: list[str]) -> None:
    for name in ("rookery.db", "fresh"):
        with closing(sqlite3.connect(tmp_path / name)) as sql:
            sql.execute("PRAGMA journal_mode = WAL")
            sql.execute(f"CREATE TABLE {name.partition('.')[0]} (x)")
    put_in_place(tmp_path / "rookery.db", tmp_path / "fresh", 7)
    folder = f"sync {tmp_path.name}"
    assert done == ["name rookery.db.before-restore-7", folder, "name rookery.db", folder]


def test_a_damaged_file_goes_before_its_journals_do(tmp_path: Path, done: list[str]) -> None:
    with closing(sqlite3.connect(tmp_path / "fresh")) as sql:
        sql.execute("CREATE TABLE fresh (x)")
    (tmp_path / "rookery.db").write_bytes(b"")
    (tmp_path / "rookery.db-wal").write_bytes(b"data")
    put_in_place(tmp_path / "rookery.db", tmp_path / "fresh", 7)
    folder, aside = f"sync {tmp_path.name}", "rookery.db.before-restore-7"
    assert done == [f"name {aside}-wal", f"name {aside}", folder, folder, folder, "name rookery.db", folder]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("rookery.db.*")} == {
        aside: b"",
        f"{aside}-wal": b"data",
    }
