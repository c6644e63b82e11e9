"""Store and ranking in one SQLite file."""

from rookery.adapters.sqlite.database import Database, ServerLock, rename, schema_of
from rookery.adapters.sqlite.ranking import SqliteRanking
from rookery.adapters.sqlite.store import SqliteStore

__all__ = ["Database", "ServerLock", "SqliteRanking", "SqliteStore", "rename", "schema_of"]
