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

Serve = Callable[[Callable[[], None], int], None]
"""Serves until it is told to stop, and calls what it is given when it begins to. It is told which of all it is."""


@dataclass(slots=True)
class _Worker:
    """A process that serves. It writes to a pipe when it begins to, of which we hear by SIGIO."""

    number: int
    started: float
    told: int
    _serves: bool = False

    def serves(self) -> bool:
        """Whether it could ever serve."""
        if not self._serves:
            with suppress(BlockingIOError):
                self._serves = bool(os.read(self.told, 1))
        return self._serves


class Workers:
    """Runs `serve` in so many processes, and again in a new one for each that ends by itself.

    It forks, so there must be no thread and no event loop yet. `on_ready` is called once, when the first of them
    serves, and `on_stop` once, when they are to end.
    """

    def __init__(self, many: int, serve: Serve, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        self._many = many
        self._serve = serve
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._running: dict[int, _Worker] = {}
        """By their process ids."""
        self._served = False
        """Whether any could ever serve."""
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
        """See whether one of them begins to serve."""
        if not self._served and any(worker.serves() for worker in self._running.values()):
            self._served = True
            self._on_ready()

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
                self._serve(lambda: _tell(tells), which)
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


def _tell(pipe: int) -> None:
    with suppress(BrokenPipeError):  # the parent is gone
        os.write(pipe, b"+")
    os.close(pipe)
