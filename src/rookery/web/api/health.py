"""Health: whether the process lives, whether it can serve, and how its parts are."""

from litestar import Response, get
from msgspec import Struct

from rookery.domain.errors import Unavailable
from rookery.domain.status import Status
from rookery.web.api.shapes import answers, reply
from rookery.web.context import AnyRequest, services_of


class Live(Struct, frozen=True):
    """The process answers."""

    status: str = "live"


class Ready(Struct, frozen=True):
    """The server can serve."""

    status: str = "ready"


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
    status = await services_of(request).health.look()
    if status.draining:
        raise Unavailable("draining", "The server is about to stop; ask another.")
    if not status.ready:
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
    return reply(await services_of(request).health.look())
