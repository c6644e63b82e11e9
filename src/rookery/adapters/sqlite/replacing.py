"""Giving one database the place of another, so that a process that is killed at it leaves one of them whole."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from rookery.adapters.sqlite import copy_rows
from rookery.adapters.sqlite.database import BUSY_MILLIS
from rookery.adapters.sqlite.errors import translated
from rookery.adapters.sqlite.syncing import sync_folder
from rookery.domain.copies import Unfinished
from rookery.domain.errors import Conflict
from rookery.ports.steps import Steps, unwatched

_JOURNALS = ("-wal", "-journal")
"""Suffixes of the files that may hold what their database lacks."""
_ASIDE = "before-restore"
_FRESH = "restoring"
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_PRIMARY = 0xFF
"""The bits of an extended result code that are the primary one."""


def place_of(path: Path, which: bytes, *, force: bool) -> Path | None:
    """Where a restore shall make the database that is to replace the one at `path`; `which` tells it from others.

    None where it works on `path` itself: there is no database, or the same restore has put a whole one there, or it may
    not replace it. What restores of other backups left beside it, which were begun and given up, is removed.
    """
    fresh = path.with_name(f"{path.name}.{_FRESH}-{which.hex()[:16]}")
    with translated():
        if not path.exists():
            return fresh if fresh.exists() else None
        if not force or ((found := _unfinished_of(path)) and found.which == which and found.is_filled):
            return None
        for other in all_fresh_beside(path):
            if other != fresh:
                for end in ("", *_JOURNALS, "-shm"):
                    _with(other, end).unlink(missing_ok=True)
    return fresh


def all_fresh_beside(path: Path) -> list[Path]:
    """The databases of restores that have not ended, made to replace the one at `path`."""
    pattern = f"{path.name}.{_FRESH}-{'[0-9a-f]' * 16}"
    return sorted(found for found in path.parent.glob(pattern) if found.is_file())


def _unfinished_of(path: Path) -> Unfinished | None:
    """What the store in a file says of `Store.unfinished`; None also where there is no store that can be read."""
    with suppress(sqlite3.Error):
        _require_readable(path)
        with closing(_connect(path)) as connection:
            return copy_rows.unfinished(connection)
    return None


def put_in_place(path: Path, fresh: Path, moment: int, reached: Steps = unwatched) -> Path | None:
    """Give the database `fresh` the name `path`; the new name of the one that was there, if one was.

    Both are on the disk, under one name at least, at each moment. The caller holds the server lock. A damaged database
    makes way too, with its journals; then there is a moment at which `path` is missing, and doing it again ends it.
    `moment` (milliseconds since 1970) goes into the new name.

    Raises:
        Conflict: `database_in_use`, when a process has one of them open.
        Unavailable: `store_unavailable`.
    """
    with translated(), _in_one_file(fresh):
        aside = _name_aside(path, moment)
        if not path.exists():  # a damaged one that made way before the process was killed, or none
            _clear_journals(path, aside)
            _rename(fresh, path, reached)
            return None
        try:
            _require_readable(path)
            with _in_one_file(path):
                reached("replace.checkpointed")
                _give_second_names(path, aside, ("",))
                reached("replace.linked")
                _rename(fresh, path, reached)
                return aside
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & _PRIMARY not in _DAMAGED:
                raise
        _set_aside_damaged(path, aside, reached)
        _rename(fresh, path, reached)
    return aside


def require_in_one_piece(path: Path) -> None:
    """Refuse to make a new database, or to open one, where something was cut off that left its parts apart.

    Raises:
        Conflict: `database_in_parts`.
    """
    if not path.exists() or not path.stat().st_size:
        journal = _with(path, "-wal")
        if journal.exists() and journal.stat().st_size:
            raise Conflict(
                "database_in_parts",
                f"{path} is missing or empty, and {journal.name} holds data of it: put the file that belongs to it "
                "back, or put that one elsewhere.",
            )
        if not path.exists() and (fresh := all_fresh_beside(path)):
            raise Conflict(
                "database_in_parts",
                f"{path} is missing, and a restore of it did not end: run the same rookery restore again; or remove "
                f"{fresh[-1].name}, which it has made so far, to begin with an empty store.",
            )
    for journal in path.parent.glob(f"{path.name}.{_ASIDE}-*-wal"):  # which restores renamed first once
        main = journal.with_name(journal.name.removesuffix("-wal"))
        if journal.stat().st_size and not main.exists():
            raise Conflict(
                "database_in_parts",
                f"A restore was cut off: {journal.name} holds data of {path}. If no server has run since, rename it to "
                f"{path.name}-wal; else put it elsewhere.",
            )


def _require_readable(path: Path) -> None:
    """Refuse an empty file with a journal before SQLite sees it, which would delete the journal."""
    if not path.stat().st_size and _has_data(_with(path, "-wal")):
        error = sqlite3.DatabaseError("the file is empty, and its journal is not")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


@contextmanager
def _in_one_file(path: Path) -> Iterator[None]:
    """A database that nobody else has open, without a journal: all that was committed is in the file, and synced.

    A process that opened it and waits for the lock can't write to it after it was renamed: SQLite refuses that outside
    WAL mode.
    """
    try:
        with closing(_connect(path)) as connection:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy or _has_data(_with(path, "-wal")):
                raise _in_use(path)
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        with closing(_connect(path)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            if mode != "delete" or any(_has_data(_with(path, end)) for end in _JOURNALS):
                raise _in_use(path)  # it was opened between these two
            yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & _PRIMARY in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise _in_use(path) from error
        raise


def _set_aside_damaged(path: Path, aside: Path, reached: Steps) -> None:
    """Rename a file that SQLite can't read, with its journals. It goes first, so that it is never without them."""
    _give_second_names(path, aside, (*_JOURNALS, ""))
    reached("replace.damaged-linked")
    path.unlink()
    sync_folder(path.parent)
    reached("replace.damaged-unlinked")
    _clear_journals(path, aside)


def _clear_journals(path: Path, aside: Path) -> None:
    """Remove the journals of a file that is no longer there. One that has no other name gets one."""
    for end in _JOURNALS:
        journal = _with(path, end)
        if _has_data(journal) and journal.stat().st_nlink == 1:
            journal.rename(_with(aside, end))
        else:
            journal.unlink(missing_ok=True)
    _with(path, "-shm").unlink(missing_ok=True)
    sync_folder(path.parent)


def _name_aside(path: Path, moment: int) -> Path:
    """The second name of a database: one that it has already, from a process that was killed, or a new one."""
    for other in path.parent.glob(f"{path.name}.{_ASIDE}-*"):
        if path.exists() and other.samefile(path):
            return other
    return path.with_name(f"{path.name}.{_ASIDE}-{moment}")


def _give_second_names(path: Path, aside: Path, ends: Sequence[str]) -> None:
    for end in ends:
        there, name = _with(path, end), _with(aside, end)
        if there.exists() and not (name.exists() and name.samefile(there)):
            name.hardlink_to(there)
    sync_folder(path.parent)


def _rename(fresh: Path, path: Path, reached: Steps) -> None:
    fresh.rename(path)
    sync_folder(path.parent)
    reached("replace.renamed")


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that is there; it syncs what it writes."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_MILLIS / 1000)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _with(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _has_data(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _in_use(path: Path) -> Conflict:
    return Conflict("database_in_use", f"A server or a command has {path} open; stop it first.")
