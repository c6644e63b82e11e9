"""Log lines to stdout that never wait for its reader.

A line is written at once where the kernel takes it. When a pipe or socket is full, lines go into a bounded queue that a
thread writes from, in order; when that is full too, lines are dropped and counted.
"""

import logging
import os
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable
from select import select

from rookery.domain.tallies import Reading
from rookery.domain.threads import start

MOST_WAITING = 20_000
"""Lines that wait while the reader stands still."""
MOST_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes of those lines together."""
_CLOSE_SECONDS = 2.0
_READY_SECONDS = 1.0


class StdoutHandler(logging.Handler):
    """Writes to a file descriptor that is open for writing. `close` gives the lines that wait a moment to get there."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._write_now = _writer_that_does_not_wait(descriptor)
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._behind = False
        """Whether a thread writes, so that a new line goes behind those that wait."""
        self._guard = threading.Lock()
        """For what waits, and who writes it. The handler's own is held while `logging` closes it."""
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._sent = 0
        self._dropped = 0

    def readings(self) -> Iterable[Reading]:
        """What became of the lines."""
        yield Reading("log_lines_sent_total", "Log lines that were written or sent.", self._sent)
        yield Reading(
            "log_lines_dropped_total", "Log lines that found no room while their reader was away.", self._dropped
        )
        yield Reading("log_lines_waiting", f"Log lines that wait for it, of {MOST_WAITING}.", len(self._waiting))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or have it wait. What can't be written as a line is told on stderr, as all handlers do."""
        try:
            if self._process != os.getpid():
                self._forget()
            line = self.format(record).encode(errors="replace") + b"\n"
            with self._guard:
                left = line if self._behind else self._write(line)
                if left:
                    self._queue(left)
        except Exception:  # noqa: BLE001 - a log line must not fail the caller
            self.handleError(record)

    def close(self) -> None:
        """Write what waits, if that takes no longer than a moment."""
        thread = self._thread
        if thread is not None and self._process == os.getpid():
            thread.join(_CLOSE_SECONDS)
            with self._guard:
                self._dropped += len(self._waiting)
                self._waiting.clear()
                self._bytes = 0
        super().close()

    def _forget(self) -> None:
        """Begin anew in a fork: it has none of its parent's threads, and the lines that wait there are not its own."""
        self._process, self._behind, self._thread = os.getpid(), False, None
        self._guard = threading.Lock()  # another thread may have held it in the moment of the fork
        self._waiting.clear()
        self._bytes = 0

    def _write(self, line: bytes) -> bytes:
        """Write what the kernel takes now; the rest."""
        try:
            written = self._write_now(line)
        except BlockingIOError:
            return line
        except OSError:  # nobody reads any more, or the disk is full
            self._dropped += 1
            return b""
        if written == len(line):
            self._sent += 1
        return line[written:]

    def _queue(self, line: bytes) -> None:
        if len(self._waiting) >= MOST_WAITING or self._bytes + len(line) > MOST_WAITING_BYTES:
            self._dropped += 1
            return
        if not self._behind:
            thread = threading.Thread(target=self._write_waiting, name="stdout log", daemon=True)
            try:
                start(thread)
            except RuntimeError:  # none can be started now
                self._dropped += 1
                return
            self._thread, self._behind = thread, True
        self._waiting.append(line)
        self._bytes += len(line)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _write_waiting(self) -> None:
        """Write until nothing waits."""
        while True:
            line = self._next()
            if line is None:
                return
            if self._write_all(line):
                self._sent += 1
            else:
                self._dropped += 1

    def _next(self) -> bytes | None:
        with self._guard:
            if not self._waiting:
                self._behind = False
                return None
            line = self._waiting.popleft()
            self._bytes -= len(line)
            return line

    def _write_all(self, line: bytes) -> bool:
        while line:
            try:
                line = line[os.write(self._descriptor, line) :]
            except BlockingIOError:  # the process that gave us stdout has made it so
                select([], [self._descriptor], [], _READY_SECONDS)
            except OSError:
                return False
        return True


def _writer_that_does_not_wait(descriptor: int) -> Callable[[bytes], int]:
    """A function that writes at once what can be written, or raises BlockingIOError.

    What stdout refers to is shared with other processes, so its own flags are left alone.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return lambda line: os.write(descriptor, line)
    if stat.S_ISSOCK(mode):
        ours = socket.socket(fileno=os.dup(descriptor))
        return lambda line: ours.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    try:
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # another user's pipe, or no /proc
        return _never_now
    return lambda line: os.write(again, line)


def _never_now(_: bytes) -> int:
    raise BlockingIOError
