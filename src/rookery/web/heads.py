"""What a request's head may say: one meaning for us and for any proxy in front of us, or it is refused."""

import re

from rookery.web.problems import Refusal

Headers = list[tuple[bytes, bytes]]

MAX_PATH_BYTES = 1_024
"""Bytes of a path that is routed. The router keeps the last thousand paths, and names and ids are far shorter."""
_VERSIONS = frozenset({"1.0", "1.1"})
_SINGLE = frozenset({b"host", b"authorization", b"origin", b"idempotency-key"})
"""Headers whose second value one reader would take for the first, and another would not."""
_SCHEMES = (b"http://", b"https://")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""Characters that mean the same with and without percent encoding (RFC 3986, section 2.3)."""
_NEVER_ENCODED = _UNRESERVED | frozenset(b"/\\")
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{0,5})?")
_HEX_DIGITS = frozenset(b"0123456789ABCDEFabcdef")


# Each is made anew: an exception that is raised again keeps the frames of every raise, with the request in them.


def bad_version() -> Refusal:
    """The refusal of any other version of HTTP."""
    return Refusal(505, "http_version", "This server speaks HTTP/1.0 and HTTP/1.1.")


def bad_coding() -> Refusal:
    """The refusal of a transfer coding that a proxy may read in another way."""
    return Refusal(501, "transfer_coding", "The only transfer coding here is chunked, once.")


def _bad_target() -> Refusal:
    return Refusal(400, "malformed_request", "The request's target can't be read.")


def check_head(version: str, headers: Headers) -> None:
    """Refuse what servers and proxies read in different ways. Names of headers are in lower case.

    Raises:
        Refusal: 505 `http_version`, 501 `transfer_coding`, 400 `duplicate_header` or `missing_host`.
    """
    if version not in _VERSIONS:
        raise bad_version()
    single: set[bytes] = set()
    codings: list[bytes] = []
    for name, value in headers:
        if name in _SINGLE:
            if name in single:
                raise Refusal(400, "duplicate_header", f"The header {name.decode().title()} is there more than once.")
            single.add(name)
        elif name == b"transfer-encoding":
            codings.append(value)
    if version != "1.0" and b"host" not in single:
        raise Refusal(400, "missing_host", "A request of HTTP/1.1 has a Host header.")
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        raise bad_coding()


def origin_form(target: bytes, headers: Headers) -> bytes:
    """The target as path and query. The host of an absolute one takes the place of the Host header (RFC 9112, 3.2.2).

    Raises:
        Refusal: 400 `malformed_request`.
    """
    if b"#" in target:  # a fragment is no part of a target, and proxies differ in what they do with one
        raise _bad_target()
    if target.startswith(b"/") or target == b"*":
        if len(target.partition(b"?")[0]) > MAX_PATH_BYTES:
            raise Refusal(404)  # to decode it takes twenty milliseconds where it is all percent signs
        return target
    scheme = next((scheme for scheme in _SCHEMES if target[: len(scheme)].lower() == scheme), None)
    if scheme is None:
        raise _bad_target()
    rest = target[len(scheme) :]
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not _AUTHORITY.fullmatch(authority):
        raise _bad_target()
    if len(path.partition(b"?")[0]) > MAX_PATH_BYTES:
        raise Refusal(404)
    headers[:] = [(name, value) for name, value in headers if name != b"host"]
    headers.append((b"host", authority))
    return path if path.startswith(b"/") else b"/" + path


def is_canonical(path: bytes) -> bool:
    """Whether a raw path is the only way to write it but for a slash at its end, so that a proxy's rules hold here too.

    It is not with an empty segment, one of dots, a backslash, or a percent sign before what needs no encoding, as
    letters do, or before what must not have one, as slashes. `%40`, `@`, is allowed: clients' libraries write it in
    names. One slash at the end is passed over. A path of more than 1,024 bytes is none of ours.
    """
    if len(path) > MAX_PATH_BYTES or not path.startswith(b"/") or b"\\" in path:
        return False
    inside = path[1:].removesuffix(b"/") if path != b"//" else b"/"
    if inside and any(segment in (b"", b".", b"..") for segment in inside.split(b"/")):
        return False
    for encoded in path.split(b"%")[1:]:
        digits = encoded[:2]
        if len(digits) < len("40") or not _HEX_DIGITS.issuperset(digits) or int(digits, 16) in _NEVER_ENCODED:
            return False
    return True
