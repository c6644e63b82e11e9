"""SQLite's errors as those of the domain."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from rookery.adapters.sqlite.schema import foreign
from rookery.domain.errors import Unavailable


def unreadable() -> Unavailable:
    """The one answer for a file that can't be read or written."""
    return Unavailable("store_unavailable", "The database can't be read or written now.", retry_after=2)


@contextmanager
def translated() -> Iterator[None]:
    """Turn an error of SQLite or the file system into a domain error. Its text holds paths and queries: it stays here.

    Raises:
        Unavailable: `store_unavailable`, with the error as its cause.
        Conflict: `not_rookery`.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise foreign() from error
        raise unreadable() from error
