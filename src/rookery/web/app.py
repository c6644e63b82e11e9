"""The ASGI application: routes, and what stands around them."""

import asyncio
from pathlib import Path
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.params import QueryParameter
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig
from litestar.types import ASGIApp

from rookery.domain.errors import Failure
from rookery.ports.clock import Clock
from rookery.web import document
from rookery.web.api import feeds, follows, health, tweets, users
from rookery.web.context import AnyRequest, Services, WebOptions
from rookery.web.decoding import MAX_BODY_BYTES, StrictRequest, read_query
from rookery.web.door import Door
from rookery.web.pages import front
from rookery.web.problems import Refusal, on_crash, on_failure, on_framework_error

_BODY_SECONDS = 20.0
"""How long a body may take to arrive; 64 KiB take less on any line that is alive."""

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
_API_ONLY = [users.sign_in, users.sign_out, tweets.chain, document.openapi, document.swagger, document.asset]


def create_app(services: Services, options: WebOptions, clock: Clock) -> ASGIApp:
    """The whole web application."""
    return Door(create_routes(services, options, clock), services.accounts, options, clock)


def create_routes(services: Services | None, options: WebOptions, clock: Clock) -> Litestar:
    """The routes alone. Without services they can still be documented."""
    api = Router("/api/v1", route_handlers=[*_EVERYWHERE, *_API_ONLY])
    aliases = Router("/", route_handlers=[*_EVERYWHERE, front.front, front.static], include_in_schema=False)
    app = Litestar(
        route_handlers=[api, aliases],
        request_class=StrictRequest,
        request_max_body_size=MAX_BODY_BYTES,
        before_request=_check_query,
        exception_handlers={Failure: on_failure, HTTPException: on_framework_error, Exception: on_crash},
        openapi_config=document.openapi_config(),
        state=State({"services": services, "options": options, "clock": clock}),
        template_config=TemplateConfig(directory=Path(__file__).with_name("templates"), engine=JinjaTemplateEngine),
        debug=False,
        logging_config=None,
    )
    app.state.document = document.encode(document.document_of(app))
    return app


async def _check_query(request: AnyRequest) -> None:
    """Before each handler: refuse parameters that it does not know, and read the body within its time."""
    scope: Any = request.scope
    if scope["query_string"]:
        read_query(scope["query_string"], _known_parameters(request))
    if scope["method"] not in ("GET", "OPTIONS"):
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                await request.body()
        except TimeoutError:
            raise Refusal(408) from None


def _known_parameters(request: AnyRequest) -> frozenset[str]:
    handler: Any = request.route_handler
    known: frozenset[str] | None = handler.opt.get("query")
    if known is None:
        fields = handler.parsed_fn_signature.parameters.values()
        known = frozenset(
            field.kwarg_definition.name or field.name
            for field in fields
            if isinstance(field.kwarg_definition, QueryParameter)
        )
        handler.opt["query"] = known
    return known
