"""The one writer of a SQLite file: a thread that commits the writes that wait together, with one sync."""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rookery.adapters.sqlite.errors import translated, unreadable
from rookery.domain.errors import Conflict, Unavailable
from rookery.domain.tallies import Reading, Spread
from rookery.domain.threads import start

T = TypeVar("T")

_log = logging.getLogger(__name__)

BATCH = 256
"""The most writes committed together. Past some dozens the fsync is shared so widely that more gains nothing."""
_BATCHES = tuple(float(2**power) for power in range(9))
WAITING = 4_096
"""The most writes that wait for the writer; further callers wait for a place, which slows posting down."""
WAIT_SECONDS = 5.0
"""Time that a write has from its call on: to begin, and in a server (`is_bounded`) also to be answered."""
_TURN = 0.8
"""Share of that time in which a write with a bound on its answer must begin: the rest is for its commit."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Seconds until a writer that failed goes on; doubled each time that it fails again."""


@dataclass(slots=True, eq=False)
class _Write(Generic[T]):
    """A queued write and its caller. `run` gets the connection inside a transaction."""

    run: Callable[[sqlite3.Connection], T]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[T]"
    deadline: float
    """When it is too late to begin with it (monotonic)."""
    cached: bool
    """Whether caches may hold what it changes."""
    begun: bool = False
    over: bool = False
    """Whether its outcome is known."""
    result: T | None = None
    error: Exception | None = None


class Writer:
    """Runs functions in a thread, in the order of their calls, each durable before its caller hears of it.

    The thread outlives each error: those whose writes it was at are refused, and it goes on with a new connection.
    With `is_bounded` no caller waits longer than `WAIT_SECONDS`, whatever the disk does. A write that was refused
    for that may still take effect, if its commit had begun: then `on_late` is called in its event loop.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, is_bounded: bool) -> None:
        self.on_late: Callable[[], None] = _nothing
        self._connect = connect
        self._is_bounded = is_bounded
        self._queue: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._places = asyncio.Semaphore(WAITING)
        self._closed = False
        self._callers = 0
        self._quiet = asyncio.Event()
        self._batches = Spread(_BATCHES)
        self._batch: list[_Write[Any]] = []
        """The writes that the thread is at."""
        self._begun: float | None = None
        """When it began with them (monotonic)."""
        self._restarts = 0
        self._pause = _FIRST_PAUSE
        """Seconds to wait before the next restart."""
        self._late = 0
        self._thread: threading.Thread | None = None
        self._at_end: Callable[[], object] = _nothing

    def start(self, connection: sqlite3.Connection) -> None:
        """Start the thread, with a connection that is its own from now on."""
        self._start(connection)

    async def write(self, run: Callable[[sqlite3.Connection], T], *, cached: bool) -> T:
        """The function's result, once it is committed. See `Database.write`."""
        if self._closed:
            raise Unavailable("store_unavailable", "The store is closed.")
        self._require_answers()
        self._callers += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        turn = WAIT_SECONDS * _TURN if self._is_bounded else WAIT_SECONDS
        write = _Write(run, loop, answer, time.monotonic() + turn, cached)
        end = loop.time() + WAIT_SECONDS
        try:
            await self._take_place()
            timer = loop.call_at(end, _refuse, write) if self._is_bounded else None
            try:
                self._queue.put(write)
                return await answer
            finally:
                if timer is not None:
                    timer.cancel()
                self._places.release()
        finally:
            self._leave()

    def readings(self) -> Iterable[Reading]:
        """How writes are committed."""
        yield Reading("sqlite_batch", "Writes that one commit made durable together.", self._batches)
        yield Reading("sqlite_writes_waiting", "Writes that wait for their commit, and those in it.", self._callers)
        yield Reading("sqlite_writer_restarts_total", "How often the writer thread failed and went on.", self._restarts)
        yield Reading(
            "sqlite_late_writes_total", "Writes that took effect after their callers had been refused.", self._late
        )

    async def close(self) -> None:
        """Commit what waits, and end the thread."""
        if self._closed:
            return
        self._closed = True
        if self._callers:
            await self._quiet.wait()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._at_end = lambda: loop.call_soon_threadsafe(ended.set)  # a thread that joins it may be one too many
        self._queue.put(None)
        if self._thread is not None and self._thread.is_alive():
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS if self._is_bounded else None):
                    await ended.wait()

    def _require_answers(self) -> None:
        """Refuse at once while a commit hangs: a queue behind it would only be refused later.

        Raises:
            Unavailable: `store_unavailable`.
        """
        begun = self._begun
        if self._is_bounded and begun is not None and time.monotonic() - begun > WAIT_SECONDS:
            raise _unanswered()
        if self._thread is None or not self._thread.is_alive():  # it met an error even in dealing with one
            self._start_again()

    def _start_again(self) -> None:
        """Start a thread in place of one that ended.

        Raises:
            Unavailable: `store_unavailable`.
        """
        with translated():
            connection = self._connect()
        left, self._batch, self._begun = self._batch, [], None
        try:
            self._start(connection)
        except RuntimeError as error:  # no thread can be started now
            connection.close()
            raise unreadable() from error
        finally:
            self._give_up(left, None)
        self._restarts += 1

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # at once, without the cost of a time limit
            return
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise _busy() from None

    def _leave(self) -> None:
        self._callers -= 1
        if self._closed and not self._callers:
            self._quiet.set()

    def _start(self, connection: sqlite3.Connection) -> None:
        self._thread = threading.Thread(target=self._run, args=(connection,), name="sqlite-writer", daemon=True)
        start(self._thread)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self, connection: sqlite3.Connection) -> None:
        """Write until told to stop. An error that no single write can be blamed for costs a pause, not the thread."""
        try:
            while True:
                try:
                    self._write_all(connection)
                    break
                except BaseException as error:  # noqa: BLE001 - the thread must live, whatever it met
                    self._recover(connection, error)
                    connection = self._connect_again()
            connection.close()
        finally:
            with suppress(Exception):
                self._refuse_what_waits()
            self._at_end()

    def _refuse_what_waits(self) -> None:
        """Refuse the writes that this thread was at, or would have come to: it has ended."""
        left, self._batch = self._batch, []
        with suppress(queue.Empty):
            while (write := self._queue.get_nowait()) is not None:
                left.append(write)
        self._give_up(left, None)

    def _recover(self, connection: sqlite3.Connection, error: BaseException) -> None:
        """Refuse the writes that the thread was at, count the restart, and wait a little before it."""
        self._restarts += 1
        left, self._batch, self._begun = self._batch, [], None
        with suppress(Exception):
            _log.error("the writer of the database failed and starts again", exc_info=error)
        with suppress(Exception):
            connection.close()  # which rolls back
        self._give_up(left, error)
        self._wait()

    def _wait(self) -> None:
        """Wait for twice as long as the last time, if no commit came between."""
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _give_up(self, batch: list[_Write[Any]], cause: BaseException | None) -> None:
        """Refuse those of a group whose outcome is not known, and tell all."""
        for write in batch:
            if not write.over:
                write.error, write.over = unreadable(), True
                write.error.__cause__ = cause
        self._answer(batch)

    def _connect_again(self) -> sqlite3.Connection:
        while True:
            try:
                return self._connect()
            except Exception:  # noqa: BLE001 - those who wait are refused in their time; the thread goes on trying
                self._wait()

    def _write_all(self, connection: sqlite3.Connection) -> None:
        """Take what waits, commit it together, answer all at once."""
        stopped = False
        while not stopped:
            batch: list[_Write[Any]] = []
            self._batch = batch
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == BATCH or self._queue.empty():
                    break
                item = self._queue.get()
            stopped = item is None
            if batch:
                if in_time := _in_time(batch):
                    self._begun = time.monotonic()
                    _commit(connection, in_time)
                    self._begun = None
                    self._pause = _FIRST_PAUSE
                    self._batches.add(len(in_time))
                self._answer(batch)
        self._batch = []

    def _answer(self, batch: list[_Write[Any]]) -> None:
        """Wake each waiting loop once."""
        for loop in {write.loop for write in batch}:
            mine = [write for write in batch if write.loop is loop]
            with suppress(RuntimeError):  # it was closed: nobody waits there any more
                loop.call_soon_threadsafe(self._settle, mine)

    # --- the event loop again ----------------------------------------------------------------------------------------

    def _settle(self, batch: list[_Write[Any]]) -> None:
        late = 0
        for write in batch:
            if write.answer.done():
                late += write.begun and write.error is None and write.cached and _was_refused(write.answer)
            elif write.error is not None:
                write.answer.set_exception(write.error)
            else:
                write.answer.set_result(write.result)
        if late:
            self._late += late
            self.on_late()


def _nothing() -> None:
    """Nobody wants to hear of it."""


def _busy() -> Unavailable:
    return Unavailable("busy", "Too many writes wait; try again in a moment.")


def _unanswered() -> Unavailable:
    return Unavailable("store_unavailable", "The database does not answer now.", retry_after=2)


def _was_refused(answer: "asyncio.Future[Any]") -> bool:
    return answer.cancelled() or answer.exception() is not None


def _refuse(write: _Write[Any]) -> None:
    """Tell the caller of a write that its time is up."""
    if not write.answer.done():
        write.answer.set_exception(_unanswered() if write.begun else _busy())


def _in_time(batch: list[_Write[Any]]) -> list[_Write[Any]]:
    """Those that did not wait too long, and whose callers still wait. The others are not begun."""
    now = time.monotonic()
    for write in batch:
        if write.answer.done():
            write.over = True
        elif write.deadline < now:
            write.error, write.over = _busy(), True
        else:
            write.begun = True
    return [write for write in batch if write.begun]


def _commit(connection: sqlite3.Connection, batch: list[_Write[Any]]) -> None:
    try:
        with translated():
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
    for write in batch:
        write.over = True


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
