"""Log lines to a log server: RFC 5424 over TCP or TLS, counted in octets (RFC 6587), from a thread of its own.

Whoever logs puts a line into a queue and goes on, whatever becomes of the log server: when the queue is full, lines are
dropped and counted. Where a connection breaks, what is being sent is sent again, so a line may come twice; what the
kernel had taken just before is lost, as TCP alone does not tell. So the log server should be a local one.
"""

import logging
import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rookery.domain.tallies import Reading
from rookery.domain.threads import start

MOST_WAITING = 20_000
"""Lines that wait while the server is away: about a quarter of a minute at a thousand requests a second."""
_BATCH = 500
_SEND_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_CLOSE_SECONDS = 2.0
_LOCAL0 = 16
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


@dataclass(frozen=True, slots=True)
class LogServer:
    """Where it is (`host:port`), and the PEM file of whom to believe who it is; given, TLS is on."""

    address: str
    authority: Path | None = None


class LogServerHandler(logging.Handler):
    """Sends what it is given to a log server. `close` gives what waits a moment to get there."""

    def __init__(self, server: LogServer) -> None:
        super().__init__()
        host, _, port = server.address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._tls = ssl.create_default_context(cafile=server.authority) if server.authority else None
        self._host = _printable(socket.gethostname(), 255)
        self._waiting: deque[bytes] = deque()
        self._news = threading.Event()
        self._closing = False
        self._dropped = 0
        self._sent = 0
        self._thread: threading.Thread | None = None
        self._process = 0
        self._connection: socket.socket | None = None

    def readings(self) -> Iterable[Reading]:
        """What became of the lines."""
        yield Reading("log_lines_sent_total", "Log lines that were handed to the log server.", self._sent)
        yield Reading("log_lines_dropped_total", "Log lines that found no room while it was away.", self._dropped)
        yield Reading("log_lines_waiting", f"Log lines that wait for it, of {MOST_WAITING}.", len(self._waiting))

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line into the queue. What can't be written as a line is told on stderr, as all handlers do."""
        try:
            if self._process != os.getpid():
                self._begin()
            if len(self._waiting) >= MOST_WAITING:
                self._dropped += 1
                return
            self._waiting.append(self._frame(record))
            self._news.set()
        except Exception:  # noqa: BLE001 - whoever logs must not fail by it
            self.handleError(record)

    def close(self) -> None:
        """Send what waits, if that takes no longer than a moment."""
        self._closing = True
        self._news.set()
        if self._thread is not None and self._process == os.getpid():
            self._thread.join(_CLOSE_SECONDS)
        self._dropped += len(self._waiting)
        super().close()

    def _begin(self) -> None:
        """Start the thread of this process. A fork has none of its parent's, and what waits there is not its own."""
        self._process = os.getpid()
        self._waiting, self._news, self._connection = deque(), threading.Event(), None
        self._thread = threading.Thread(target=self._run, name="log server", daemon=True)
        start(self._thread)

    def _frame(self, record: logging.LogRecord) -> bytes:
        severity = next((number for level, number in _SEVERITIES if record.levelno >= level), _DEBUG)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        head = f"<{_LOCAL0 * 8 + severity}>1 {moment} {self._host} rookery {os.getpid()} - - "
        line = head.encode() + self.format(record).encode(errors="replace")
        return b"%d %b" % (len(line), line)

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._send_all()
        finally:
            if self._connection is not None:
                self._connection.close()

    def _send_all(self) -> None:
        pause = _FIRST_PAUSE
        batch: list[bytes] = []
        while True:
            if not batch:
                self._news.wait()
                self._news.clear()
                batch = self._take()
            if not batch:
                if self._closing:
                    return
                continue
            if self._send(b"".join(batch)):
                self._sent += len(batch)
                batch, pause = self._take(), _FIRST_PAUSE
                if not batch and self._closing:
                    return
            else:
                if self._closing:
                    return
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _take(self) -> list[bytes]:
        return [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]

    def _send(self, lines: bytes) -> bool:
        try:
            if self._connection is None or _is_closed(self._connection):
                self._connection = self._connect()
            self._connection.sendall(lines)
        except OSError:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            return False
        return True

    def _connect(self) -> socket.socket:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        connection = socket.create_connection(self._address, _SEND_SECONDS)
        try:
            return self._tls.wrap_socket(connection, server_hostname=self._address[0]) if self._tls else connection
        except BaseException:
            connection.close()
            raise


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has gone. A log server says nothing, so whatever can be read is its end."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(_SEND_SECONDS)
    return True


def _printable(text: str, most: int) -> str:
    """As RFC 5424 wants names: printable ASCII, and a dash where there is none."""
    return "".join(letter for letter in text if "!" <= letter <= "~")[:most] or "-"
