"""Errors as RFC 9457 problems with a stable `code`: the one table from what went wrong to statuses."""

import logging
from http import HTTPStatus
from typing import Annotated

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Send
from msgspec import Meta, Struct

from rookery.domain.errors import Failure, Unavailable, is_out_of_memory
from rookery.web.context import AnyRequest, note_code

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS_OF_KIND = {
    "malformed": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "broken_rule": 422,
    "too_many": 429,
    "unavailable": 503,
}

# What the framework itself refuses, in our words; its own texts are not shown.
_FRAMEWORK = {
    400: ("malformed_request", "The request can't be read."),
    404: ("unknown_path", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method."),
    408: ("slow_body", "The body did not arrive in time."),
    413: ("too_large", "A body has at most 64 KiB."),
    421: (
        "unknown_host",
        "This server does not answer to this host name; the setting allowed_hosts lists the names that it answers to.",
    ),
    431: ("head_too_large", "Request line and headers have at most 32 KiB, in 128 headers."),
    415: ("unsupported_media_type", "A body is application/json or application/x-www-form-urlencoded."),
}
_INTERNAL = ("internal_error", "Something went wrong here. The log has it under this request's id.")


class Problem(Struct, frozen=True):
    """An error (RFC 9457). Programs go by `code`, people by `detail`."""

    type: Annotated[str, Meta(examples=["urn:rookery:problem:unknown_user"])]
    title: Annotated[str, Meta(examples=["Not Found"])]
    status: Annotated[int, Meta(examples=[404])]
    detail: Annotated[str, Meta(examples=["There is no such user."])]
    code: Annotated[str, Meta(examples=["unknown_user"])]


class Refusal(Failure):
    """An error that only HTTP knows: a body too large, a media type, an unknown path."""

    def __init__(
        self, status: int, code: str | None = None, message: str | None = None, *, allow: str | None = None
    ) -> None:
        default_code, default_message = _FRAMEWORK.get(status, _INTERNAL)
        super().__init__(code or default_code, message or default_message)
        self.status = status
        self.allow = allow


def status_of(failure: Failure) -> int:
    """The HTTP status of what went wrong."""
    return failure.status if isinstance(failure, Refusal) else STATUS_OF_KIND[failure.kind]


def problem_of(failure: Failure) -> Problem:
    """What went wrong as the body of an answer."""
    status = status_of(failure)
    return Problem(
        type=f"urn:rookery:problem:{failure.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=failure.message,
        code=failure.code,
    )


def headers_of(failure: Failure) -> dict[str, str]:
    """The headers that go with what went wrong."""
    headers = {"Cache-Control": "no-store"}
    if failure.retry_after is not None:
        headers["Retry-After"] = str(failure.retry_after)
    if status_of(failure) == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="rookery"'
    if status_of(failure) == HTTPStatus.REQUEST_TIMEOUT:
        headers["Connection"] = "close"  # the rest of the request, which may come yet, is of no interest
    if isinstance(failure, Refusal) and failure.allow:
        headers["Allow"] = failure.allow
    return headers


def respond(failure: Failure) -> Response[bytes]:
    """The answer of a handler."""
    return Response(
        content=msgspec.json.encode(problem_of(failure)),
        status_code=status_of(failure),
        headers=headers_of(failure),
        media_type=MEDIA_TYPE,
    )


async def send_problem(send: Send, failure: Failure) -> None:
    """The answer of a middleware, before any handler."""
    body = msgspec.json.encode(problem_of(failure))
    headers = {**headers_of(failure), "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": status_of(failure),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def out_of_memory() -> Unavailable:
    """The answer when memory runs out at a request: no mistake of ours, and it may be there in a moment."""
    return Unavailable("out_of_memory", "The server has no memory left for this; try again in a moment.")


def on_failure(request: AnyRequest, failure: Failure) -> Response[bytes]:
    """Litestar's handler for what our own code refuses."""
    note_code(request.scope, failure.code)
    return respond(failure)


def on_framework_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Litestar's handler for what Litestar refuses."""
    if isinstance(error, ValidationException):
        return respond(Refusal(400, "malformed_parameter", _explain(request, error)))
    if error.status_code in _FRAMEWORK:
        allow = (error.headers or {}).get("allow")
        return respond(Refusal(error.status_code, allow=allow))
    return on_crash(request, error)


def on_crash(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Litestar's handler for mistakes of ours. What they say goes to the log and nowhere else."""
    if is_out_of_memory(error):
        return respond(out_of_memory())
    _log.error("unhandled error on %s", request.scope["path"], exc_info=error)
    return respond(Refusal(500))


def _explain(request: AnyRequest, error: ValidationException) -> str:
    """Which parameters were wrong, by the names that the caller knows them by, and what was expected of them."""
    fields = request.route_handler.parsed_fn_signature.parameters
    reasons = []
    for item in error.extra if isinstance(error.extra, list) else []:
        key = str(item.get("key"))
        name = getattr(fields[key].kwarg_definition, "name", None) if key in fields else None
        reasons.append(f"{name or key}: {item.get('message')}")
    return "; ".join(reasons) or "A parameter can't be read."
