"""Tweets, retweets and chains."""

from litestar import Response, delete, get, post
from litestar.params import JSONBody
from msgspec import UNSET

from rookery.domain.errors import Malformed
from rookery.domain.tweets import ChainedTweet, Tweet
from rookery.services.tweets import Draft
from rookery.web.api.reading import either, once_of, require_reader, tweet_id
from rookery.web.api.shapes import (
    BEARER,
    LIMIT,
    Cursor,
    DeleteTweet,
    IdempotencyKey,
    Limit,
    MaybeQueryTweet,
    PathUser,
    PostOwnTweet,
    PostRetweet,
    PostTweet,
    QueryTweet,
    answers,
    no_content,
    reply,
    reply_page,
)
from rookery.web.context import AnyRequest, caller_of, services_of


@post(
    "/tweet/{user_id:str}",
    operation_id="postOwnTweet",
    summary="Post a tweet as the user in the path",
    tags=["tweets"],
    security=[{BEARER: []}],
    responses=answers(201, Tweet, 404, body=True, description="Posted"),
)
async def post_own(
    request: AnyRequest, user_id: PathUser, data: JSONBody[PostOwnTweet], idempotency_key: IdempotencyKey = None
) -> Response[bytes]:
    """Post a tweet."""
    caller, services = caller_of(request.scope), services_of(request)
    caller.require_token()
    texts = [text for text in (data.tweet, data.body) if text is not UNSET]
    if len(texts) != 1:
        raise Malformed("missing_field", "Give the text in tweet or in body, one of the two.")
    draft = Draft(data.title, texts[0])
    author = await services.accounts.find(user_id)
    return reply(await services.tweets.post(caller, author, draft, once_of(request, idempotency_key, data)), 201)


@post(
    "/tweet",
    operation_id="postTweet",
    summary="Post a tweet by name",
    description="In open mode a user who does not exist is made.",
    tags=["tweets"],
    security=[{BEARER: []}],
    responses=answers(201, Tweet, 404, body=True, description="Posted"),
)
async def post_by_name(
    request: AnyRequest, data: JSONBody[PostTweet], idempotency_key: IdempotencyKey = None
) -> Response[bytes]:
    """Post a tweet by name."""
    draft = Draft(data.title, data.body, initial=data.count_retweet)
    return await _post(request, data.user_name, draft, idempotency_key, data)


@post(
    "/retweet",
    operation_id="retweet",
    summary="Retweet",
    description="Adds 1 to the count of every tweet along the chain. But in open mode a retweet without title and text "
    "counts once for each user and tweet: where they have one, it is answered again, and nothing changes.",
    tags=["tweets"],
    security=[{BEARER: []}],
    responses=answers(201, Tweet, 404, 409, body=True, description="Posted")
    | answers(200, Tweet, 404, 409, body=True, description="The retweet that this user has already"),
)
async def retweet(
    request: AnyRequest, data: JSONBody[PostRetweet], idempotency_key: IdempotencyKey = None
) -> Response[bytes]:
    """Retweet."""
    draft = Draft(data.title, data.body, tweet_id(data.retweet), data.count_retweet)
    return await _post(request, data.user_name, draft, idempotency_key, data)


async def _post(
    request: AnyRequest, user_name: str, draft: Draft, key: str | None, data: PostTweet | PostRetweet
) -> Response[bytes]:
    caller, services = caller_of(request.scope), services_of(request)
    caller.require_token()
    posted = await services.tweets.post_as(caller, user_name, draft, once_of(request, key, data))
    return reply(posted.json, 200 if posted.had else 201)


@get(
    "/tweet/{user_id:str}",
    operation_id="listTweets",
    summary="A user's tweets",
    tags=["tweets"],
    responses=answers(200, list[Tweet], 404, description="Tweets, newest first"),
)
async def by_author(
    request: AnyRequest, user_id: PathUser, limit: Limit = LIMIT, cursor: Cursor = None
) -> Response[bytes]:
    """List a user's tweets."""
    require_reader(request)
    services = services_of(request)
    page = await services.tweets.by_author(await services.accounts.find(user_id), limit, cursor)
    return reply_page(request, page, limit)


@delete(
    "/tweet/{user_id:str}",
    operation_id="deleteTweet",
    summary="Delete a tweet",
    description="By its author or an administrator. `tweet_id` in the body or query. Doing it twice changes nothing.",
    tags=["tweets"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None, 404, body=True),
)
async def remove(
    request: AnyRequest,
    user_id: PathUser,
    data: JSONBody[DeleteTweet | None] = None,
    tweet_query: MaybeQueryTweet = None,
) -> Response[None]:
    """Delete a tweet."""
    caller, services = caller_of(request.scope), services_of(request)
    caller.require_token()
    tweet = tweet_id(either("tweet_id", tweet_query, data))
    await services.tweets.delete(caller, await services.accounts.find(user_id), tweet)
    return no_content()


@get(
    "/tweet",
    operation_id="getTweet",
    summary="One tweet",
    tags=["tweets"],
    responses=answers(200, Tweet, 404, description="The tweet"),
)
async def show(request: AnyRequest, tweet_query: QueryTweet) -> Response[bytes]:
    """Show a tweet."""
    require_reader(request)
    return reply(await services_of(request).tweets.get(tweet_id(tweet_query)))


@get(
    "/chain",
    operation_id="getChain",
    summary="A tweet and what it retweets, up to the root",
    tags=["tweets"],
    responses=answers(200, list[ChainedTweet], 404, description="The chain from the tweet upwards"),
)
async def chain(
    request: AnyRequest, tweet_query: QueryTweet, limit: Limit = LIMIT, cursor: Cursor = None
) -> Response[bytes]:
    """Show a chain."""
    require_reader(request)
    page = await services_of(request).tweets.chain(tweet_id(tweet_query), limit, cursor)
    return reply_page(request, page, limit, tweet_id=tweet_query)
