"""A server that runs: one process of `rookery serve`, from its listening socket to its end."""

import asyncio
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn

import rookery.web.app  # noqa: F401 - by `wiring` too, but workers shall be forked from who has it
from rookery.cli import systemd
from rookery.cli.output import complain
from rookery.cli.workers import PULSE_SECONDS
from rookery.config import Settings
from rookery.domain.tallies import Metered
from rookery.domain.threads import start, started_pool
from rookery.ports.jobs import Job
from rookery.web.connections import Connections
from rookery.web.counters import Counters
from rookery.web.event_loop import EventLoopWatch
from rookery.web.metrics import shown_at
from rookery.wiring import open_server

_THREADS = 4
"""For work that would hold up the event loop: long reads of a file."""
_ANSWER_SECONDS = 10
"""How long requests under way may take when we stop."""
_CLOSE_SECONDS = 20
"""How long it may take after that to fan out what was posted and to let go of all servers."""
STOP_SECONDS = _ANSWER_SECONDS + _CLOSE_SECONDS
"""How long a stop takes at most, after `drain_seconds`."""


async def run_server(
    settings: Settings,
    listener: socket.socket,
    pulse: Callable[[], None],
    number: int,
    shipping: Sequence[Metered],
    *,
    counters: Counters,
) -> None:
    """Answer requests that come to a socket until a signal says otherwise.

    `pulse` is called when that begins, and again and again as long as the event loop turns. `number` is this process's
    among several workers; `shipping` has numbers of what sends the log away. All workers count limits on `counters`.
    """
    async with AsyncExitStack() as stack:
        stack.callback(_end_threads, asyncio.get_running_loop(), _begin_threads())
        opened = await stack.enter_async_context(open_server(settings, counters.seen_by(number)))
        connections = Connections()
        owned: dict[str, Job] = {}
        if settings.metrics_port:
            watch = EventLoopWatch()
            owned["event loop watch"] = watch.run
            parts = [*opened.parts, connections, watch, *shipping]
            stack.enter_context(shown_at(settings.metrics_host, settings.metrics_port + number, parts))
        config = uvicorn.Config(
            cast("Any", opened.app),  # the same protocol, typed by another library
            http=cast("Any", connections),  # it calls it; a class is what it says it wants
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_ANSWER_SECONDS,
        )

        begun = asyncio.Event()

        def begin() -> None:
            _keep_what_is_there()
            pulse()
            begun.set()

        server = _Server(config, begin, opened.rookery.services.health.drain, settings.drain_seconds)
        owned["pulse"] = partial(_beat, pulse, begun)
        owning = asyncio.create_task(opened.rookery.jobs.run(owned), name="jobs of the process")
        try:
            await server.serve(sockets=[listener])
        finally:
            owning.cancel()
            await asyncio.gather(owning, return_exceptions=True)


def _begin_threads() -> ThreadPoolExecutor:
    pool = started_pool(_THREADS, "asyncio")
    asyncio.get_running_loop().set_default_executor(pool)
    return pool


def _end_threads(loop: asyncio.AbstractEventLoop, pool: ThreadPoolExecutor) -> None:
    """End them here: the loop's own end starts one more thread for that, for which there may be no memory."""
    loop.set_default_executor(cast("Any", None))
    pool.shutdown(wait=True)


async def _beat(pulse: Callable[[], None], begun: asyncio.Event) -> None:
    await begun.wait()
    pause = min(PULSE_SECONDS, systemd.pause() or PULSE_SECONDS)
    while True:
        await asyncio.sleep(pause)
        pulse()


def _keep_what_is_there() -> None:
    """Have the garbage collector, which holds all up, pass over what a server has to its end."""
    gc.collect()
    gc.freeze()


class _Server(uvicorn.Server):
    """uvicorn, stopped by our own signal handlers.

    Its own close the listener first, when `/readyz` could tell nobody any more, and raise the signal again before we
    have closed the store. `drain` makes us unready; we answer for so many `seconds` more. `begin` is called when
    requests are answered and signals are heard: whoever is told before, and stops us at once, would see us die of it.
    """

    def __init__(
        self, config: uvicorn.Config, begin: Callable[[], None], drain: Callable[[], None], seconds: int
    ) -> None:
        super().__init__(config)
        self._begin = begin
        self._drain = drain
        self._seconds = seconds
        self._draining = False
        self._is_stopping = threading.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # Started now: when it is needed there may be no memory for a thread.
        start(threading.Thread(target=_give_up_after, args=(self._is_stopping,), name="last resort", daemon=True))
        loop.add_signal_handler(signal.SIGINT, self.handle_exit, signal.SIGINT, None)
        loop.add_signal_handler(signal.SIGTERM, self._begin_to_stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit and not self._draining:
            self._begin()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            systemd.tell("STOPPING=1")
            self._drain()
            self._is_stopping.set()
        super().handle_exit(sig, frame)

    def _begin_to_stop(self) -> None:
        """Be unready first, and stop when others had the time to see it; told again, at once."""
        if self._draining or not self._seconds:
            self.handle_exit(signal.SIGTERM, None)
            return
        self._draining = True
        systemd.tell("STOPPING=1")
        self._drain()
        asyncio.get_running_loop().call_later(self._seconds, self.handle_exit, signal.SIGTERM, None)


def _give_up_after(is_stopping: threading.Event) -> None:
    """End without closing, long after a stop began. Nothing acknowledged is lost, and a restart need not wait."""
    is_stopping.wait()
    time.sleep(STOP_SECONDS)
    complain(f"still not closed after {STOP_SECONDS} seconds; ending as it is")
    os._exit(1)
