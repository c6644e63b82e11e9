"""What requests may hold and how answers are described in the OpenAPI document."""

from typing import Annotated, Any

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, PathParameter, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from rookery.domain.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page
from rookery.domain.idempotency import MAX_KEY
from rookery.domain.text import MAX_BODY_CODE_POINTS, MAX_DISPLAY_NAME_CODE_POINTS, MAX_TITLE_CODE_POINTS
from rookery.domain.users import MAX_PASSWORD, MIN_PASSWORD, NAME_PATTERN
from rookery.services.tweets import MAX_INITIAL
from rookery.web.context import AnyRequest
from rookery.web.problems import Problem

BEARER = "bearer"
_UUID = "00000000-0000-4000-8000-000000000000"
_UUID_PATTERN = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_ID = {"pattern": f"^{_UUID_PATTERN}$"}
_USER = {"pattern": f"^(@[A-Za-z0-9_]{{1,30}}|{_UUID_PATTERN})$"}
_TEXT = {"max_length": MAX_BODY_CODE_POINTS, "pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"}
_TITLE = {**_TEXT, "max_length": MAX_TITLE_CODE_POINTS}
_LINE = {"pattern": r"^[^\x00-\x1f\x7f-\x9f]*$"}


def _documented(description: str, *examples: object, **schema: object) -> Meta:
    """What the document says of a field. It is said only: the rules are the domain's, and so are the codes."""
    return Meta(description=description, examples=list(examples), extra_json_schema={"extra": schema})


Name = Annotated[str, _documented("A handle.", "ada", pattern=NAME_PATTERN)]
Password = Annotated[str, _documented("A password.", "correct horse", min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]
Text = Annotated[str, _documented("1 to 280 characters.", "Hello", min_length=1, **_TEXT)]
MaybeText = Annotated[str, _documented("Up to 280 characters.", "Listen to her", **_TEXT)]
Title = Annotated[str, _documented("Up to 140 characters; may be empty.", "News", **_TITLE)]
Initial = Annotated[
    int,
    _documented(
        "What the count starts from: 0, but for administrators and in open mode.", 0, minimum=0, maximum=MAX_INITIAL
    ),
]
DisplayName = Annotated[
    str, _documented("Up to 50 characters.", "Ada Lovelace", max_length=MAX_DISPLAY_NAME_CODE_POINTS, **_LINE)
]
UserReference = Annotated[str, _documented("An id or `@name`.", "@ada", _UUID, **_USER)]
Id = Annotated[str, _documented("A UUID.", _UUID, **_ID)]

PathUser = Annotated[
    str, PathParameter(description="A user's id or `@name`.", examples=[Example(value="@ada")], schema_extra=_USER)
]
QueryUser = Annotated[str | None, QueryParameter(description="A user's id or `@name`.", schema_extra=_USER)]
QueryTweet = Annotated[str, QueryParameter(name="tweet_id", description="A tweet's id.", schema_extra=_ID)]
MaybeQueryTweet = Annotated[str | None, QueryParameter(name="tweet_id", description="A tweet's id.", schema_extra=_ID)]
QueryName = Annotated[str | None, QueryParameter(description="A handle.", schema_extra={"pattern": NAME_PATTERN})]
QueryAll = Annotated[
    bool, QueryParameter(name="all", description="Whether all tokens of the user end, on every device.")
]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="How many at most.")]
Cursor = Annotated[
    str | None,
    QueryParameter(
        description="Where to go on: from the `Link` header of the page before.",
        schema_extra={"pattern": "^[A-Za-z0-9_-]+$"},
    ),
]
IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY,
        pattern="^[ -~]+$",
        description="Send the same key with a retry, and the request takes effect once. Kept for a day. Under a"
        " registration it is as secret as the token: make it random. Without a token, one of less than 16 letters is"
        " good from the same address only.",
    ),
]
LIMIT = DEFAULT_LIMIT


class PostUser(Struct, frozen=True, forbid_unknown_fields=True):
    """A registration."""

    name: Name
    password: Password | UnsetType = UNSET
    display_name: DisplayName | UnsetType = UNSET


class DeleteUser(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is to be deleted."""

    user_id: UserReference


class PostToken(Struct, frozen=True, forbid_unknown_fields=True):
    """A sign-in."""

    name: Name
    password: Password


class PostPassword(Struct, frozen=True, forbid_unknown_fields=True):
    """A change of a password. `password` is the present one; a user who has none leaves it out."""

    new_password: Password
    password: Password | UnsetType = UNSET


class Followee(Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to follow, or no more."""

    followee_id: UserReference


class PostOwnTweet(Struct, frozen=True, forbid_unknown_fields=True):
    """A tweet by the user in the path. Its text is in `tweet` or in `body`."""

    tweet: Text | UnsetType = UNSET
    body: Text | UnsetType = UNSET
    title: Title = ""


class DeleteTweet(Struct, frozen=True, forbid_unknown_fields=True):
    """Which tweet is to be deleted."""

    tweet_id: Id


class PostTweet(Struct, frozen=True, forbid_unknown_fields=True):
    """A tweet."""

    user_name: Name
    body: Text
    title: Title = ""
    count_retweet: Initial = 0


class PostRetweet(Struct, frozen=True, forbid_unknown_fields=True):
    """A retweet: a tweet of one's own that passes another on."""

    user_name: Name
    retweet: Id
    body: MaybeText = ""
    title: Title = ""
    count_retweet: Initial = 0


_MEANINGS = {
    400: "The request can't be read",
    401: "A token is missing or not valid",
    403: "Not allowed",
    404: "There is no such user or tweet",
    408: "The body came too slowly",
    409: "Not in the present state of things",
    413: "The body is over 64 KiB",
    415: "The body is neither JSON nor a form",
    422: "A rule is broken",
    429: "Too many requests",
    503: "Not now; try again after the seconds in Retry-After",
}
_ALWAYS = (400, 401, 403, 429, 503)
_WITH_BODY = (408, 413, 415, 422)


def answers(
    status: int,
    shape: Any,
    *also: int,
    body: bool = False,
    description: str = "Done",
) -> dict[int, ResponseSpec]:
    """What a handler may answer: its own status and shape, and the problems that it may meet."""
    found = {status: ResponseSpec(shape, generate_examples=False, description=description)}
    for problem in sorted({*_ALWAYS, *(_WITH_BODY if body else ()), *also}):
        found[problem] = ResponseSpec(
            Problem, generate_examples=False, description=_MEANINGS[problem], media_type=_PROBLEM_MEDIA
        )
    return found


_PROBLEM_MEDIA: Any = "application/problem+json"
_JSON: Any = "application/json"
_NO_STORE = {"Cache-Control": "no-store"}


def reply(shape: object, status: int = 200) -> Response[bytes]:
    """An answer in JSON, from a Struct or from JSON itself."""
    content = shape if isinstance(shape, bytes) else msgspec.json.encode(shape)
    return Response(content, status_code=status, media_type=_JSON, headers=_NO_STORE)


def reply_page(request: AnyRequest, page: Page[Any], limit: int, **query: str) -> Response[bytes]:
    """A page as a bare array, and where to go on in its `Link` header (RFC 8288)."""
    if page.items and isinstance(page.items[0], bytes):
        content = b"[" + b",".join(page.items) + b"]"
    else:
        content = msgspec.json.encode(page.items)
    headers = dict(_NO_STORE)
    if page.next:
        fixed = "".join(f"{name}={value}&" for name, value in query.items())
        headers["Link"] = f'<{request.scope["path"]}?{fixed}limit={limit}&cursor={page.next}>; rel="next"'
    return Response(content, media_type=_JSON, headers=headers)


def no_content() -> Response[None]:
    """Done, with nothing to say."""
    return Response(None, status_code=204)
