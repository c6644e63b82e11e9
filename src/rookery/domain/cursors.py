"""Cursors: where a list goes on. Opaque outside; inside the kind of list and the last id shown (keyset pagination)."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass
from typing import Generic, TypeVar

from rookery.domain.errors import Malformed
from rookery.domain.ids import ID_BYTES

DEFAULT_LIMIT = 10
MAX_LIMIT = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list, newest first. `next` continues it, or is None at the end."""

    items: list[T]
    next: str | None = None


def write_cursor(kind: str, position: bytes) -> str:
    """A cursor for a list of this kind (one letter) that goes on after the id given, or the ids."""
    return urlsafe_b64encode(kind.encode() + position).rstrip(b"=").decode()


def read_cursor(kind: str, text: str, *, ids: int = 1) -> bytes:
    """The position in a cursor of this kind: so many ids of 16 bytes.

    Raises:
        Malformed: `malformed_cursor`, also for a cursor of another list.
    """
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Error, ValueError):
        raw = b""
    # Decoding ignores foreign letters and spare bits; writing it again shows whether this cursor came from here.
    if len(raw) != 1 + ids * ID_BYTES or raw[:1] != kind.encode() or write_cursor(kind, raw[1:]) != text:
        raise foreign_cursor()
    return raw[1:]


def foreign_cursor() -> Malformed:
    """The answer to a cursor that did not come from this list."""
    return Malformed("malformed_cursor", "This cursor is not one of this list.")
