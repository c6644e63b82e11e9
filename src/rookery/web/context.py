"""What every handler can reach: the services, the options of the web, and who is asking."""

from collections.abc import Callable
from typing import Any, cast

from litestar import Request
from litestar.types import Scope

from rookery.services.callers import NOBODY, Caller
from rookery.web.options import Services, WebOptions

AnyRequest = Request[Any, Any, Any]
_CALLER = "rookery.caller"
_ADDRESS = "rookery.address"
_PASSWORDS = "rookery.passwords"


def services_of(request: AnyRequest) -> Services:
    """The services of the server that a request came to."""
    return cast("Services", request.app.state.services)


def options_of(request: AnyRequest) -> WebOptions:
    """The options of the server that a request came to."""
    return cast("WebOptions", request.app.state.options)


def set_caller(scope: Scope, caller: Caller, address: str) -> None:
    """Note who is asking, and from where."""
    noted = cast("dict[str, Any]", scope)
    noted[_CALLER], noted[_ADDRESS] = caller, address


def set_password_limit(scope: Scope, count: Callable[[int], None]) -> None:
    """Note how one more password of this address is counted."""
    cast("dict[str, Any]", scope)[_PASSWORDS] = count


def count_password(scope: Scope, most: int) -> None:
    """One more password that must be hashed, which is dear; `most` a minute from one address.

    Raises:
        TooMany: `rate_limited`.
    """
    count: Callable[[int], None] | None = cast("dict[str, Any]", scope).get(_PASSWORDS)
    if count is not None:
        count(most)


def caller_of(scope: Scope) -> Caller:
    """Who is asking."""
    return cast("Caller", cast("dict[str, Any]", scope).get(_CALLER, NOBODY))


def address_of(scope: Scope) -> str:
    """The client's address, as it counts for limits."""
    return cast("str", cast("dict[str, Any]", scope)[_ADDRESS])
