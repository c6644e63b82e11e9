"""What a request's head may be, beyond what the parser holds (RFC 9112): what could be read in two ways is refused."""

import re
from collections.abc import Sequence

import httptools

from rookery.domain.errors import Failure
from rookery.web.problems import Refusal

MAX_PATH_BYTES = 512
"""Bytes of a path as it was sent; the longest of ours, an id percent-encoded, has fewer than 200."""

UNREADABLE = Refusal(400)
_DOUBLED = Refusal(400, "doubled_header", "Authorization, Host, Origin and Idempotency-Key come once at most.")
_HOST = Refusal(400, "host_header", "A request of HTTP/1.1 has one Host header.")
_TARGET = Refusal(400, "malformed_request", "A target is a path, or a URL of http or https without a user.")
_VERSION = Refusal(505, "http_version", "This server speaks HTTP/1.1 and HTTP/1.0.")
_CODING = Refusal(501, "transfer_coding", "The only transfer coding that this server knows is chunked.")

_ONCE = frozenset({b"authorization", b"host", b"origin", b"idempotency-key"})
_VERSIONS = frozenset({"1.0", "1.1"})
_SCHEMES = (b"http://", b"https://")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{0,5})?")
# An escape of a letter, digit or other unreserved character (RFC 3986), of a slash or of a NUL; or one that is none.
_ODD_ESCAPE = re.compile(
    rb"%(?:2[dDeEfF]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE]|00|(?![0-9a-fA-F]{2}))"
)
_ODD_SEGMENT = re.compile(rb"//|/\.{1,2}(?:/|$)")


def fault_of(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Failure | None:
    """Why a head is refused; None for a good one. Names of headers are in lower case."""
    if version not in _VERSIONS:
        return _VERSION
    names = [name for name, _ in headers]
    doubled = {name for name in _ONCE.intersection(names) if names.count(name) > 1}
    if doubled:
        return _HOST if doubled == {b"host"} else _DOUBLED
    if version == "1.1" and b"host" not in names:
        return _HOST
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        return _CODING
    if not target.startswith((b"/", b"*")) and authority_of(target) is None:
        return _TARGET
    return None


def fault_of_parser(error: httptools.HttpParserError) -> Failure:
    """Why a head is refused that the parser can't read."""
    text = str(error)
    if "HTTP version" in text:
        return _VERSION
    if "Transfer-Encoding" in text and "Content-Length" not in text:  # with both it is an attempt to smuggle
        return _CODING
    return UNREADABLE


def authority_of(target: bytes) -> bytes | None:
    """The host and port in a target in absolute form, which hold instead of the Host header; None in other forms."""
    if not target.lower().startswith(_SCHEMES):
        return None
    authority = re.split(rb"[/?#]", target.partition(b"//")[2], maxsplit=1)[0]
    return authority if _AUTHORITY.fullmatch(authority) else None


def is_canonical(path: bytes) -> bool:
    """Whether a path, as it was sent, is the one form of what it names, so that a proxy's rules for paths hold.

    It has no escaped letters or slashes, no empty and no dot segments, and at most 512 bytes. `@` may be escaped.
    """
    return len(path) <= MAX_PATH_BYTES and not _ODD_ESCAPE.search(path) and not _ODD_SEGMENT.search(path)
