"""The feed and the top list."""

from litestar import Response, get

from rookery.domain.tweets import Tweet
from rookery.web.api.reading import require_reader
from rookery.web.api.shapes import LIMIT, Cursor, Limit, PathUser, answers, reply, reply_page
from rookery.web.context import AnyRequest, asker_of, services_of


@get(
    "/feed/{user_id:str}",
    operation_id="getFeed",
    summary="The newest tweets of all whom a user follows",
    tags=["feeds"],
    responses=answers(200, list[Tweet], 404, description="Tweets, newest first"),
)
async def home(request: AnyRequest, user_id: PathUser, limit: Limit = LIMIT, cursor: Cursor = None) -> Response[bytes]:
    """Read a feed."""
    require_reader(request)
    services = services_of(request)
    owner = await services.accounts.find_id(user_id)
    page = await services.feeds.home(owner, limit, cursor, asker_of(request.scope))
    return reply_page(request, page, limit)


@get(
    "/top",
    operation_id="getTop",
    summary="The tweets with the greatest count_retweet",
    description="Ties newest first.",
    tags=["feeds"],
    responses=answers(200, list[Tweet], description="Tweets by count_retweet"),
)
async def top(request: AnyRequest, limit: Limit = LIMIT) -> Response[bytes]:
    """Read the top list."""
    require_reader(request)
    return reply(b"[" + b",".join(await services_of(request).top.list(limit)) + b"]")
