"""The ASGI application: routes, and what stands around them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from litestar import HttpMethod, Litestar, Response, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.params import QueryParameter
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig

from rookery.domain.errors import Failure, Malformed
from rookery.ports.clock import Clock
from rookery.ports.tracer import UNTRACED, Tracer
from rookery.web import document
from rookery.web.api import feeds, follows, health, tweets, users
from rookery.web.context import AnyRequest
from rookery.web.counters import Counters
from rookery.web.decoding import MAX_BODY_BYTES, StrictRequest, read_query
from rookery.web.door import Door
from rookery.web.options import Services, WebOptions
from rookery.web.pages import front
from rookery.web.problems import on_crash, on_failure, on_framework_error

_EVERYWHERE = [
    users.register,
    users.show,
    users.remove,
    follows.follow,
    follows.unfollow,
    follows.followees,
    follows.followers,
    tweets.post_own,
    tweets.post_by_name,
    tweets.retweet,
    tweets.by_author,
    tweets.remove,
    tweets.show,
    feeds.home,
    feeds.top,
    health.livez,
    health.readyz,
    health.status,
]
_API_ONLY = [
    users.sign_in,
    users.sign_out,
    users.change_password,
    tweets.chain,
    document.openapi,
    document.swagger,
    document.asset,
]


def create_app(
    services: Services,
    options: WebOptions,
    clock: Clock,
    tracer: Tracer = UNTRACED,
    *,
    counters: Counters | None = None,
) -> Door:
    """The whole web application."""
    return Door(create_routes(services, options, clock), services, options, clock, tracer, counters=counters)


def create_routes(services: Services | None, options: WebOptions, clock: Clock) -> Litestar:
    """The routes alone. Without services they can still be looked at."""
    app = _litestar(State({"services": services, "options": options, "clock": clock}), None)
    app.state.document = _encoded_document()
    if app.template_engine is not None:
        app.template_engine.get_template(front.TEMPLATE)  # compiled by the first request, it would hold all others up
    return app


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of the routes.

    It is made by an application of its own: one that has a document also serves pages that load from elsewhere.
    """
    return document.document_of(_litestar(State(), document.openapi_config()))


@cache
def _encoded_document() -> bytes:
    """Made once in a process: it takes twice as long as all else of an application, and is the same for each."""
    return document.encode(openapi_document())


def _litestar(state: State, documented: OpenAPIConfig | None) -> Litestar:
    in_api = [*_EVERYWHERE, *_API_ONLY]
    at_root = [*_EVERYWHERE, front.front, front.static]
    api = Router("/api/v1", route_handlers=[*_options(in_api), *in_api])
    aliases = Router("/", route_handlers=[*_options(at_root), *at_root], include_in_schema=False)
    return Litestar(
        route_handlers=[api, aliases],
        request_class=StrictRequest,
        request_max_body_size=MAX_BODY_BYTES,
        before_request=_check,
        exception_handlers={Failure: on_failure, HTTPException: on_framework_error, Exception: on_crash},
        openapi_config=documented,
        state=state,
        template_config=TemplateConfig(directory=Path(__file__).with_name("templates"), engine=JinjaTemplateEngine),
        debug=False,
        logging_config=None,
    )


def _options(handlers: Sequence[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """An answer to OPTIONS for each path. The framework's own names only the methods of the path's first handler."""
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            methods.setdefault(path, {"OPTIONS"}).update(handler.http_methods)
    return [_tell(path, ", ".join(sorted(allowed))) for path, allowed in methods.items()]


def _tell(path: str, allow: str) -> HTTPRouteHandler:
    def tell() -> Response[None]:
        return Response(None, status_code=204, headers={"Allow": allow})

    handler = HTTPRouteHandler(path, http_method=[HttpMethod.OPTIONS], include_in_schema=False, sync_to_thread=False)
    return handler(tell)


async def _check(request: AnyRequest) -> None:
    """Before each handler: refuse parameters that it does not know, and read the body: `web.connections` waited for it.

    Raises:
        Malformed: `missing_parameter`, `missing_field`, and as `read_query`.
        Refusal: 413.
    """
    scope: Any = request.scope
    if scope["method"] == "OPTIONS":
        return
    known, required = _parameters_of(request)
    if scope["query_string"] or required:
        read_query(scope["query_string"], known, required)
    if scope["method"] == "GET":
        return
    body = await request.body()
    declared = request.route_handler.parsed_data_field
    if not body and declared is not None and not declared.is_optional:
        raise Malformed("missing_field", "The body is missing.")


def _parameters_of(request: AnyRequest) -> tuple[frozenset[str], frozenset[str]]:
    """The query parameters that a handler knows, and those of them that it needs."""
    handler: Any = request.route_handler
    found: tuple[frozenset[str], frozenset[str]] | None = handler.opt.get("query")
    if found is None:
        fields = [
            (field.kwarg_definition.name or field.name, field.is_required)
            for field in handler.parsed_fn_signature.parameters.values()
            if isinstance(field.kwarg_definition, QueryParameter)
        ]
        found = frozenset(name for name, _ in fields), frozenset(name for name, needed in fields if needed)
        handler.opt["query"] = found
    return found
