"""`rookery serve` and `rookery recount`."""

import asyncio
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import uvicorn
from cyclopts import App

from rookery import __version__
from rookery.cli.flags import Flags, read
from rookery.cli.output import progress, say, tell
from rookery.cli.workers import Workers
from rookery.config import IN_PROCESS_CACHES, ConfigError, Settings
from rookery.domain.errors import Unavailable
from rookery.web import logs
from rookery.web.connections import BoundedProtocol
from rookery.wiring import Sharing, open_rookery, open_server

_STOP_SECONDS = 10
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
    logs.configure(settings.log_format, settings.log_level)
    _allow_many_files()
    with _listen(settings) as listener:

        def greet() -> None:
            _greet(settings, listener.getsockname()[1])

        def run(ready: Callable[[], None]) -> None:
            with asyncio.Runner(loop_factory=_loop) as runner:
                runner.run(_serve(settings, listener, ready))

        if workers == 1:
            run(greet)
            return
        greet()
        # Whoever comes when they end finds nobody listening, and goes elsewhere.
        if status := Workers(workers, run, listener.close).run():
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


def _allow_many_files() -> None:
    """Each connection is a file. Systems begin with 1,024 for the sake of programs that don't ask for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Server(uvicorn.Server):
    """uvicorn, stopped by our own signal handler: its own raises the signal again before we have closed the store."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    async with open_server(settings) as app:
        config = uvicorn.Config(
            cast("Any", app),  # the same protocol, typed by another library
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
        ready()
        await _Server(config).serve(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    """The listening socket.

    Raises:
        Unavailable: `address_unavailable`.
    """
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


def _greet(settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}"
    tell(f"Rookery {__version__} listens on {url} with its data in {settings.data}")
    if settings.auth == "open":
        tell(f"Try first:  curl -d user_name=ada -d 'body=Hello, world' {url}/tweet")
    else:
        tell(f"Try first:  curl -d name=ada {url}/user")
    tell(f"Then open   {url}/ and {url}/api/v1/")
