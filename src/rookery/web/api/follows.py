"""Who follows whom."""

from litestar import Response, delete, get, post
from litestar.params import JSONBody

from rookery.domain.users import User
from rookery.web.api.reading import either, once_of, require_reader
from rookery.web.api.shapes import (
    BEARER,
    LIMIT,
    Cursor,
    Followee,
    IdempotencyKey,
    Limit,
    PathUser,
    QueryUser,
    answers,
    no_content,
    reply_page,
)
from rookery.web.context import AnyRequest, caller_of, services_of


@post(
    "/follow/{follower_id:str}",
    operation_id="follow",
    summary="Follow a user",
    description="`followee_id` in the body or query. Doing it twice changes nothing.",
    tags=["follows"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None, 404, 409, body=True),
)
async def follow(
    request: AnyRequest,
    follower_id: PathUser,
    data: JSONBody[Followee | None] = None,
    followee_id: QueryUser = None,
    idempotency_key: IdempotencyKey = None,
) -> Response[None]:
    """Follow."""
    caller, services = caller_of(request.scope), services_of(request)
    caller.require_token()
    whom = either("followee_id", followee_id, data)
    once = once_of(request, idempotency_key, [whom])
    if once is None or not await services.follows.is_done(once, follower_id):
        follower, followee = await services.accounts.find(follower_id), await services.accounts.find(whom)
        await services.follows.follow(caller, follower, followee, once)
    return no_content()


@delete(
    "/follow/{follower_id:str}",
    operation_id="unfollow",
    summary="Follow a user no more",
    description="`followee_id` in the body or query. Doing it twice changes nothing.",
    tags=["follows"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None, 404, body=True),
)
async def unfollow(
    request: AnyRequest,
    follower_id: PathUser,
    data: JSONBody[Followee | None] = None,
    followee_id: QueryUser = None,
) -> Response[None]:
    """Unfollow."""
    caller, services = caller_of(request.scope), services_of(request)
    caller.require_token()
    whom = either("followee_id", followee_id, data)
    follower, followee = await services.accounts.find(follower_id), await services.accounts.find(whom)
    await services.follows.unfollow(caller, follower, followee)
    return no_content()


@get(
    "/follow/{follower_id:str}",
    operation_id="listFollowees",
    summary="Whom a user follows",
    description="The newest members first.",
    tags=["follows"],
    responses=answers(200, list[User], 404, description="Users"),
)
async def followees(
    request: AnyRequest, follower_id: PathUser, limit: Limit = LIMIT, cursor: Cursor = None
) -> Response[bytes]:
    """List followees."""
    require_reader(request)
    services = services_of(request)
    page = await services.follows.followees(await services.accounts.find(follower_id), limit, cursor)
    return reply_page(request, page, limit)


@get(
    "/followers/{user_id:str}",
    operation_id="listFollowers",
    summary="Who follows a user",
    description="The newest members first.",
    tags=["follows"],
    responses=answers(200, list[User], 404, description="Users"),
)
async def followers(
    request: AnyRequest, user_id: PathUser, limit: Limit = LIMIT, cursor: Cursor = None
) -> Response[bytes]:
    """List followers."""
    require_reader(request)
    services = services_of(request)
    page = await services.follows.followers(await services.accounts.find(user_id), limit, cursor)
    return reply_page(request, page, limit)
