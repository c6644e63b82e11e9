"""A client that has gone while it is answered: what reads for it ends, and what writes goes on."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def is_safe(cycle: RequestResponseCycle) -> bool:
    """Whether a request changes nothing, so that it may be given up. A write is never: it may be done already."""
    return cycle.scope["method"] in _SAFE


def ending_with_client(cycle: RequestResponseCycle, app: Any) -> Any:
    """The application for one request, which ends without an error when it is cancelled as its client has gone."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if not cycle.disconnected:
                raise

    return run
