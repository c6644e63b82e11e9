"""The front page: the top ten."""

from importlib.resources import files

import msgspec
from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Template

from rookery.domain.cursors import DEFAULT_LIMIT
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Tweet
from rookery.web.api.reading import require_reader
from rookery.web.api.shapes import reply
from rookery.web.context import AnyRequest, services_of
from rookery.web.options import Services
from rookery.web.problems import Refusal

TEMPLATE = "front.html"
_CSP = (
    "default-src 'none'; img-src 'self'; style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_STYLE = files("rookery.web").joinpath("static", "rookery.css").read_bytes()
_ICON = files("rookery.web").joinpath("static", "rookery.svg").read_bytes()
_CACHED = {"Cache-Control": "public, max-age=3600"}
_READ_OF_ACCEPT = 1_024
"""Characters of an Accept header that are read; browsers send some two hundred."""
_MOST_MEDIA_RANGES = 32
"""Media ranges of an Accept header that are read; browsers send seven."""


@get("/", include_in_schema=False)
async def front(request: AnyRequest) -> Template | Response[bytes]:
    """The top ten as a page, or as JSON for whoever asks for JSON."""
    require_reader(request)
    services = services_of(request)
    if prefers_json(request.headers.get("accept", "")):
        response = reply(b"[" + b",".join(await services.top.list(DEFAULT_LIMIT)) + b"]")
        response.headers["Vary"] = "Accept"
        return response
    try:
        tweets = [msgspec.json.decode(item, type=Tweet) for item in await services.top.list(DEFAULT_LIMIT)]
    except Unavailable as error:
        if error.code != "ranking_unavailable":
            raise
        tweets = None
    return Template(
        TEMPLATE,
        context={"tweets": tweets, "originals": await _originals(services, tweets or [])},
        headers={"Content-Security-Policy": _CSP, "Cache-Control": "no-store", "Vary": "Accept"},
    )


async def _originals(services: Services, tweets: list[Tweet]) -> dict[str, Tweet | None]:
    """What the retweets among these pass on; None where it is gone."""
    retweets = {TweetId(tweet.id.bytes): TweetId(tweet.retweet.bytes) for tweet in tweets if tweet.retweet}
    found = await services.tweets.originals(retweets)
    shown = {raw: msgspec.json.decode(item, type=Tweet) if item else None for raw, item in found.items()}
    return {str(tweet.id): shown.get(TweetId(tweet.id.bytes)) for tweet in tweets}


def prefers_json(accept: str) -> bool:
    """Whether an Accept header ranks JSON above HTML (RFC 9110); a browser's does not, nor does none or `*/*`.

    Media ranges behind the 32nd, or behind 1,024 characters, are passed over.
    """
    if len(accept) > _READ_OF_ACCEPT:
        accept = accept[: accept.rfind(",", 0, _READ_OF_ACCEPT) + 1]
    weights = {"text/html": 0.0, "application/json": 0.0}
    exact = set()
    for item in accept.lower().split(",", _MOST_MEDIA_RANGES)[:_MOST_MEDIA_RANGES]:
        media, *parameters = (part.strip() for part in item.split(";"))
        weight = next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        for known, before in tuple(weights.items()):
            if media == known:
                weights[known] = weight
                exact.add(known)
            elif known not in exact and media in ("*/*", known.partition("/")[0] + "/*"):
                weights[known] = max(before, weight)
    return weights["application/json"] > weights["text/html"]


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


@get("/static/{name:str}", include_in_schema=False)
async def static(name: FromPath[str]) -> Response[bytes]:
    """The page's own style and icon."""
    match name:
        case "rookery.css":
            return Response(_STYLE, media_type="text/css", headers=_CACHED)
        case "rookery.svg":
            return Response(_ICON, media_type="image/svg+xml", headers=_CACHED)
    raise Refusal(404)
