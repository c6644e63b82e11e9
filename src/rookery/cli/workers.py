"""Several server processes on one listening socket, watched over by the one that started them."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from rookery.cli.output import complain
from rookery.domain.errors import Failure

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_FAILS_AT_ONCE_SECONDS = 5.0
"""A worker that ends so soon after its start would end so again."""


class Workers:
    """Runs `serve` in so many processes, and again in a new one for each that ends by itself.

    It forks, so there must be no thread and no event loop yet.
    """

    def __init__(self, many: int, serve: Callable[[], None]) -> None:
        self._many = many
        self._serve = serve
        self._started: dict[int, float] = {}
        """When each process was started, by its id."""
        self._stopping = False

    def run(self) -> int:
        """Run them until SIGTERM or SIGINT; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        for _ in range(self._many):
            self._start()
        failed = False
        while self._started:
            worker, status = os.wait()
            began = self._started.pop(worker, None)
            if began is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            if self._stopping:
                failed = failed or code not in (0, -signal.SIGTERM)  # it may not have got as far as to listen to it
            elif time.monotonic() - began < _FAILS_AT_ONCE_SECONDS:
                failed = True
                self._stop()
            else:
                complain(f"worker {worker} ended with status {code}; another takes its place")
                self._start()
        return int(failed)

    def _start(self) -> None:
        parent = os.getpid()
        worker = os.fork()
        if worker:
            self._started[worker] = time.monotonic()
            if self._stopping:  # told to stop in this moment
                os.kill(worker, signal.SIGTERM)
            return
        # Whatever happens, this process never returns into what its parent was doing.
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
            if os.getppid() == parent:  # else it ended before we asked
                self._serve()
            status = 0
        except Failure as error:
            complain(f"{error.message} [{error.code}]")
        except KeyboardInterrupt:
            status = 130
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._started:
            os.kill(worker, signal.SIGTERM)
