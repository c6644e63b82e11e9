"""One SQLite file: a writer thread with group commit, a reader on the event loop, and threads for what takes long."""

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from rookery.adapters.sqlite.errors import translated as _translated
from rookery.adapters.sqlite.schema import check, is_older, migrate, newest, version_of
from rookery.adapters.sqlite.syncing import sync_folder
from rookery.adapters.sqlite.writing import Writer
from rookery.domain.errors import Conflict
from rookery.domain.tallies import Reading
from rookery.domain.threads import start
from rookery.ports.steps import Steps, unwatched

T = TypeVar("T")

_RETRY_SECONDS = 0.02
BUSY_MILLIS = 5_000
"""How long to wait for another process's write, say `rookery recount` beside the server."""
WAL_BYTES = 64 * 1024 * 1024
"""Size to which the write-ahead log is cut when the reader that it had to grow behind is gone."""
SNAPSHOT_SECONDS = 6 * 3_600.0
"""Age at which a snapshot ends: until then the write-ahead log grows by all that is written."""


class ServerLock:
    """Held by who serves from a file, and let go by the kernel however it ends.

    Alone by a server with its cache in the process, and by whoever changes what servers have cached; `shared` by
    servers that have a cache in common.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Take it, or raise `Conflict` (`database_in_use`)."""
        with _translated():
            _make_private(path.parent)
            self._file = open(path.with_name(path.name + ".lock"), "a", opener=_open_private)  # noqa: SIM115
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Conflict("database_in_use", "A Rookery server is running on this database; stop it first.") from error

    def close(self) -> None:
        """Let others have it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_private(folder: Path) -> None:
    """Nobody else on the machine may read what is in here: hashes, the store's secret, and tweets."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _open_private(path: str | Path, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _create_private(path: Path) -> None:
    """Make the file before SQLite does, which gives its journals the same mode.

    Only where there is none: closing any descriptor of a file lets go of all POSIX locks that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(_open_private(path, os.O_CREAT | os.O_EXCL | os.O_RDWR))


def schema_of(path: Path) -> tuple[int, int]:
    """The schema of a file, 0 where there is none, and the one that this program needs. Nothing is changed.

    Raises:
        Conflict: `schema_too_new`, `not_rookery`.
        Unavailable: `store_unavailable`.
    """
    if not path.exists():
        return 0, newest()
    with _translated(), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        connection.execute("PRAGMA query_only = ON")
        return version_of(connection), newest()


def _keep(connection: sqlite3.Connection, path: Path, reached: Steps) -> Path:
    """Copy a database that nobody else has open; the copy's path. It is whole and on the disk when it has that name."""
    kept = path.with_name(f"{path.name}.before-schema-{newest()}-{time.time_ns() // 1_000_000}")
    part = kept.with_name(kept.name + ".part")
    for left in path.parent.glob(f"{path.name}.before-schema-*.part*"):  # by one that was killed at it
        left.unlink()
    try:
        _create_private(part)
        with closing(sqlite3.connect(part)) as copy:
            copy.execute("PRAGMA synchronous = FULL")
            connection.backup(copy)
        reached("migrate.copied")
        part.rename(kept)
        sync_folder(path.parent)
        reached("migrate.kept")
        return kept
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class Snapshot(Protocol):
    """Runs a function in a thread, with a connection to the file as it was at one moment."""

    def __call__(self, read: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class Database:
    """Connections to one file. `write` is durable (WAL, synchronous=FULL) before it returns."""

    def __init__(
        self, path: Path, *, migrates: bool = True, is_bounded: bool = False, reached: Steps = unwatched
    ) -> None:
        """Open or create the file and bring it to this program's schema, unless others may be at work on an older.

        What an older Rookery made is kept as it was, in `kept`. With `is_bounded` no write waits longer for its answer
        than `writing.WAIT_SECONDS`, as clients of a server do; else only its turn has that bound.

        Raises:
            Unavailable: `store_unavailable`, when the folder or file can't be written.
            Conflict: `schema_too_new`, `schema_too_old`, `not_rookery`.
        """
        self._path = path
        with _translated():
            _make_private(path.parent)
            _create_private(path)
            writer = self._connect()
            try:
                check(writer)
                _use_wal(writer)
                self.kept = _keep(writer, path, reached) if migrates and is_older(writer) else None
                try:
                    migrate(writer, only_new=not migrates)
                except BaseException:
                    if self.kept:  # nothing was changed, and the next try keeps another
                        self.kept.unlink()
                    raise
            except BaseException:
                writer.close()
                raise
            self.reader = self._connect(read_only=True)
        self._closed = False
        self._writer = Writer(self._connect, is_bounded=is_bounded)
        self._writer.start(writer)

    def when_late(self, call: Callable[[], None]) -> None:
        """Have this called in the event loop whenever a write takes effect after its caller was refused."""
        self._writer.on_late = call

    async def write(self, run: Callable[[sqlite3.Connection], T], *, cached: bool = True) -> T:
        """Run a function in the writer thread and return its result once it is committed, together with its neighbours.

        A domain error undoes this function's changes alone; one of SQLite undoes the whole group, and all are told
        `Unavailable`. `cached` tells whether caches may hold what it changes.

        Raises:
            Unavailable: `busy`, when its turn does not come in time; it is not done then. `store_unavailable`, when
                the disk does not answer in time; it may still take effect when the disk does.
        """
        return await self._writer.write(run, cached=cached)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The event loop's own read-only connection, for reads bounded by a LIMIT."""
        with _translated():
            yield self.reader

    @contextmanager
    def reading_at_once(self) -> Iterator[sqlite3.Connection]:
        """As `reading`, with all that is read of one moment."""
        with self.reading() as sql:
            sql.execute("BEGIN")
            try:
                yield sql
            finally:
                sql.execute("COMMIT")

    async def read_long(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a long read in a thread, on one snapshot of its own."""
        return await asyncio.to_thread(self._on_snapshot, run)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["Snapshot"]:
        """Runs long reads in threads, all on the file as it is now.

        Raises:
            Conflict: `snapshot_too_old`, from a read after the snapshot's end, which comes at `SNAPSHOT_SECONDS`.
        """

        def begin() -> sqlite3.Connection:
            with _translated():
                connection = self._connect(read_only=True)
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM meta").fetchone()  # only the first read fixes the moment
                return connection

        connection = await asyncio.to_thread(begin)
        reading = threading.Lock()

        def end() -> None:
            with reading, suppress(sqlite3.Error):
                connection.execute("ROLLBACK")

        # A thread of its own: who reads may stand still, with the event loop, while what is read can't be written.
        timer = threading.Timer(SNAPSHOT_SECONDS, end)
        timer.daemon = True

        async def run(read: Callable[[sqlite3.Connection], T]) -> T:
            def translated() -> T:
                with reading, _translated():
                    if not connection.in_transaction:
                        raise Conflict("snapshot_too_old", "Reading took too long, and the database grew meanwhile.")
                    return read(connection)

            return await asyncio.to_thread(translated)

        try:
            start(timer)
            yield run
        finally:
            timer.cancel()
            with reading:
                connection.close()

    def readings(self) -> Iterable[Reading]:
        """How writes are committed, and the size of the log that they go through."""
        yield from self._writer.readings()
        with suppress(OSError):
            size = self._path.with_name(self._path.name + "-wal").stat().st_size
            yield Reading("sqlite_wal_bytes", "Size of the write-ahead log, which grows behind a long reader.", size)

    async def close(self) -> None:
        """Commit what waits and close."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        self.reader.close()

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_MILLIS / 1000,
            cached_statements=256,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
        return connection

    def _on_snapshot(self, run: Callable[[sqlite3.Connection], T]) -> T:
        with _translated():
            connection = self._connect(read_only=True)
            try:
                connection.execute("BEGIN")
                return run(connection)
            finally:
                connection.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the journal. SQLite does not wait for other processes here by itself."""
    deadline = time.monotonic() + BUSY_MILLIS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
