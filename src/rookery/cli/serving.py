"""`rookery serve` and `rookery recount`."""

import asyncio
import gc
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from cyclopts import App

from rookery import __version__
from rookery.cli import systemd
from rookery.cli.flags import Flags, read
from rookery.cli.output import progress, say, tell
from rookery.cli.workers import Workers
from rookery.config import IN_PROCESS_CACHES, ConfigError, Settings
from rookery.domain.errors import Unavailable
from rookery.web import logs
from rookery.web.counters import Counters
from rookery.web.logserver import LogServer
from rookery.wiring import Sharing, open_rookery, unfinished_beside, web_options

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
    import uvloop

    from rookery.cli.server import STOP_SECONDS, run_server  # longer to import than all that other commands need

    settings = read(flags).settings
    if workers < 1 or (workers > 1 and settings.cache in IN_PROCESS_CACHES):
        raise ConfigError(
            [f"--workers {workers}: is 1 or more, and more than 1 need a cache in common (cache = memcached)"]
        )
    for left in unfinished_beside(settings):
        tell(f"rookery: a restore of this store did not end, and has changed nothing: run it again, or remove {left}")
    shipping = logs.configure(settings.log_format, settings.log_level, _log_server(settings))
    _allow_many_files()
    with _listen(settings) as listener:
        counters = Counters(workers)  # in memory that workers inherit by being forked
        has_begun = False

        def pulse() -> None:
            nonlocal has_begun
            if has_begun:
                systemd.tell_alive()
                return
            has_begun = True
            _greet(settings, listener)
            systemd.tell("READY=1")

        def run(pulse: Callable[[], None], number: int = 0) -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run_server(settings, listener, pulse, number, shipping, counters=counters))

        if workers == 1:
            run(pulse)
            return
        gc.freeze()  # looking through what workers share would copy it

        def stop() -> None:
            systemd.tell("STOPPING=1")
            listener.close()  # whoever comes when they end finds nobody listening, and goes elsewhere

        systemd.speak_for_workers()
        if status := Workers(workers, run, pulse, stop, settings.drain_seconds + STOP_SECONDS + 5).run():
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
    from rookery.web.origins import describe_hosts  # long to import, as `serve` says

    address, port, *_ = listener.getsockname()
    name = address if systemd.keeps_socket() else settings.host
    host = f"[{name}]" if ":" in name else name
    url = f"http://{host}:{port}"
    tell(f"Rookery {__version__} listens on {url} with its data in {settings.data}")
    options = web_options(settings)
    by_proxies = bool(options.trusted_proxies) and not options.open_mode
    tell(describe_hosts(options.allowed_hosts, by_proxies=by_proxies))
    if settings.auth == "open":
        tell(f"Try first:  curl -d user_name=ada -d 'body=Hello, world' {url}/tweet")
    else:
        tell(f"Try first:  curl -d name=ada {url}/user")
    tell(f"Then open   {url}/ and {url}/api/v1/")
