"""One SQLite file: a writer thread with group commit, a reader on the event loop, and threads for what takes long."""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from rookery.adapters.sqlite.schema import check, foreign, is_older, migrate, newest, version_of
from rookery.adapters.sqlite.syncing import sync_folder
from rookery.domain.errors import Conflict, Unavailable
from rookery.domain.tallies import Reading, Spread
from rookery.ports.steps import Steps, unwatched

T = TypeVar("T")

BATCH = 256
"""The most writes committed together. Past some dozens the fsync is shared so widely that more gains nothing."""
_BATCHES = tuple(float(2**power) for power in range(9))
WAITING = 4_096
"""The most writes that wait for the writer; further callers wait for a place, which slows posting down."""
_RETRY_SECONDS = 0.02
WAIT_SECONDS = 5.0
"""How long a write waits for its turn before it is refused: with another process's long write that is its own twice."""
BUSY_MILLIS = 5_000
"""How long to wait for another process's write, say `rookery recount` beside the server."""


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


@dataclass(slots=True)
class _Write(Generic[T]):
    """A queued write and whom to tell. `run` gets the connection inside a transaction."""

    run: Callable[[sqlite3.Connection], T]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[T]"
    deadline: float
    """When it is too late to begin with it (monotonic)."""
    result: T | None = None
    error: Exception | None = None


class Snapshot(Protocol):
    """Runs a function in a thread, with a connection to the file as it was at one moment."""

    def __call__(self, read: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class Database:
    """Connections to one file. `write` is durable (WAL, synchronous=FULL) before it returns."""

    def __init__(self, path: Path, *, migrates: bool = True, reached: Steps = unwatched) -> None:
        """Open or create the file and bring it to this program's schema, unless others may be at work on an older.

        What an older Rookery made is kept as it was, in `kept`.

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
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._places = asyncio.Semaphore(WAITING)
        self._closed = False
        self._batches = Spread(_BATCHES)
        self._callers = 0
        self._quiet = asyncio.Event()
        self._thread = threading.Thread(target=self._write_all, args=(writer,), name="sqlite-writer", daemon=True)
        self._thread.start()

    async def write(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function in the writer thread and return its result once it is committed, together with its neighbours.

        A domain error undoes this function's changes alone; one of SQLite undoes the whole group, and all are told
        `Unavailable`. So is whoever's turn does not come in time (`busy`).
        """
        if self._closed:
            raise Unavailable("store_unavailable", "The store is closed.")
        self._callers += 1
        deadline = time.monotonic() + WAIT_SECONDS
        try:
            await self._take_place()
            try:
                loop = asyncio.get_running_loop()
                answer: asyncio.Future[T] = loop.create_future()
                self._queue.put(_Write(run, loop, answer, deadline))
                return await answer
            finally:
                self._places.release()
        finally:
            self._leave()

    async def _take_place(self) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise _busy() from None

    def _leave(self) -> None:
        self._callers -= 1
        if self._closed and not self._callers:
            self._quiet.set()

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
        """Runs long reads in threads, all on the file as it is now."""

        def begin() -> sqlite3.Connection:
            with _translated():
                connection = self._connect(read_only=True)
                connection.execute("BEGIN")
                connection.execute("SELECT 1 FROM meta").fetchone()  # only the first read fixes the moment
                return connection

        connection = await asyncio.to_thread(begin)

        async def run(read: Callable[[sqlite3.Connection], T]) -> T:
            def translated() -> T:
                with _translated():
                    return read(connection)

            return await asyncio.to_thread(translated)

        try:
            yield run
        finally:
            connection.close()

    def readings(self) -> Iterable[Reading]:
        """How writes are committed."""
        yield Reading("sqlite_batch", "Writes that one commit made durable together.", self._batches)
        yield Reading("sqlite_writes_waiting", "Writes that wait for their commit, and those in it.", self._callers)

    async def close(self) -> None:
        """Commit what waits and close."""
        if self._closed:
            return
        self._closed = True
        if self._callers:
            await self._quiet.wait()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
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

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """The writer thread: take what waits, commit it together, answer all at once."""
        stopped = False
        while not stopped:
            batch = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            stopped = item is None
            if batch:
                if in_time := _in_time(batch):
                    _commit(connection, in_time)
                    self._batches.add(len(in_time))
                _answer(batch)
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


def _busy() -> Unavailable:
    return Unavailable("busy", "Too many writes wait; try again in a moment.")


def _in_time(batch: list[_Write[Any]]) -> list[_Write[Any]]:
    """Those that did not wait too long. The others are refused before anything is done of them."""
    now = time.monotonic()
    for write in batch:
        if write.deadline < now:
            write.error = _busy()
    return [write for write in batch if write.error is None]


def _commit(connection: sqlite3.Connection, batch: list[_Write[Any]]) -> None:
    try:
        with _translated():
            connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                _run_one(connection, write)
            connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it and the thread go on
        for write in batch:
            write.error = error
    finally:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # the thread must live; the next group is refused if this one still stands
                connection.execute("ROLLBACK")


def _run_one(connection: sqlite3.Connection, write: _Write[Any]) -> None:
    connection.execute("SAVEPOINT one")
    try:
        write.result = write.run(connection)
    except sqlite3.IntegrityError as error:
        write.error = Conflict("inconsistent", "The write does not fit what is there.")
        write.error.__cause__ = error
        connection.execute("ROLLBACK TO one")
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - a refusal or a mistake in one write must not fail its neighbours
        write.error = error
        connection.execute("ROLLBACK TO one")
    connection.execute("RELEASE one")


def _answer(batch: list[_Write[Any]]) -> None:
    """Wake each waiting loop once."""
    for loop in {write.loop for write in batch}:
        mine = [write for write in batch if write.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, mine)


def _settle(batch: list[_Write[Any]]) -> None:
    for write in batch:
        if write.answer.done():  # its caller was cancelled; the write stands all the same
            continue
        if write.error is not None:
            write.answer.set_exception(write.error)
        else:
            write.answer.set_result(write.result)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what SQLite or the file system says into a domain error. Its text holds paths and queries: it stays here."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise foreign() from error
        raise Unavailable("store_unavailable", "The database can't be read or written now.", retry_after=2) from error
