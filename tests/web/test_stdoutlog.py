"""Log lines to a pipe whose reader is slow, or away."""

import logging
import os
import threading
import time
import weakref

import pytest

from rookery.web import stdoutlog
from rookery.web.stdoutlog import StdoutHandler

LINE = "x" * 200
_END = b"the end"


class Pipe:
    """A handler that writes to a pipe, and the lines that were read from it."""

    def __init__(self) -> None:
        self.reads, self._writes = os.pipe()
        self.handler = StdoutHandler(self._writes)
        self._got = bytearray()

    def log(self, number: int) -> None:
        self.handler.handle(logging.makeLogRecord({"msg": f"{number} {LINE}"}))

    def reading(self, after: float) -> threading.Thread:
        """Read until `shut`, from so many seconds on."""

        def read() -> None:
            time.sleep(after)
            while not self._got.endswith(_END):
                self._got += os.read(self.reads, 65_536)

        thread = threading.Thread(target=read)
        thread.start()
        return thread

    def shut(self) -> None:
        """As Python does at its end."""
        logging.shutdown([weakref.ref(self.handler)])
        os.write(self._writes, _END)

    @property
    def numbers(self) -> list[int]:
        return [int(line.partition(b" ")[0]) for line in bytes(self._got).removesuffix(_END).splitlines()]

    def figures(self) -> dict[str, int]:
        return {reading.name: int(reading.value) for reading in self.handler.readings()}  # type: ignore[arg-type]


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def test_what_waits_at_the_end_is_written_if_somebody_reads(pipe: Pipe) -> None:
    for number in range(3_000):
        pipe.log(number)
    assert pipe.figures()["log_lines_waiting"] > 0
    reading = pipe.reading(after=0.2)
    pipe.shut()
    reading.join()
    assert pipe.numbers == list(range(3_000))
    assert pipe.figures() == {"log_lines_sent_total": 3_000, "log_lines_dropped_total": 0, "log_lines_waiting": 0}


def test_what_nobody_reads_is_dropped_and_counted(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdoutlog, "MOST_WAITING", 1_000)
    monkeypatch.setattr(stdoutlog, "_CLOSE_SECONDS", 0.1)
    for number in range(3_000):
        pipe.log(number)
    before = pipe.figures()
    assert before["log_lines_waiting"] <= 1_000
    assert before["log_lines_dropped_total"] > 1_000
    pipe.handler.close()  # the line that the thread is at stays where it is
    after = pipe.figures()
    assert after["log_lines_waiting"] == 0
    assert after["log_lines_dropped_total"] == before["log_lines_dropped_total"] + before["log_lines_waiting"]
    reading = pipe.reading(after=0)
    pipe.shut()
    reading.join()
    assert pipe.numbers == sorted(pipe.numbers)
