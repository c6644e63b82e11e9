"""Several server processes on one listening socket, watched over by the one that started them."""

import ctypes
import fcntl
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from rookery.cli.output import complain
from rookery.domain.errors import Failure

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_STOPPED_BY = (signal.SIGTERM, signal.SIGINT)
_HEARD = (*_STOPPED_BY, signal.SIGIO)
_WELL_SECONDS = 5.0
"""One that ends sooner is not replaced at once, so that those that always do don't take the machine."""
_LONGEST_PAUSE = 30.0
PULSE_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""As long as systemd waits for one that is alone (WatchdogSec=)."""

Serve = Callable[[Callable[[], None], int], None]
"""Serves until it is told to stop. It calls what it is given when it begins to, and every `PULSE_SECONDS` after that at
the latest, as long as its event loop turns. It is told which of all it is."""


@dataclass(slots=True)
class _Worker:
    """A process that serves. It writes to a pipe while it does, of which we hear by SIGIO."""

    number: int
    started: float
    told: int
    heard: float | None = None
    """When it last wrote, if ever."""

    def hear(self, now: float) -> bool:
        """Whether it has written."""
        with suppress(BlockingIOError):
            if os.read(self.told, 4_096):
                self.heard = now
                return True
        return False


class Workers:
    """Runs `serve` in so many processes, and again in a new one for each that ends by itself, or falls silent.

    It forks, so there must be no thread and no event loop yet. `pulse` is called when the first of them serves, and as
    long as any does; `on_stop` once, when they are to end.
    """

    def __init__(self, many: int, serve: Serve, pulse: Callable[[], None], on_stop: Callable[[], None]) -> None:
        self._many = many
        self._serve = serve
        self._pulse = pulse
        self._on_stop = on_stop
        self._running: dict[int, _Worker] = {}
        """By their process ids."""
        self._served = False
        """Whether any could ever serve."""
        self._heard = 0.0
        """When any last wrote."""
        self._stopping = False
        self._pause = 0.0

    def run(self) -> int:
        """Run them until SIGTERM or SIGINT; the exit status. If as many end and none could ever serve, all end."""
        for number in _STOPPED_BY:
            signal.signal(number, lambda *_: self._stop())
        signal.signal(signal.SIGIO, lambda *_: self._listen())
        for which in range(self._many):
            self._start(which)
        failed = False
        in_vain = 0
        while self._running:
            ended, status = os.wait()
            self._listen()
            worker = self._running.pop(ended)
            os.close(worker.told)
            lived = time.monotonic() - worker.started
            code = os.waitstatus_to_exitcode(status)
            in_vain += not self._served
            if self._stopping:
                failed = failed or code not in (0, *(-number for number in _STOPPED_BY))
            elif in_vain == self._many:
                failed = True
                self._stop()
            else:
                complain(f"worker {ended} ended with status {code}; another takes its place")
                self._wait(0 if lived > _WELL_SECONDS else min(max(2 * self._pause, 1.0), _LONGEST_PAUSE))
                self._start(worker.number)
        return int(failed)

    def _listen(self) -> None:
        """Hear what they say, and end whoever has said nothing for long while others did."""
        now = time.monotonic()
        if not [worker for worker in self._running.values() if worker.hear(now)]:
            return
        all_stood_still = now - self._heard > 2 * PULSE_SECONDS
        self._served, self._heard = True, now
        self._pulse()
        for process, worker in self._running.items():
            if worker.heard is None or self._stopping:
                continue
            if all_stood_still:
                worker.heard = now
            elif now - worker.heard > SILENT_SECONDS:
                complain(f"worker {process} has been silent for {SILENT_SECONDS:.0f} seconds and is ended")
                worker.heard = now
                os.kill(process, signal.SIGKILL)

    def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until told to stop."""
        self._pause = seconds
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.1)

    def _start(self, which: int) -> None:
        # A signal that comes meanwhile is the child's own when it can be: our handler would stop its siblings there.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        if not self._stopping:
            parent = os.getpid()
            told, tells = os.pipe()
            fcntl.fcntl(told, fcntl.F_SETOWN, parent)
            fcntl.fcntl(told, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
            number = os.fork()
            if not number:
                os.close(told)
                self._be_worker(parent, tells, which)
            os.close(tells)
            self._running[number] = _Worker(which, time.monotonic(), told)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)

    def _be_worker(self, parent: int, tells: int, which: int) -> NoReturn:
        status = 1
        try:
            for number in _HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() == parent:  # else it ended before we asked
                self._serve(lambda: _write(tells), which)
            status = 0
        except Failure as error:
            complain(f"{error.message} [{error.code}]")
        except BaseException:  # noqa: BLE001 - whatever happens, this process never returns into its parent's doing
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                logging.shutdown()  # what waits for a log server
            os._exit(status)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._on_stop()
        for worker in list(self._running):
            with suppress(ProcessLookupError):  # it ended in this moment
                os.kill(worker, signal.SIGTERM)


def _write(pipe: int) -> None:
    with suppress(BrokenPipeError):  # the parent is gone
        os.write(pipe, b"+")
