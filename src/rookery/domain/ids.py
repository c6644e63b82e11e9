"""Ids of users and tweets: UUIDv7 (RFC 9562) as 16 raw bytes inside, as canonical text outside.

Sorted as bytes they are sorted by time, and the time of a tweet is its id's own millisecond.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NewType
from uuid import UUID

from rookery.domain.errors import Malformed

UserId = NewType("UserId", bytes)
"""16 bytes, a UUID."""
TweetId = NewType("TweetId", bytes)
"""16 bytes, a UUID. Newer tweets have greater ids."""

ID_BYTES = 16
ZERO = bytes(ID_BYTES)
"""Below every id."""

_CANONICAL = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_id(text: str) -> bytes:
    """Read the canonical 8-4-4-4-12 form of a UUID of any version.

    Raises:
        Malformed: `malformed_id`.
    """
    if not _CANONICAL.fullmatch(text):
        raise Malformed("malformed_id", "An id is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057.")
    return bytes.fromhex(text.replace("-", ""))


def format_id(raw: bytes) -> str:
    """The canonical text of an id."""
    return str(UUID(bytes=raw))


def millis_of(raw: bytes) -> int:
    """Milliseconds since 1970 in a UUIDv7: its first 48 bits."""
    return int.from_bytes(raw[:6], "big")


def time_of(raw: bytes) -> datetime:
    """The moment in a UUIDv7, UTC, to the millisecond.

    An id of another version may hold any 48 bits there; what lies past year 9999 becomes its last day.
    """
    try:
        return _EPOCH + timedelta(milliseconds=millis_of(raw))
    except OverflowError:
        return datetime(9999, 12, 31, tzinfo=UTC)


def id_at(millis: int, entropy: bytes) -> bytes:
    """A UUIDv7 of a given millisecond and ten random bytes, of which the version and variant bits are replaced."""
    if not 0 <= millis < 1 << 48:
        raise Malformed("malformed_date", "A date lies between 1970 and the year 10889.")
    tail = bytearray(entropy[:10])
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return millis.to_bytes(6, "big") + bytes(tail)
