"""Lines to a log server: their form, what happens while it is away, and that nobody waits for it."""

import json
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rookery.web import logserver
from rookery.web.logserver import LogServer, LogServerHandler
from tools.certificates import Authority
from tools.servers.process import free_port

FORM = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) rookery (\d+) - - (.*)", re.DOTALL
)


class Listener:
    """A log server that keeps what it is sent, as frames that are counted in octets."""

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._listening = socket.create_server(("127.0.0.1", port))
        self._tls = tls
        self.port: int = self._listening.getsockname()[1]
        self.frames: list[bytes] = []
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # it was closed before
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def until(self, many: int) -> list[bytes]:
        limit = time.monotonic() + 20
        while len(self.frames) < many:
            assert time.monotonic() < limit, f"{len(self.frames)} of {many} came"
            time.sleep(0.005)
        return self.frames

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._connections.append(connection)
            with connection.makefile("rb") as stream:
                while length := self._length(stream.read):
                    self.frames.append(stream.read(length))

    def _length(self, read: Callable[[int], bytes]) -> int:
        digits = b""
        while (letter := read(1)).isdigit():
            digits += letter
        return int(digits) if letter == b" " else 0


@contextmanager
def listening(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Listener]:
    listener = Listener(port, tls)
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def logging_to(port: int, authority: Path | None = None) -> Iterator[tuple[logging.Logger, LogServerHandler]]:
    handler = LogServerHandler(LogServer(f"127.0.0.1:{port}", authority))
    logger = logging.Logger("test")  # noqa: LOG001 - one of its own, that nobody else hears
    logger.addHandler(handler)
    try:
        yield logger, handler
    finally:
        handler.close()


def numbers(handler: LogServerHandler) -> dict[str, float]:
    return {reading.name: reading.value for reading in handler.readings() if isinstance(reading.value, int)}


def test_a_line_has_the_form_of_rfc_5424() -> None:
    with listening() as listener, logging_to(listener.port) as (log, _):
        log.warning(json.dumps({"say": "two\nlines, and \N{BIRD}"}, ensure_ascii=False))
        log.info("x")
        log.error("y")
        log.debug("z")
        log.critical("c")
        frames = listener.until(5)
    found = [FORM.fullmatch(frame) for frame in frames]
    assert [int(match[1]) for match in found if match] == [16 * 8 + severity for severity in (4, 6, 3, 7, 2)]
    assert found[0]
    assert json.loads(found[0][5]) == {"say": "two\nlines, and \N{BIRD}"}


def test_every_line_comes_once_and_in_order() -> None:
    with listening() as listener, logging_to(listener.port) as (log, handler):
        for number in range(5_000):
            log.info("%d", number)
        frames = listener.until(5_000)
        assert numbers(handler)["log_lines_dropped_total"] == 0
    assert [int(frame.rpartition(b" ")[2]) for frame in frames] == list(range(5_000))


def test_what_is_logged_before_the_server_is_there_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logserver, "_FIRST_PAUSE", 0.01)
    port = free_port()
    with logging_to(port) as (log, _):
        for number in range(100):
            log.info("%d", number)
        with listening(port) as listener:
            assert [int(frame.rpartition(b" ")[2]) for frame in listener.until(100)] == list(range(100))


def test_a_server_that_ended_gets_what_comes_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logserver, "_FIRST_PAUSE", 0.01)
    with listening() as first, logging_to(first.port) as (log, _):
        log.info("before")
        first.until(1)
        first.close()
        log.info("between")
        with listening(first.port) as second:
            log.info("after")
            assert [frame.rpartition(b" ")[2] for frame in second.until(2)] == [b"between", b"after"]


def test_a_server_that_is_away_or_hangs_holds_up_nobody_and_costs_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logserver, "MOST_WAITING", 1_000)
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it takes connections and reads nothing
        for port in (free_port(), hanging.getsockname()[1]):
            with logging_to(port) as (log, handler):
                slowest, started = 0.0, time.perf_counter()
                for number in range(20_000):
                    begun = time.perf_counter()
                    log.info("%d %s", number, "x" * 1_000)
                    slowest = max(slowest, time.perf_counter() - begun)
                assert time.perf_counter() - started < logserver._SEND_SECONDS, "nobody waited for it"
                found = numbers(handler)
                monkeypatch.setattr(logserver, "_CLOSE_SECONDS", 0.0)
            assert found["log_lines_waiting"] <= 1_000
            assert found["log_lines_dropped_total"] >= 1_000
            assert sum(found.values()) <= 20_000
            assert slowest < 0.25


def test_what_waits_at_the_end_is_sent() -> None:
    with listening() as listener:
        with logging_to(listener.port) as (log, _):
            for number in range(1_000):
                log.info("%d", number)
        assert len(listener.until(1_000)) == 1_000


def test_tls_is_spoken_with_who_is_believed_and_with_nobody_else(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "one"), Authority(tmp_path / "other")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.sign("log", "127.0.0.1"))
    with listening(tls=tls) as listener:
        with logging_to(listener.port, other.certificate) as (log, handler):
            log.info("for nobody")
            limit = time.monotonic() + 5
            while handler._waiting and time.monotonic() < limit:
                time.sleep(0.01)
        with logging_to(listener.port, authority.certificate) as (log, _):
            log.info("secret")
            assert listener.until(1)[0].endswith(b" secret")
        assert len(listener.frames) == 1


def test_a_process_that_was_forked_speaks_for_itself() -> None:
    with listening() as listener, logging_to(listener.port) as (log, handler):
        log.info("parent")
        listener.until(1)
        child = os.fork()
        if not child:
            log.info("child")
            handler.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert listener.until(2)[1].endswith(b" child")
        log.info("parent again")
        assert [frame.partition(b" - - ")[2] for frame in listener.until(3)] == [b"parent", b"child", b"parent again"]
