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
_HEARD = (*_STOPPED_BY, signal.SIGIO, signal.SIGCHLD)
_WELL_SECONDS = 5.0
"""One that ends sooner is not replaced at once, so that those that always do don't take the machine."""
_LONGEST_PAUSE = 30.0
_TICK_SECONDS = 1.0
PULSE_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""As long as systemd waits for one that is alone (WatchdogSec=)."""
BEGIN_SECONDS = 120.0
"""As long as systemd waits for one to begin (TimeoutStartSec=)."""

Serve = Callable[[Callable[[], None], int], None]
"""Serves until it is told to stop. It calls what it is given when it begins to, and every `PULSE_SECONDS` after that at
the latest, as long as its event loop turns. It is told which of all it is."""


@dataclass(slots=True)
class _Worker:
    """A process that serves. It writes to a pipe while it does, of which we hear by SIGIO."""

    which: int
    told: int
    started: float
    heard: float | None = None
    """When it last wrote, if ever."""

    def hear(self, now: float) -> bool:
        """Whether it has written."""
        with suppress(BlockingIOError):
            if os.read(self.told, 4_096):
                self.heard = now
                return True
        return False

    def is_silent(self, now: float) -> bool:
        """Whether it has not begun, or gone on, for too long."""
        return now - self.started > BEGIN_SECONDS if self.heard is None else now - self.heard > SILENT_SECONDS


class Workers:
    """Runs `serve` in so many processes, and again in a new one for each that ends by itself, or falls silent.

    It forks, so there must be no thread and no event loop yet. `pulse` is called when the first of them serves, and as
    long as any does; `on_stop` once, when they are to end, for which they have `stop_seconds`.
    """

    def __init__(
        self, many: int, serve: Serve, pulse: Callable[[], None], on_stop: Callable[[], None], stop_seconds: float
    ) -> None:
        self._many = many
        self._serve = serve
        self._pulse = pulse
        self._on_stop = on_stop
        self._stop_seconds = stop_seconds
        self._running: dict[int, _Worker] = {}
        """By their process ids."""
        self._due: dict[int, float] = {}
        """When those that ended are to be started again, by which they are."""
        self._served = False
        """Whether any could ever serve."""
        self._in_vain = 0
        self._pause = 0.0
        self._end_by: float | None = None
        """When whoever still runs is ended, since all were told to stop."""
        self._failed = False

    def run(self) -> int:
        """Run them until SIGTERM or SIGINT; the exit status. If as many end and none could ever serve, all end.

        These signals, and those of the workers, are not handled but waited for: so each is dealt with between two
        steps, and never within one.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may ignore it, and none could be waited for
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        before = time.monotonic()
        for which in range(self._many):
            self._start(which)
        while self._running or self._due:
            came = signal.sigtimedwait(_HEARD, self._patience(before))
            now = time.monotonic()
            if came and came.si_signo in _STOPPED_BY:
                self._stop(now)
            self._bury(now)
            self._hear(now)
            self._watch(now, stood_still=now - before - _TICK_SECONDS)
            for which in [which for which, when in self._due.items() if when <= now]:
                del self._due[which]
                self._start_again(which, now)
            before = now
        return int(self._failed)

    def _patience(self, now: float) -> float:
        return max(0.0, min([_TICK_SECONDS, *(when - now for when in self._due.values())]))

    def _start(self, which: int) -> None:
        parent = os.getpid()
        told, tells = os.pipe()
        fcntl.fcntl(told, fcntl.F_SETOWN, parent)
        fcntl.fcntl(told, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        try:
            process = os.fork()
        except OSError:
            os.close(told)
            os.close(tells)
            raise
        if not process:
            for pipe in (told, *(worker.told for worker in self._running.values())):
                os.close(pipe)
            self._be_worker(parent, tells, which)
        os.close(tells)
        self._running[process] = _Worker(which, told, time.monotonic())

    def _start_again(self, which: int, now: float) -> None:
        try:
            self._start(which)
        except OSError as error:  # no memory or no process to be had just now: those that run go on
            self._pause = min(max(2 * self._pause, 1.0), _LONGEST_PAUSE)
            self._due[which] = now + self._pause
            complain(f"no worker can be started: {(error.strerror or 'it failed').lower()}")

    def _be_worker(self, parent: int, tells: int, which: int) -> NoReturn:
        status = 1
        try:
            for number in _STOPPED_BY:
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

    def _bury(self, now: float) -> None:
        """See who has ended, and when another takes his place."""
        for process, worker in list(self._running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            self._hear(now)  # it may have served before it ended
            del self._running[process]
            os.close(worker.told)
            code = os.waitstatus_to_exitcode(status)
            self._in_vain += not self._served
            if self._end_by is not None:
                self._failed = self._failed or code not in (0, *(-number for number in _STOPPED_BY))
            elif self._in_vain == self._many:
                self._failed = True
                self._stop(now)
            else:
                complain(f"worker {process} ended with status {code}; another takes its place")
                was_well = now - worker.started > _WELL_SECONDS
                self._pause = 0.0 if was_well else min(max(2 * self._pause, 1.0), _LONGEST_PAUSE)
                self._due[worker.which] = now + self._pause

    def _hear(self, now: float) -> None:
        """Hear what they say; at a stop nobody begins any more."""
        heard = [worker for worker in self._running.values() if worker.hear(now)]
        if heard and (self._served or self._end_by is None):
            self._served = True
            self._pulse()

    def _watch(self, now: float, *, stood_still: float) -> None:
        """End who hangs. What time we ourselves, and so perhaps all, stood still is nobody's silence."""
        for process, worker in self._running.items():
            if stood_still > _TICK_SECONDS:
                worker.started += stood_still
                worker.heard = None if worker.heard is None else worker.heard + stood_still
            if self._end_by is not None and now > self._end_by:
                complain(f"worker {process} has not ended in {self._stop_seconds:.0f} seconds and is killed")
            elif self._end_by is None and worker.is_silent(now):
                complain(f"worker {process} has been silent for too long and is killed")
            else:
                continue
            os.kill(process, signal.SIGKILL)  # nobody else awaits it, so the number is still its own

    def _stop(self, now: float) -> None:
        if self._end_by is None:
            self._end_by = now + self._stop_seconds
            self._due.clear()
            self._on_stop()
        for process in self._running:
            os.kill(process, signal.SIGTERM)


def _write(pipe: int) -> None:
    with suppress(BrokenPipeError):  # the parent is gone
        os.write(pipe, b"+")
