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
    PostPassword,
    PostToken,
    PostUser,
    QueryAll,
    QueryName,
    QueryUser,
    answers,
    no_content,
    reply,
)
from rookery.web.context import AnyRequest, caller_of, meter_of, network_of, note_name, services_of

SIGN_INS = 30
"""Sign-ins and changes of a password that one address may try in a minute: passwords are to be guessed slowly."""
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
    note_name(request.scope, data.name)
    caller, meter = caller_of(request.scope), meter_of(request.scope)

    def admit() -> None:
        if meter and data.password is not UNSET:
            meter.count_password(NEW_PASSWORDS)
        if meter and not caller.may_administer:
            meter.count_registration()

    user = await services_of(request).accounts.register(
        caller,
        data.name,
        given(data.password),
        given(data.display_name),
        once=once_of(request, idempotency_key, data),
        network=network_of(request.scope),
        admit=admit,
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
    summary="Delete a user and everything of theirs",
    description=(
        "By the user or an administrator. The handle is never given to another. `user_id` in the body or query."
        " For a day the user's own token, which ends with them, may ask again and is answered alike."
    ),
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
    if not caller.anyone and caller.deleted is None:
        caller.require_token()
    accounts = services_of(request).accounts
    reference = either("user_id", user_id, data)
    if caller.deleted is not None:
        await accounts.confirm_deleted(caller, reference)
    else:
        await accounts.delete(caller, await accounts.find_to_delete(reference))
    return no_content()


@post(
    "/token",
    operation_id="signIn",
    summary="Sign in with name and password",
    tags=["users"],
    responses=answers(201, Token, 409, body=True, description="A new token"),
)
async def sign_in(
    request: AnyRequest, data: JSONBody[PostToken], idempotency_key: IdempotencyKey = None
) -> Response[bytes]:
    """Sign in."""
    note_name(request.scope, data.name)
    if meter := meter_of(request.scope):
        meter.count_password(SIGN_INS)
    token = await services_of(request).accounts.sign_in(
        data.name, data.password, once_of(request, idempotency_key, data), network_of(request.scope)
    )
    return reply(Token(token), 201)


@delete(
    "/token",
    operation_id="signOut",
    summary="Revoke the token that this request is sent with, or all tokens of its user",
    tags=["users"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None),
)
async def sign_out(request: AnyRequest, everywhere: QueryAll = False) -> Response[None]:
    """Sign out."""
    await services_of(request).accounts.sign_out(caller_of(request.scope), everywhere=everywhere)
    return no_content()


@post(
    "/password",
    operation_id="changePassword",
    summary="Change the password of the user whose token this is",
    description="All other tokens of the user end.",
    tags=["users"],
    status_code=204,
    security=[{BEARER: []}],
    responses=answers(204, None, body=True),
)
async def change_password(
    request: AnyRequest, data: JSONBody[PostPassword], idempotency_key: IdempotencyKey = None
) -> Response[None]:
    """Change a password."""
    caller = caller_of(request.scope)
    caller.require_token()
    if meter := meter_of(request.scope):
        meter.count_password(SIGN_INS)
    await services_of(request).accounts.change_password(
        caller,
        given(data.password),
        data.new_password,
        once_of(request, idempotency_key, data),
        network_of(request.scope),
    )
    return no_content()
