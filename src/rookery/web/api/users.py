"""Users and their tokens."""

from litestar import Response, delete, get, post
from litestar.params import JSONBody
from msgspec import UNSET, Struct

from rookery.domain.errors import Malformed
from rookery.domain.users import NewUser, User
from rookery.web.api.reading import either, given, once_of, require_reader
from rookery.web.api.shapes import (
    BEARER,
    DeleteUser,
    IdempotencyKey,
    PostToken,
    PostUser,
    QueryName,
    QueryUser,
    answers,
    no_content,
    reply,
)
from rookery.web.context import AnyRequest, caller_of, count_password, services_of

SIGN_INS = 30
"""Sign-ins that one address may try in a minute: passwords are to be guessed slowly."""
NEW_PASSWORDS = 120
"""Registrations with a password that one address may send in a minute: a tenth of what one thread can hash."""


class Token(Struct, frozen=True):
    """The answer to a sign-in. The token is shown this once."""

    token: str


@post(
    "/user",
    operation_id="registerUser",
    summary="Register a user",
    description="Gives the token that acts for him (none in open mode). Without a password he can't sign in again.",
    tags=["users"],
    responses=answers(201, NewUser, 409, body=True, description="Registered"),
)
async def register(
    request: AnyRequest, data: JSONBody[PostUser], idempotency_key: IdempotencyKey = None
) -> Response[bytes]:
    """Register a user."""
    if data.password is not UNSET:
        count_password(request.scope, NEW_PASSWORDS)
    user = await services_of(request).accounts.register(
        caller_of(request.scope),
        data.name,
        given(data.password),
        given(data.display_name),
        once=once_of(request, idempotency_key, data),
    )
    return reply(user, 201)


@get(
    "/user",
    operation_id="getUser",
    summary="A user with his counts",
    description="Ask by `user_id` (or `@name` in it) or by `name`.",
    tags=["users"],
    responses=answers(200, User, 404, description="The user"),
)
async def show(
    request: AnyRequest,
    user_id: QueryUser = None,
    name: QueryName = None,
) -> Response[bytes]:
    """Show a user."""
    require_reader(request)
    accounts = services_of(request).accounts
    if (user_id is None) == (name is None):
        raise Malformed("missing_field", "Give user_id or name, one of the two.")
    user = await accounts.find(user_id) if user_id is not None else await accounts.find_name(name or "")
    return reply(await accounts.show(user))


@delete(
    "/user",
    operation_id="deleteUser",
    summary="Delete a user and everything of his",
    description="By himself or an administrator. His handle is never given to another. `user_id` in the body or query.",
    tags=["users"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None, 404, body=True),
)
async def remove(
    request: AnyRequest,
    data: JSONBody[DeleteUser | None] = None,
    user_id: QueryUser = None,
) -> Response[None]:
    """Delete a user."""
    caller = caller_of(request.scope)
    if not caller.anyone:
        caller.require_token()
    accounts = services_of(request).accounts
    await accounts.delete(caller, await accounts.find(either("user_id", user_id, data)))
    return no_content()


@post(
    "/token",
    operation_id="signIn",
    summary="Sign in with name and password",
    tags=["users"],
    responses=answers(201, Token, body=True, description="A new token"),
)
async def sign_in(
    request: AnyRequest, data: JSONBody[PostToken], idempotency_key: IdempotencyKey = None
) -> Response[bytes]:
    """Sign in."""
    count_password(request.scope, SIGN_INS)
    token = await services_of(request).accounts.sign_in(
        data.name, data.password, once_of(request, idempotency_key, data)
    )
    return reply(Token(token), 201)


@delete(
    "/token",
    operation_id="signOut",
    summary="Revoke the token that this request is sent with",
    tags=["users"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None),
)
async def sign_out(request: AnyRequest) -> Response[None]:
    """Sign out."""
    await services_of(request).accounts.sign_out(caller_of(request.scope))
    return no_content()
