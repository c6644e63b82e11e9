"""The OpenAPI document, made from the handlers, and Swagger UI to read it with. Everything is served from here."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme, Server
from litestar.params import FromPath

from rookery import __version__
from rookery.web.api.shapes import BEARER
from rookery.web.context import AnyRequest
from rookery.web.problems import MEDIA_TYPE, Refusal

_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"

# The few files of Swagger UI that its page needs, from the pinned package swagger-ui-py.
_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Rookery API</title>
<link rel="icon" href="/api/v1/assets/favicon-32x32.png">
<link rel="stylesheet" href="/api/v1/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/api/v1/assets/swagger-ui-bundle.js"></script>
<script src="/api/v1/assets/start.js"></script>
</body>
</html>
"""
# No validator: the stock page would send the document's address to a foreign host.
_START = """SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null
});
"""
_CSP = (
    "default-src 'none'; connect-src 'self'; font-src 'self' data:; img-src 'self' data:; script-src 'self';"
    " style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Reading takes a token where the setting `reads` says so, and registering by an administrator where it is closed.
_WITH_OR_WITHOUT_TOKEN = {
    "registerUser",
    "getUser",
    "listFollowees",
    "listFollowers",
    "listTweets",
    "getTweet",
    "getChain",
    "getFeed",
    "getTop",
}
_CACHED = {"Cache-Control": "public, max-age=3600"}


def openapi_config() -> OpenAPIConfig:
    """How the framework makes the document. It serves none itself: its router answers unknown paths in HTML."""
    return OpenAPIConfig(
        title="Rookery",
        version=__version__,
        summary="A self-hosted Twitter server",
        description=(
            "Lists are bare arrays, newest first; where there is more, the next page is in the `Link` header."
            " Errors are RFC 9457 problems with a stable `code`."
        ),
        servers=[Server(url="/")],
        components=Components(
            security_schemes={BEARER: SecurityScheme(type="http", scheme="bearer", description="From POST /user.")}
        ),
    )


def document_of(app: Litestar) -> dict[str, Any]:
    """The OpenAPI 3.1 document of an application, with what the framework can't say of it."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    for path in document["paths"].values():
        for operation in path.values():
            if operation["operationId"] in _WITH_OR_WITHOUT_TOKEN:
                operation["security"] = [{}, {BEARER: []}]
            if "requestBody" in operation:
                _describe_body(document, operation["requestBody"])
            for status, answer in operation["responses"].items():
                _describe_headers(operation, status, answer)
    return document


def _describe_body(document: dict[str, Any], body: dict[str, Any]) -> None:
    """One decoder reads JSON and forms and refuses unknown fields; a body that may be null may be missing."""
    schema = body["content"][_JSON]["schema"]
    choices = [choice for choice in schema.get("oneOf", [schema]) if choice.get("type") != "null"]
    body["required"] = "oneOf" not in schema
    for choice in choices:
        name = choice["$ref"].rpartition("/")[2]
        document["components"]["schemas"][name]["additionalProperties"] = False
    # What the types can't say: exactly one of the two.
    document["components"]["schemas"].get("PostOwnTweet", {})["oneOf"] = [
        {"required": ["tweet"]},
        {"required": ["body"]},
    ]
    body["content"] = {media: {"schema": choices[0]} for media in (_JSON, _FORM)}


def _describe_headers(operation: dict[str, Any], status: str, answer: dict[str, Any]) -> None:
    # What never became a request is not in the log.
    names = {"X-Request-Id": "Names this request in the log, if it got so far."} if status != "408" else {}
    parameters = {parameter["name"] for parameter in operation.get("parameters", ())}
    if status == "200" and "cursor" in parameters:
        names["Link"] = 'The next page, `<…>; rel="next"` (RFC 8288), where there is one.'
    if status in ("429", "503"):
        names["Retry-After"] = "Seconds after which to try again."
    if status == "401":
        names["WWW-Authenticate"] = "How to authenticate."
    answer.setdefault("headers", {}).update(
        {name: {"schema": {"type": "string"}, "description": text} for name, text in names.items()}
    )
    if int(status) >= 400:
        answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


@get("/openapi.json", include_in_schema=False)
async def openapi(request: AnyRequest) -> Response[bytes]:
    """The document."""
    return Response(request.app.state.document, media_type=_JSON, headers={"Cache-Control": "no-cache"})


@get("/", include_in_schema=False)
async def swagger(request: AnyRequest) -> Response[str]:  # noqa: ARG001 - handlers have one form
    """The page that shows the document."""
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _CSP})


@get("/assets/{name:str}", include_in_schema=False)
async def asset(name: FromPath[str]) -> Response[bytes]:
    """A file of that page."""
    if name == "start.js":
        return Response(_START.encode(), media_type="text/javascript", headers=_CACHED)
    if name not in _ASSETS:
        raise Refusal(404)
    return Response(_read(name), media_type=_ASSETS[name], headers=_CACHED)


@cache
def _read(name: str) -> bytes:
    return files("swagger_ui").joinpath("static", name).read_bytes()


def encode(document: dict[str, Any]) -> bytes:
    """The document as it is served and kept in docs/: indented and in a fixed order."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2)
