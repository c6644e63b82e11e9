"""Several server processes on one listening socket, watched over by the one that started them."""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from rookery.cli.output import complain
from rookery.domain.errors import Failure

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_STOPPED_BY = (signal.SIGTERM, signal.SIGINT)
_WELL_SECONDS = 5.0
"""A worker that lived so long was able to serve."""
_LONGEST_PAUSE = 30.0


class Workers:
    """Runs `serve` in so many processes, and again in a new one for each that ends by itself.

    It forks, so there must be no thread and no event loop yet. `on_stop` is called once, when they are to end.
    """

    def __init__(self, many: int, serve: Callable[[], None], on_stop: Callable[[], None]) -> None:
        self._many = many
        self._serve = serve
        self._on_stop = on_stop
        self._started: dict[int, float] = {}
        """When each process was started, by its id."""
        self._stopping = False
        self._pause = 0.0

    def run(self) -> int:
        """Run them until SIGTERM or SIGINT; the exit status. If none can serve they all end."""
        for number in _STOPPED_BY:
            signal.signal(number, lambda *_: self._stop())
        for _ in range(self._many):
            self._start()
        served = failed = False
        while self._started:
            worker, status = os.wait()
            lived = time.monotonic() - self._started.pop(worker)
            served = served or lived > _WELL_SECONDS
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                failed = failed or code not in (0, *(-number for number in _STOPPED_BY))
            elif not served:
                failed = True
                self._stop()
            else:
                complain(f"worker {worker} ended with status {code}; another takes its place")
                self._wait(0 if lived > _WELL_SECONDS else min(max(2 * self._pause, 1.0), _LONGEST_PAUSE))
                self._start()
        return int(failed)

    def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until told to stop."""
        self._pause = seconds
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.1)

    def _start(self) -> None:
        if self._stopping:
            return
        parent = os.getpid()
        # A signal that comes meanwhile is the child's own when it can be: our handler would stop its siblings there.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPED_BY)
        worker = os.fork()
        if worker:
            self._started[worker] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPED_BY)
            return
        status = 1
        try:
            for number in _STOPPED_BY:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPED_BY)
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() == parent:  # else it ended before we asked
                self._serve()
            status = 0
        except Failure as error:
            complain(f"{error.message} [{error.code}]")
        except BaseException:  # noqa: BLE001 - whatever happens, this process never returns into its parent's doing
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
            os._exit(status)

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._on_stop()
        for worker in list(self._started):
            with suppress(ProcessLookupError):  # it ended in this moment
                os.kill(worker, signal.SIGTERM)
