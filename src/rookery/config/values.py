"""What a setting may hold: each type of value with the words for it, and how it is read."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

PullThreshold = int | Literal["auto", "off"]

_MOST = 2**63 - 1  # the largest integer that TOML promises
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SIZE = re.compile(r"([0-9]{1,19}) ?(B|[KMGT]i?B|)", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1, "b": 1} | {
    letter + suffix: base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # the underscore is for names that containers go by
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:\[([^]]+)]|([^]\[:]+))(?::([0-9]{1,5}))?")
_ADDRESS = re.compile(r"(?:\[([^]]+)]|([^]\[:]+)):([0-9]{1,5})")
_KEYSPACE = re.compile("[a-z][a-z0-9_]{0,47}")
_REPLICATION = re.compile(r"[1-9]|[A-Za-z0-9_.-]+:[1-9](?:, ?[A-Za-z0-9_.-]+:[1-9])*")
_CREDENTIALS = re.compile(r"""(?:(?<=//)|(?<=['"]))[^\s'"/@:]*:(?!//)\S*@""")
"""What stands for a user and a password in an address, which no message shows."""
_NAME = re.compile("[A-Za-z0-9_]{1,30}")
_OWN_PORTS = {"http": 80, "https": 443}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ValueType(Generic[T]):
    """A type of value, with the words for it.

    `read` makes a setting's value from one as TOML gives it, or None from one that doesn't fit.
    `lex` turns the text of a variable or flag into what TOML would have given; what it can't turn it leaves to `read`.
    """

    words: str
    read: Callable[[object], T | None]
    lex: Callable[[str], object] = str

    def check(self, value: object) -> T:
        """What `read` gives. Raises ValueError with the reason when that is nothing."""
        read = self.read(value)
        if read is None:
            raise ValueError(f"{_CREDENTIALS.sub('…@', repr(value))} is not {self.words}")
        return read


def _integer(text: str) -> object:
    return int(text) if _INTEGER.fullmatch(text) else text


def whole(least: int, most: int = _MOST) -> ValueType[int]:
    """A whole number within bounds, both included."""

    def read(value: object) -> int | None:
        # isinstance would take true for 1
        return value if type(value) is int and least <= value <= most else None

    words = f"a whole number of at least {least}" if most == _MOST else f"a whole number from {least} to {most}"
    return ValueType(words, read, _integer)


def one_of(literal: object) -> ValueType[Any]:
    """One of the words of a Literal."""
    choices = get_args(literal)
    words = " or ".join(f'"{choice}"' for choice in choices)
    return ValueType(words, lambda value: value if value in choices else None)


def _parsed(words: str, parse: Callable[[str], T]) -> ValueType[T]:
    """Text that `parse` reads; it raises ValueError for what it can't."""

    def read(value: object) -> T | None:
        with suppress(ValueError):
            return parse(value) if isinstance(value, str) else None
        return None

    return ValueType(words, read)


def _list_of(words: str, item: ValueType[T]) -> ValueType[tuple[T, ...]]:
    def read(value: object) -> tuple[T, ...] | None:
        if not isinstance(value, list | tuple):
            return None
        items, faults = [], []
        for each in value:
            try:
                items.append(item.check(each))
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return tuple(items)

    def lex(text: str) -> object:
        return [part.strip() for part in text.split(",")] if text.strip() else []

    return ValueType(f"a list of {words}", read, lex)


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _size(value: object) -> int | None:
    if isinstance(value, str) and (written := _SIZE.fullmatch(value)):
        value = int(written[1]) * _UNITS[written[2].lower()]
    return whole(0).read(value)


def _threshold(value: object) -> PullThreshold | None:
    if value == "auto" or value == "off":  # noqa: PLR1714 - mypy narrows by `==` only
        return value
    return whole(0).read(value)


def _folder(text: str) -> Path:
    # No shell expands the ~ in `--data=~/x`, nor in a file, and a folder called "~" invites an `rm -r ~`.
    if not text.strip() or text.startswith("~") or "\0" in text:
        raise ValueError
    return Path(text)


def _host(text: str) -> str:
    with suppress(ValueError):
        return str(ip_address(text))
    # A last label of digits is a mistyped address, which some resolvers would still read as one (127.1).
    if len(text) > 253 or not _HOST_NAME.fullmatch(text) or text.rpartition(".")[2].isdigit():
        raise ValueError
    return text.lower()


def _file(text: str) -> str:
    if text:
        _folder(text)
    return text


def _replication(text: str) -> str:
    if not _REPLICATION.fullmatch(text):
        raise ValueError
    return text.replace(" ", "")


def _keyspace(text: str) -> str:
    if not _KEYSPACE.fullmatch(text):
        raise ValueError
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError
    return text


def _origin(text: str) -> str:
    """The origin as a browser writes it: in lower case, without the scheme's own port."""
    if not (written := _ORIGIN.fullmatch(text)):
        raise ValueError
    scheme, address, name, port = written.groups()
    scheme = scheme.lower()
    origin = f"{scheme}://{_host(name)}" if name else f"{scheme}://[{IPv6Address(address)}]"
    if port is None or int(port) == _OWN_PORTS.get(scheme):
        return origin
    return f"{origin}:{whole(1, 65535).check(int(port))}"


def _address(text: str) -> str:
    """`host:port`, an IPv6 host in brackets."""
    if not (written := _ADDRESS.fullmatch(text)):
        raise ValueError
    host = f"[{IPv6Address(written[1])}]" if written[1] else _host(written[2])
    return f"{host}:{whole(1, 65535).check(int(written[3]))}"


BOOL = ValueType("true or false", _bool, lambda text: _TRUTHS.get(text.lower(), text))
BYTES = ValueType("a size in bytes, such as 0, 64MB or 256 MiB", _size, _integer)
THRESHOLD: ValueType[PullThreshold] = ValueType('"auto" or "off" or a whole number of at least 0', _threshold, _integer)
FOLDER = _parsed("a folder's path, written in full (~ is not expanded)", _folder)
FILE = _parsed("a file's path, written in full (~ is not expanded)", _file)
TEXT = _parsed("text", str)
KEYSPACE = _parsed("a name of small letters, digits and _, a letter first, at most 48 of them", _keyspace)
REPLICATION = _parsed("a number of copies from 1 to 9, or such numbers by datacenter (dc1:3,dc2:2)", _replication)
HOST = _parsed("an IP address or a host name", _host)
HOSTS = _list_of("IP addresses and host names", HOST)
ORIGINS = _list_of("origins", _parsed("an origin (scheme://host or scheme://host:port)", _origin))
ADDRESS = _parsed("an address (host:port), or nothing", lambda text: _address(text) if text else "")
ADDRESSES = _list_of("addresses", _parsed("an address (host:port)", _address))
NAMES = _list_of("users' names", _parsed("a user's name, 1 to 30 of A-Z a-z 0-9 _", _name))
NETWORKS = _list_of("IP addresses and networks", _parsed("an IP address or a network such as 10.0.0.0/8", ip_network))
