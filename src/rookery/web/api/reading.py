"""What handlers read of a request beside its body."""

from typing import Any, TypeVar

import msgspec
from msgspec import UnsetType

from rookery.domain.errors import Malformed
from rookery.domain.idempotency import LONG_KEY, Once, once
from rookery.domain.ids import TweetId, parse_id
from rookery.web.context import AnyRequest, address_of, caller_of, options_of

T = TypeVar("T")

API = "/api/v1"


def require_reader(request: AnyRequest) -> None:
    """Where reads need a token, refuse whoever sent none.

    Raises:
        Unauthenticated: `token_missing`.
    """
    if not options_of(request).public_reads:
        caller_of(request.scope).require_token()


def once_of(request: AnyRequest, key: str | None, data: Any) -> Once | None:
    """What an `Idempotency-Key` means with this request: its path and what its body says, however it is written."""
    if key is None:
        return None
    path = request.scope["path"].removeprefix(API)
    asked = msgspec.json.encode([path, data], order="sorted")
    caller = caller_of(request.scope)
    whose = caller.scope
    if caller.is_nobody and len(key) < LONG_KEY:
        whose += address_of(request.scope).encode()
    return once(whose, key, asked, services_now(request))


def services_now(request: AnyRequest) -> int:
    """The time by the server's clock, in milliseconds since 1970."""
    now: int = request.app.state.clock.now()
    return now


def given(value: T | UnsetType) -> T | None:
    """A field that may be left out; None where it was."""
    return None if isinstance(value, UnsetType) else value


def either(name: str, from_query: str | None, data: Any) -> str:
    """A field that may come in the query or in the body.

    Raises:
        Malformed: `missing_field`, `duplicate_field`.
    """
    from_body: str | None = getattr(data, name) if data is not None else None
    if from_query is not None and from_body is not None:
        raise Malformed("duplicate_field", f"The field {name} is in the query and in the body.")
    found = from_query if from_query is not None else from_body
    if found is None:
        raise Malformed("missing_field", f"The field {name} is missing.")
    return found


def tweet_id(text: str) -> TweetId:
    """A tweet's id.

    Raises:
        Malformed: `malformed_id`.
    """
    return TweetId(parse_id(text))
