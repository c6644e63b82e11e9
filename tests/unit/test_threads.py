"""Threads that can't begin: nobody waits for them for ever."""

import subprocess
import sys
import threading

import pytest

from rookery.domain.threads import start, started_pool

_STUCK = """
import threading, time
from rookery.domain import threads
threads.START_SECONDS = 0.2

class Stuck(threading.Thread):
    def _bootstrap(self):  # as one that finds no memory for what comes before `run`
        pass

threads.start(Stuck())
"""


def test_a_thread_that_never_says_it_has_begun_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", _STUCK], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>"' in done.stderr, "where it stood"


def test_one_that_begins_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    begun = threading.Event()
    thread = threading.Thread(target=begun.set)
    start(thread)
    assert begun.wait(30)
    thread.join()
    assert capfd.readouterr().err == ""


def test_all_threads_of_a_pool_run_already() -> None:
    pool = started_pool(3, "three")
    try:
        running = [thread for thread in threading.enumerate() if thread.name.startswith("three")]
        assert len(running) == 3
    finally:
        pool.shutdown()


def test_a_pool_that_can_not_start_all_its_threads_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would wait for the others for ever, and hold up the end of the program."""
    start_one, started = threading.Thread.start, list[threading.Thread]()

    def start_only_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start_one(thread)

    monkeypatch.setattr(threading.Thread, "start", start_only_one)
    with pytest.raises(RuntimeError):
        started_pool(2, "two")
    started[0].join(30)
    assert not started[0].is_alive()
