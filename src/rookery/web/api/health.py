"""Health: whether the process lives, whether it can serve, and how its parts are."""

from litestar import Response, get
from msgspec import Struct

from rookery import __version__
from rookery.domain.errors import Unavailable
from rookery.web.api.shapes import answers, reply
from rookery.web.context import AnyRequest, services_of


class Live(Struct, frozen=True):
    """The process answers."""

    status: str = "live"


class Ready(Struct, frozen=True):
    """The server can serve."""

    status: str = "ready"


class Status(Struct, frozen=True):
    """The state of the server's parts: `ok`, or the code of what is wrong."""

    version: str
    ready: bool
    store: str
    ranking: str
    uptime_seconds: int
    fanout_backlog: int


@get(
    "/livez",
    operation_id="getLive",
    summary="Does the process live?",
    tags=["health"],
    responses=answers(200, Live, description="It lives"),
)
async def livez(request: AnyRequest) -> Response[bytes]:  # noqa: ARG001 - handlers have one form
    """Answer."""
    return reply(Live())


@get(
    "/readyz",
    operation_id="getReady",
    summary="Can the server serve?",
    tags=["health"],
    responses=answers(200, Ready, description="It can"),
)
async def readyz(request: AnyRequest) -> Response[bytes]:
    """Look at what is needed to serve."""
    report = await services_of(request).health.look()
    if not report.ready:
        raise Unavailable("not_ready", "The server can't serve now; /status says which part is missing.")
    return reply(Ready())


@get(
    "/status",
    operation_id="getStatus",
    summary="The state of the server's parts",
    tags=["health"],
    responses=answers(200, Status, description="How it is"),
)
async def status(request: AnyRequest) -> Response[bytes]:
    """Look at all parts."""
    report = await services_of(request).health.look()
    return reply(
        Status(
            version=__version__,
            ready=report.ready,
            store=report.store,
            ranking=report.ranking,
            uptime_seconds=report.uptime_seconds,
            fanout_backlog=report.fanout_backlog,
        )
    )
