"""Starting threads where there may be no memory for one."""

import faulthandler
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

START_SECONDS = 10.0
"""How long threads may take to begin."""
_STDERR = 2
_starting = threading.RLock()


def start(thread: threading.Thread) -> None:
    """Start a thread, or end the process with status 1 where it does not begin in time.

    Raises:
        RuntimeError: when the system has no thread to give.
    """
    with _ending_if_stuck():
        thread.start()


def started_pool(many: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads all run: later there may be no memory for one, and the pool would wait for it for ever.

    Raises:
        RuntimeError: when the system has not so many threads to give.
    """
    pool = ThreadPoolExecutor(many, thread_name_prefix=name)
    all_run = threading.Barrier(many + 1)
    try:
        with _ending_if_stuck():
            for _ in range(many):
                pool.submit(all_run.wait)
            all_run.wait()
    except BaseException:
        all_run.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return pool


@contextmanager
def _ending_if_stuck() -> Iterator[None]:
    """End the process, with where it stood on stderr, if the block takes too long.

    A thread that finds no memory dies before it says that it has begun, and `Thread.start` waits for that without a
    time limit. What ends it needs no memory then, and none of Python's locks.
    """
    with _starting:  # the watchdog is one for the process
        faulthandler.dump_traceback_later(START_SECONDS, exit=True, file=_STDERR)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
