"""Which pages and host names may reach this server, and from which address a request really comes."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from rookery.domain.errors import Forbidden
from rookery.web.problems import Refusal

_log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAME = "localhost"
"""The name that browsers take for this machine without asking DNS."""
_PORT_DIGITS = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}
_MOST_NAME_BYTES = 512
"""Bytes of a Host or Origin header that may name this server; a host name has at most 253 (RFC 1035)."""
_MOST_HOPS = 32
"""Proxies of X-Forwarded-For that are looked at, from the last one on."""
_REMEMBERED = 4_096
"""Clients whose limit and network are kept, by their addresses: to read one takes ten microseconds."""
_MOST_ADDRESS_CHARACTERS = 64
"""Characters of an address; the longest of IPv6, with a zone, has fewer."""


def check_origin(method: str, headers: Mapping[bytes, bytes], cors_origins: frozenset[str]) -> None:
    """Refuse a write that a foreign page made someone's browser send.

    Raises:
        Forbidden: `foreign_origin`.
    """
    if method in SAFE_METHODS:
        return
    origin = headers.get(b"origin")
    if origin is not None:
        text, host = origin.decode("latin-1"), headers.get(b"host", b"").decode("latin-1")
        if text in cors_origins:
            return
        if max(len(text), len(host)) > _MOST_NAME_BYTES or not _same_host(text, host):
            raise _foreign()
    if headers.get(b"sec-fetch-site") == b"cross-site":
        raise _foreign()


def _foreign() -> Forbidden:
    return Forbidden("foreign_origin", "A page of another site may not write here.")


def _same_host(origin: str, host: str) -> bool:
    """Whether an origin is this server by the name it was called. The scheme may be a proxy's, so it does not count."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return False
    default = _DEFAULT_PORTS[parts.scheme]
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    own, _, own_port = host.lower().rpartition(":") if _has_port(host) else (host.lower(), "", "")
    return name == own and (port or default) == int(own_port or default)


def _has_port(host: str) -> bool:
    """Whether a Host header ends in a port. A name that ends so oddly that it has none is no name of ours."""
    port = host.rpartition(":")[2]
    return ":" in host and port.isascii() and port.isdigit() and len(port) <= _PORT_DIGITS


def check_host(headers: Mapping[bytes, bytes], allowed: frozenset[str]) -> None:
    """Refuse a host name that is not this server's: an attacker may have pointed a name of theirs here (DNS rebinding).

    A browser sends the name that the page was loaded by. Nobody can point an IP address elsewhere, and no browser
    leaves `Host` out, so requests with an IP address or without `Host` pass. The port is ignored.

    Args:
        headers: of the request, by lower-case name.
        allowed: names in lower case, without port and final dot, besides `localhost`.

    Raises:
        Refusal: 421 `unknown_host`.
    """
    given = headers.get(b"host")
    if given is None:
        return
    host = given[: _MOST_NAME_BYTES + 1].decode("latin-1").lower()
    name = host.rpartition(":")[0] if _has_port(host) else host.removesuffix(":")
    name = name.removesuffix(".")
    if len(host) > _MOST_NAME_BYTES or not (name == LOOPBACK_NAME or name in allowed or _is_address(name)):
        raise Refusal(421)


def _is_address(name: str) -> bool:
    """Whether a host is an IP address as a URL has it: of IPv6 in brackets."""
    if name.startswith("[") and name.endswith("]"):
        return ":" in name and _address(name[1:-1]) is not None
    return ":" not in name and _address(name) is not None


def describe_hosts(allowed: frozenset[str], *, by_proxies: bool) -> str:
    """The hosts that a server answers to, as a sentence for its start.

    Args:
        allowed: as of `check_host`.
        by_proxies: whether a trusted proxy may pass on any name.
    """
    others = sorted(name for name in allowed - {LOOPBACK_NAME} if not _is_address(name))
    names = [LOOPBACK_NAME, "any IP address", *others]
    if by_proxies:
        names.append("any name that a trusted proxy passes on")
    return f"Answers to {', '.join(names)} (setting allowed_hosts)"


class Addresses:
    """Tells from which address a request comes, believing forwarded headers of trusted proxies only."""

    def __init__(self, trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._trusted = trusted
        self._warned = False

    def client(self, peer: str, headers: Mapping[bytes, bytes]) -> str:
        """The client's address as text: the last one that no trusted proxy stands for, of the last 32."""
        forwarded = headers.get(b"x-forwarded-for")
        if forwarded is None:
            return peer
        if not self.trusts(peer):
            if not self._warned:
                self._warned = True
                _log.warning("ignored a forwarded header from an address that is not in trusted_proxies")
            return peer
        hops = forwarded.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
        for hop in (text.strip() for text in reversed(hops)):
            if _address(hop) is None:
                break
            peer = hop
            if not self.trusts(hop):
                break
        return peer

    def trusts(self, text: str) -> bool:
        """Whether this is the address of a trusted proxy."""
        if not self._trusted:
            return False
        address = _address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._trusted
        )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, or None. One of IPv4 that comes by an IPv6 socket is one of IPv4."""
    if len(text) > _MOST_ADDRESS_CHARACTERS:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(_REMEMBERED)
def limited_as(text: str) -> str:
    """What one client is for a rate limit: an IPv4 address, or the /64 that an IPv6 client can move in at will."""
    address = _address(text)
    return str(_within(address, 64) if isinstance(address, IPv6Address) else address or text)


def log_address(text: str) -> str:
    """A client's address for the log; - for what is none, so that nobody can write there what they like."""
    return str(_address(text) or "-")


@lru_cache(_REMEMBERED)
def network_of(text: str) -> str:
    """The network of a client, which one customer of a provider can have: an IPv4 /24, or an IPv6 /48."""
    address = _address(text)
    return str(_within(address, 48 if isinstance(address, IPv6Address) else 24) if address else text)


def _within(address: IPv4Address | IPv6Address, bits: int) -> IPv4Network | IPv6Network:
    return ip_network((address, bits), strict=False)
