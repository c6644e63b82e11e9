"""Reading request bodies and queries, strictly: one decoder for JSON and forms.

A reader of JSON that keeps the last of two equal keys, or takes NaN, reads something else than the sender may have
meant; here that is an error. Numbers may be text only where the format has nothing but text.
"""

import json
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request

from rookery.domain.errors import Malformed
from rookery.web.problems import Refusal

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY_BYTES = 64 * 1024
_MAX_FIELDS = 32
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


class StrictRequest(Request[Any, Any, Any]):
    """A request whose `data` is read by `decode` into the type its handler declares."""

    async def json(self) -> Any:
        """The body as the handler's declared type, or None where it declares that a body may be missing."""
        declared = self.route_handler.parsed_data_field
        assert declared is not None, "only handlers that declare data are given one"  # noqa: S101 - for mypy
        kinds = [kind for kind in _members(declared.annotation) if kind is not type(None)]
        body = await self.body()
        if not body and declared.is_optional:
            return None
        return decode(body, self.headers.get("content-type"), kinds[0])


def decode(body: bytes, content_type: str | None, kind: type[T]) -> T:
    """Read a JSON or form body into a flat Struct.

    Raises:
        Refusal: 415.
        Malformed: `not_utf8`, `malformed_json`, `malformed_form`, and as `build`.
    """
    media_type, _, parameters = (content_type or "").partition(";")
    named = (parameter.strip().lower() for parameter in parameters.split(";"))
    charset = next((text.removeprefix("charset=").strip('"') for text in named if text.startswith("charset=")), "")
    if charset not in ("", "utf-8", "utf8"):
        raise Refusal(415)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        if media_type.strip().lower() not in (_JSON, _FORM):
            raise Refusal(415) from None
        raise Malformed("not_utf8", "The body is not UTF-8.") from None
    match media_type.strip().lower():
        case "application/json":
            return build(_read_json(text), kind, strict=True)
        case "application/x-www-form-urlencoded":
            return build(_read_form(text), kind, strict=False)
        case _:
            raise Refusal(415)


def build(pairs: list[tuple[str, Any]], kind: type[T], *, strict: bool) -> T:
    """Make a flat Struct of named values.

    Raises:
        Malformed: `duplicate_field`, `unknown_field`, `missing_field`, `wrong_type`.
    """
    known, required = _fields_of(kind)
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise Malformed("duplicate_field", f"The field {name[:40]!a} is there twice.")
        if name not in known:
            raise Malformed("unknown_field", f"There is no field {name[:40]!a}; known are {', '.join(known)}.")
        values[name] = value
    for name in required:
        if name not in values:
            raise Malformed("missing_field", f"The field {name} is missing.")
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise Malformed("wrong_type", f"{error}.") from None


def read_query(query: bytes, known: frozenset[str], required: frozenset[str]) -> None:
    """Refuse a query that names a parameter twice, or one that its path does not know, or lacks one that it needs.

    Raises:
        Malformed: `malformed_query`, `duplicate_parameter`, `unknown_parameter`, `missing_parameter`.
    """
    seen = set[str]()
    for name, _ in _pairs(query.decode("latin-1"), "malformed_query"):
        if name in seen:
            raise Malformed("duplicate_parameter", f"The parameter {name[:40]!a} is there twice.")
        if name not in known:
            raise Malformed("unknown_parameter", f"There is no parameter {name[:40]!a} here.")
        seen.add(name)
    for name in sorted(required - seen):
        raise Malformed("missing_parameter", f"The parameter {name} is missing.")


def _members(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", (annotation,))


@lru_cache
def _fields_of(kind: type[msgspec.Struct]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    fields = msgspec.structs.fields(kind)
    return tuple(field.encode_name for field in fields), tuple(field.encode_name for field in fields if field.required)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, equal keys and all."""


def _read_json(text: str) -> list[tuple[str, Any]]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        found = json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse)
    except RecursionError:
        raise Malformed("malformed_json", "The body is nested too deeply.") from None
    except ValueError:
        raise Malformed("malformed_json", "The body is not JSON.") from None
    if not isinstance(found, _Pairs):
        raise Malformed("malformed_json", "The body is not a JSON object.")
    for name, value in found:
        if _has_surrogates(name) or (isinstance(value, str) and _has_surrogates(value)):
            raise Malformed("malformed_json", "The body holds half of a surrogate pair.")
    return found


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _read_form(text: str) -> list[tuple[str, Any]]:
    return list(_pairs(text, "malformed_form"))


def _pairs(text: str, code: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=_MAX_FIELDS
        )
    except UnicodeDecodeError:
        raise Malformed("not_utf8", "A value is not UTF-8.") from None
    except ValueError:
        raise Malformed(code, "This is not a list of name=value.") from None
