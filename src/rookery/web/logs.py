"""Logs: one JSON object a line on stdout or to a log server, or lines for people on a terminal."""

import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import structlog

from rookery.domain.tallies import Metered
from rookery.web.logserver import LogServer, LogServerHandler
from rookery.web.stdoutlog import StdoutHandler

Format = Literal["auto", "json", "pretty"]

_SHARED: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]


def configure(form: Format, level: str, server: LogServer | None = None) -> Sequence[Metered]:
    """Send our own log and that of the libraries to stdout or to a log server; the part that has numbers of it."""
    pretty = form == "pretty" or (form == "auto" and sys.stdout.isatty() and server is None)
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),  # what reads a file, such as fail2ban, would stumble over colours
            exception_formatter=structlog.dev.plain_traceback,  # the other one prints locals
        )
        if pretty
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    finish: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    finish += [] if pretty else [structlog.processors.format_exc_info]
    handler = LogServerHandler(server) if server else StdoutHandler(sys.stdout.fileno())
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_SHARED, processors=[*finish, render]))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return [handler]


def _to_json(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
