"""What every handler can reach: the services, the options of the web, and who is asking."""

from typing import Any, cast

from litestar import Request
from litestar.types import Scope

from rookery.services.callers import NOBODY, Caller
from rookery.services.pulling import Asker
from rookery.web.limits import Meter
from rookery.web.options import Services, WebOptions

AnyRequest = Request[Any, Any, Any]
_CALLER = "rookery.caller"
_ADDRESS = "rookery.address"
_NETWORK = "rookery.network"
_METER = "rookery.meter"
_NAME = "rookery.name"
_CODE = "rookery.code"


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


def set_network(scope: Scope, network: str) -> None:
    """Note the network that the client is in."""
    cast("dict[str, Any]", scope)[_NETWORK] = network


def set_meter(scope: Scope, meter: Meter) -> None:
    """Note what counts passwords and registrations of this request, where they are limited."""
    cast("dict[str, Any]", scope)[_METER] = meter


def meter_of(scope: Scope) -> Meter | None:
    """What counts passwords and registrations, None where nothing is limited."""
    return cast("Meter | None", cast("dict[str, Any]", scope).get(_METER))


def note_name(scope: Scope, name: str) -> None:
    """Note the name that a client tries to sign in by or to register, for the log."""
    cast("dict[str, Any]", scope)[_NAME] = name


def name_of(scope: Scope) -> str | None:
    """The name that a client tried to sign in by or to register, if it did."""
    return cast("str | None", cast("dict[str, Any]", scope).get(_NAME))


def note_code(scope: Scope, code: str) -> None:
    """Note the code of the problem that the request is answered with, for the log."""
    cast("dict[str, Any]", scope)[_CODE] = code


def code_of(scope: Scope) -> str | None:
    """The code of the problem that the request was answered with, if it was refused by our own code."""
    return cast("str | None", cast("dict[str, Any]", scope).get(_CODE))


def caller_of(scope: Scope) -> Caller:
    """Who is asking."""
    return cast("Caller", cast("dict[str, Any]", scope).get(_CALLER, NOBODY))


def asker_of(scope: Scope) -> Asker:
    """The client of a read, as its share of costly ones is counted."""
    user = caller_of(scope).user
    return Asker(address_of(scope), user.id if user else None)


def address_of(scope: Scope) -> str:
    """The client's address, as it counts for limits."""
    return cast("str", cast("dict[str, Any]", scope)[_ADDRESS])


def network_of(scope: Scope) -> str:
    """The network that the client is in."""
    return cast("str", cast("dict[str, Any]", scope).get(_NETWORK, ""))
