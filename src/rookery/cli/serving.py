"""`rookery serve` and `rookery recount`."""

import asyncio
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from cyclopts import App

from rookery import __version__
from rookery.cli import systemd
from rookery.cli.flags import Flags, read
from rookery.cli.output import complain, progress, say, tell
from rookery.cli.workers import Workers
from rookery.config import IN_PROCESS_CACHES, ConfigError, Settings
from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Metered
from rookery.web import logs
from rookery.web.connections import BoundedProtocol
from rookery.web.logserver import LogServer
from rookery.web.metrics import shown_at
from rookery.wiring import Sharing, open_rookery, open_server

_STOP_SECONDS = 10
"""How long requests under way may take when we stop."""
_CLOSE_SECONDS = 20
"""How long it may take after that to fan out what was posted and to let go of all servers."""
_BACKLOG = 2_048


def add_to(app: App) -> None:
    """Add these commands."""
    app.command(serve)
    app.command(recount)


def serve(*, workers: int = 1, flags: Flags = None) -> None:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM).

    Parameters
    ----------
    workers
        So many processes share the work, one for each core at most. They need cache = "memcached" in common.
    """
    settings = read(flags).settings
    if workers < 1 or (workers > 1 and settings.cache in IN_PROCESS_CACHES):
        raise ConfigError(
            [f"--workers {workers}: is 1 or more, and more than 1 need a cache in common (cache = memcached)"]
        )
    shipping = logs.configure(settings.log_format, settings.log_level, _log_server(settings))
    _allow_many_files()
    with _listen(settings) as listener:

        def greet() -> None:
            _greet(settings, listener)

        def run(ready: Callable[[], None], number: int = 0) -> None:
            with asyncio.Runner(loop_factory=_loop) as runner:
                runner.run(_serve(settings, listener, ready, number, shipping))

        if workers == 1:
            run(greet)
            return
        greet()

        def stop() -> None:
            systemd.tell("STOPPING=1")
            listener.close()  # whoever comes when they end finds nobody listening, and goes elsewhere

        with systemd.spoken_for():
            if status := Workers(workers, run, stop).run():
                sys.exit(status)


def recount(*, flags: Flags = None) -> None:
    """Make every count_retweet right by the tweets themselves, also while the server runs, and report drift."""
    settings = read(flags).settings

    async def run() -> None:
        async with open_rookery(settings, Sharing.ANYONE) as rookery:
            with progress("Recounting", None) as advance:
                found = await rookery.services.top.recount(advance)
            say(f"{found.tweets:,} tweets, {found.drifted:,} were wrong and are right now.")

    asyncio.run(run())


def _log_server(settings: Settings) -> LogServer | None:
    authority = Path(settings.log_tls_authority) if settings.log_tls_authority else None
    return LogServer(settings.log_server, authority) if settings.log_server else None


def _allow_many_files() -> None:
    """Each connection is a file. Systems begin with 1,024 for the sake of programs that don't ask for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    """uvicorn, stopped by our own signal handlers.

    Its own close the listener first, when `/readyz` could tell nobody any more, and raise the signal again before we
    have closed the store. `drain` makes us unready; we answer for so many `seconds` more.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], seconds: int) -> None:
        super().__init__(config)
        self._drain = drain
        self._seconds = seconds
        self._draining = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.handle_exit, signal.SIGINT, None)
        loop.add_signal_handler(signal.SIGTERM, self._begin_to_stop)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            systemd.tell("STOPPING=1")
            self._drain()
            last = threading.Timer(_STOP_SECONDS + _CLOSE_SECONDS, _give_up)
            last.daemon = True
            last.start()
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


def _give_up() -> None:
    """End without closing. Nothing acknowledged is lost, and whoever restarts us need not wait for ever."""
    complain(f"still not closed after {_STOP_SECONDS + _CLOSE_SECONDS} seconds; ending as it is")
    os._exit(1)


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(
    settings: Settings,
    listener: socket.socket,
    ready: Callable[[], None],
    number: int,
    shipping: Sequence[Metered],
) -> None:
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_server(settings))
        if settings.metrics_port:
            parts = [*opened.parts, *shipping]
            stack.enter_context(shown_at(settings.metrics_host, settings.metrics_port + number, parts))
        config = uvicorn.Config(
            cast("Any", opened.app),  # the same protocol, typed by another library
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        server = _Server(config, opened.rookery.services.health.drain, settings.drain_seconds)
        alive = asyncio.create_task(systemd.tell_alive(), name="watchdog")
        ready()
        systemd.tell("READY=1")
        try:
            await server.serve(sockets=[listener])
        finally:
            alive.cancel()


def _listen(settings: Settings) -> socket.socket:
    """The listening socket: systemd's, where it keeps one, and else our own.

    Raises:
        Unavailable: `address_unavailable`.
        ConfigError: when others would reach a server without tokens by it.
    """
    if systemd.keeps_socket():
        kept = systemd.kept_socket()
        _require_closed(settings, kept)
        kept.setblocking(False)
        return kept
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or "it can't be used").lower()
        raise Unavailable(
            "address_unavailable", f"Can't listen on {settings.host}:{settings.port}: {reason}."
        ) from error
    listener.setblocking(False)
    return listener


def _require_closed(settings: Settings, listener: socket.socket) -> None:
    host = listener.getsockname()[0]
    if settings.auth == "open" and not settings.open_on_network and not ip_address(host).is_loopback:
        raise ConfigError(
            [
                f"auth: open lets anyone act as anyone, and others can reach the socket of systemd, {host}; "
                "have it listen on 127.0.0.1, or set open_on_network to true"
            ]
        )


def _greet(settings: Settings, listener: socket.socket) -> None:
    address, port, *_ = listener.getsockname()
    name = address if systemd.keeps_socket() else settings.host
    host = f"[{name}]" if ":" in name else name
    url = f"http://{host}:{port}"
    tell(f"Rookery {__version__} listens on {url} with its data in {settings.data}")
    if settings.auth == "open":
        tell(f"Try first:  curl -d user_name=ada -d 'body=Hello, world' {url}/tweet")
    else:
        tell(f"Try first:  curl -d name=ada {url}/user")
    tell(f"Then open   {url}/ and {url}/api/v1/")
