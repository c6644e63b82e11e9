"""Store and ranking in one SQLite file."""

from rookery.adapters.sqlite.database import Database, ServerLock, schema_of
from rookery.adapters.sqlite.ranking import SqliteRanking
from rookery.adapters.sqlite.replacing import (
    all_fresh_beside,
    place_of,
    put_in_place,
    require_in_one_piece,
)
from rookery.adapters.sqlite.store import SqliteStore

__all__ = [
    "Database",
    "ServerLock",
    "SqliteRanking",
    "SqliteStore",
    "all_fresh_beside",
    "place_of",
    "put_in_place",
    "require_in_one_piece",
    "schema_of",
]
