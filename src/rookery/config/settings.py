"""Settings: defaults, overridden by a TOML file, that by the environment, and that by the command line's flags.

Every value given is checked, also one that a higher source overrides: no fault waits for the day the override goes.
All faults are reported together, each with where it came from.
"""
# ruff: noqa: RUF009 - `_setting` calls `field`

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from rookery.config.secrets import from_files
from rookery.config.values import (
    ADDRESS,
    ADDRESSES,
    BOOL,
    BYTES,
    FILE,
    FOLDER,
    HOST,
    HOSTS,
    KEYSPACE,
    NAMES,
    NETWORKS,
    ORIGINS,
    REPLICATION,
    TEXT,
    THRESHOLD,
    PullThreshold,
    ValueType,
    one_of,
    whole,
)

# A new kind of store, cache or ranking is one more word here; `wiring` says what it means.
StoreKind = Literal["sqlite", "cassandra", "redis"]
CacheKind = Literal["memory", "memcached"]
RankingKind = Literal["sqlite", "redis"]

Auth = Literal["token", "open"]
Reads = Literal["public", "token"]
Registration = Literal["open", "closed"]
Switch = Literal["on", "off"]
LogFormat = Literal["auto", "json", "pretty"]
LogLevel = Literal["debug", "info", "warning", "error"]
Network = IPv4Network | IPv6Network
FlagValue = str | int | bool | Sequence[str] | None

DEFAULT_FILE = Path("/etc/rookery/rookery.toml")
ENV_PREFIX = "ROOKERY_"
FILE_VARIABLE = "ROOKERY_CONFIG"

# With a cache in the process only resident timelines are walked, so even a celebrity's tweet is cheap to push.
IN_PROCESS_CACHES: frozenset[str] = frozenset({"memory"})
CELEBRITY_FOLLOWERS = 10_000
_STORES_AT = {"cassandra": "127.0.0.1:9042", "redis": "127.0.0.1:6379"}


T = TypeVar("T")


class ConfigError(Exception):
    """The settings can't be used. `faults` has one line for each thing that is wrong with them."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults: tuple[str, ...] = tuple(line if line.isprintable() else repr(line)[1:-1] for line in faults)
        super().__init__("\n".join(self.faults))


# The settings


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of a setting before it has a value. `default_text` is its default as a flag would write it."""

    name: str
    value_type: ValueType[Any]
    default_text: str
    help: str
    is_secret: bool = False

    @property
    def attribute(self) -> str:
        """Its name in Settings."""
        return self.name.replace(".", "_")

    def check(self, value: object) -> Any:
        """As `ValueType.check`, but the reason never shows the value of a secret."""
        try:
            return self.value_type.check(value)
        except ValueError:
            if self.is_secret:
                raise ValueError(f"is not {self.value_type.words}; its value is not shown") from None
            raise

    @property
    def env(self) -> str:
        """Its environment variable."""
        return ENV_PREFIX + self.attribute.upper()

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return "--" + self.attribute.replace("_", "-")


def _setting(name: str, value_type: ValueType[T], default: str, meaning: str, *, is_secret: bool = False) -> T:
    value: T = field(
        default=value_type.check(value_type.lex(default)),
        metadata={"spec": Spec(name, value_type, default, meaning, is_secret)},
        repr=not is_secret,
    )
    return value


_DATA = Spec(
    "data",
    FOLDER,
    "$XDG_STATE_HOME/rookery or ~/.local/state/rookery; for root and without a HOME /var/lib/rookery",
    "The folder for everything that Rookery writes.",
)


def _state_folder(environ: Mapping[str, str]) -> str:
    home, state = environ.get("HOME"), environ.get("XDG_STATE_HOME", "")
    if os.geteuid() == 0:
        return "/var/lib/rookery"
    if state.startswith("/"):  # the XDG specification has relative paths ignored
        return f"{state}/rookery"
    return f"{home}/.local/state/rookery" if home else "/var/lib/rookery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Those from `load` have passed every check; a test may build its own, from the same defaults."""

    host: str = _setting("host", HOST, "127.0.0.1", "The address to listen on.")
    port: int = _setting("port", whole(0, 65535), "5000", "The port to listen on; 0 picks a free one.")
    data: Path = field(metadata={"spec": _DATA})
    drain_seconds: int = _setting(
        "drain_seconds",
        whole(0, 3600),
        "0",
        "How long a server that is told to stop goes on answering as unready, until a load balancer has seen it. "
        "The units of systemd leave time for 60.",
    )

    store: StoreKind = _setting("store", one_of(StoreKind), "sqlite", "What keeps users, follows and tweets.")
    store_servers: tuple[str, ...] = _setting(
        "store.servers",
        ADDRESSES,
        "",
        "Some nodes of the Cassandra ring; or one Redis, or nodes of one Redis Cluster. They tell of the others. "
        "Empty: this machine, at Cassandra's or Redis's own port.",
    )
    store_datacenter: str = _setting(
        "store.datacenter", TEXT, "", "The one datacenter whose nodes all servers use, where Cassandra has several."
    )
    store_keyspace: str = _setting(
        "store.keyspace", KEYSPACE, "rookery", "The keyspace in Cassandra; what all keys begin with in Redis."
    )
    store_replication: str = _setting(
        "store.replication",
        REPLICATION,
        "3",
        "How many copies Cassandra keeps; for rookery schema apply, which makes it.",
    )
    store_user: str = _setting("store.user", TEXT, "", "Who Rookery is to Cassandra or Redis, where it asks.")
    store_password: str = _setting(
        "store.password",
        TEXT,
        "",
        "The password for that. Give it in the settings file, in the environment or by store.password_file: a flag "
        "is visible to every user of the machine.",
        is_secret=True,
    )
    store_password_file: str = _setting(
        "store.password_file", FILE, "", "A file whose one line is that password, in place of store.password."
    )
    store_tls_authority: str = _setting(
        "store.tls_authority", FILE, "", "PEM file of whom to believe who the servers are; given, TLS is on."
    )
    store_tls_certificate: str = _setting("store.tls_certificate", FILE, "", "PEM file with our own certificate.")
    store_tls_key: str = _setting("store.tls_key", FILE, "", "PEM file with its key.")
    store_alone: Switch = _setting(
        "store.alone",
        one_of(Switch),
        "on",
        "Whether a master of a Redis Cluster goes on while no replica follows it; off: writes wait for one (503).",
    )
    cache: CacheKind = _setting("cache", one_of(CacheKind), "memory", "What keeps timelines and tweets at hand.")
    cache_bytes: int = _setting("cache.bytes", BYTES, "256 MiB", "Memory for the cache in the process; 0 turns it off.")
    cache_servers: tuple[str, ...] = _setting(
        "cache.servers", ADDRESSES, "127.0.0.1:11211", "The memcached servers, the same for all processes."
    )
    ranking: RankingKind = _setting("ranking", one_of(RankingKind), "sqlite", "What counts retweets.")
    ranking_servers: tuple[str, ...] = _setting(
        "ranking.servers",
        ADDRESSES,
        "127.0.0.1:6379",
        "The Redis that counts; or nodes of one Redis Cluster, which tell of the others.",
    )
    ranking_keyspace: str = _setting(
        "ranking.keyspace", KEYSPACE, "rookery", "What all keys of the ranking begin with in Redis."
    )
    ranking_user: str = _setting("ranking.user", TEXT, "", "Who Rookery is to that Redis, where it asks.")
    ranking_password: str = _setting(
        "ranking.password",
        TEXT,
        "",
        "The password for that. Give it in the settings file, in the environment or by ranking.password_file: a flag "
        "is visible to every user of the machine.",
        is_secret=True,
    )
    ranking_password_file: str = _setting(
        "ranking.password_file", FILE, "", "A file whose one line is that password, in place of ranking.password."
    )
    ranking_tls_authority: str = _setting(
        "ranking.tls_authority", FILE, "", "PEM file of whom to believe who that Redis is; given, TLS is on."
    )
    ranking_tls_certificate: str = _setting("ranking.tls_certificate", FILE, "", "PEM file with our own certificate.")
    ranking_tls_key: str = _setting("ranking.tls_key", FILE, "", "PEM file with its key.")

    auth: Auth = _setting("auth", one_of(Auth), "token", "open: without tokens, anyone may act as anyone.")
    open_on_network: bool = _setting("open_on_network", BOOL, "false", "Allow auth = open to other machines.")
    reads: Reads = _setting("reads", one_of(Reads), "public", "Whether reading takes a token.")
    registration: Registration = _setting("registration", one_of(Registration), "open", "Whether anyone may sign up.")

    rate_limit: Switch = _setting("rate_limit", one_of(Switch), "on", "Whether requests are limited.")
    rate_limit_token: int = _setting("rate_limit.token", whole(1), "1200", "Requests a minute for one token.")
    rate_limit_address: int = _setting(
        "rate_limit.address",
        whole(1),
        "2400",
        "Requests a minute for one address without a token, and as many for all its tokens.",
    )
    rate_limit_registrations: int = _setting(
        "rate_limit.registrations",
        whole(1),
        "100",
        "Registrations an hour from one network (IPv4 /24, IPv6 /48), but for those by administrators and with "
        "auth = open.",
    )
    reserved_names: tuple[str, ...] = _setting(
        "reserved_names", NAMES, "", "Names that only administrators may register, besides those of the built-in list."
    )

    cors_origins: tuple[str, ...] = _setting("cors_origins", ORIGINS, "", "Sites whose pages may call the API.")
    trusted_proxies: tuple[Network, ...] = _setting("trusted_proxies", NETWORKS, "", "Whose forwarded headers count.")
    allowed_hosts: tuple[str, ...] = _setting(
        "allowed_hosts",
        HOSTS,
        "",
        "Host names to answer to, besides host, localhost and IP addresses. Others are refused (421), but for those "
        "that a trusted proxy passes on where auth = token.",
    )

    max_followees: int = _setting("max_followees", whole(1), "50000", "How many others a user may follow.")
    # Counting along a chain of this length holds up a Redis ranking for 2.4 ms.
    max_chain: int = _setting("max_chain", whole(1), "1000", "How long a chain of retweets may get.")
    pull_threshold: PullThreshold = _setting(
        "pull_threshold",
        THRESHOLD,
        "auto",
        "Tweets of authors with at least this many followers are fetched when feeds are read, not pushed to timelines. "
        f"auto: off with the cache in the process, otherwise {CELEBRITY_FOLLOWERS}.",
    )

    log_format: LogFormat = _setting(
        "log.format", one_of(LogFormat), "auto", "How log lines look. auto: pretty on a terminal, otherwise json."
    )
    log_level: LogLevel = _setting("log.level", one_of(LogLevel), "info", "The least serious lines that are logged.")

    log_server: str = _setting(
        "log.server",
        ADDRESS,
        "",
        "host:port of a log server that gets the lines instead of stdout (RFC 5424, TCP).",
    )
    log_tls_authority: str = _setting(
        "log.tls_authority", FILE, "", "PEM file of whom to believe who that log server is; given, TLS is on."
    )
    metrics_host: str = _setting(
        "metrics.host",
        HOST,
        "127.0.0.1",
        "Where Prometheus finds the metrics, which take no token.",
    )
    metrics_port: int = _setting(
        "metrics.port", whole(0, 65535), "0", "The port for them; 0: none. Of several workers each takes the next one."
    )
    traces_server: str = _setting(
        "traces.server",
        ADDRESS,
        "",
        "host:port of an OpenTelemetry collector that gets spans (OTLP over HTTP); needs the extra rookery[traces].",
    )

    @property
    def effective_store_servers(self) -> tuple[str, ...]:
        """Where the store is: what was named, or the kind's own port of this machine."""
        return self.store_servers or (_STORES_AT[self.store],)

    @property
    def effective_pull_threshold(self) -> int | None:
        """Followers above which an author is a celebrity, or None when there are no celebrities."""
        if self.pull_threshold == "auto":
            return None if self.cache in IN_PROCESS_CACHES else CELEBRITY_FOLLOWERS
        return None if self.pull_threshold == "off" else self.pull_threshold


SPECS: tuple[Spec, ...] = tuple(each.metadata["spec"] for each in fields(Settings))
_GROUPS = frozenset(spec.name.partition(".")[0] for spec in SPECS if "." in spec.name)


def reference() -> str:
    """All settings as a Markdown table."""
    rows = (
        f"| `{spec.name}` | `{spec.flag}` | `{spec.env}` "
        f"| {spec.value_type.words} | {spec.default_text or 'none'} | {spec.help} |\n"
        for spec in SPECS
    )
    return "| Setting | Flag | Environment | Type | Default | Meaning |\n|---|---|---|---|---|---|\n" + "".join(rows)


# Where they come from


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each by its name where its value came from, such as "default" or "flag --port"."""

    settings: Settings
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    spec: Spec
    value: object
    source: str


def load(*, flags: Mapping[str, FlagValue], environ: Mapping[str, str], file: Path | None = None) -> Loaded:
    """Put the settings together.

    Args:
        flags: values by setting name, as text or as TOML would give them; None is a flag that was not used.
        environ: the environment, its other variables included.
        file: the file that --config names. Without it ROOKERY_CONFIG names one; without that /etc/rookery/rookery.toml
            is read if it exists.

    Raises:
        ConfigError: with all faults of all sources.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    faults: list[str] = []
    faulty: set[str] = set()
    for given in chain(_defaults(environ), _from_file(file, environ), _from_environment(environ), _from_flags(flags)):
        if isinstance(given, str):
            faults.append(given)
            continue
        name = given.spec.name
        try:
            values[name] = given.spec.check(given.value)
            sources[name] = given.source
        except ValueError as error:
            faults.append(f"{name}: {error} ({given.source})")
            faulty.add(name)
    faults.extend(from_files((spec.name for spec in SPECS if spec.is_secret), values, sources, faulty))
    faults.extend(
        f"{name}: name a server ({sources[name]})"
        for name in ("cache.servers", "ranking.servers")
        if name not in faulty and not values[name]
    )
    if not faulty & {"store", "store.servers"}:
        ports = {server.rpartition(":")[2] for server in values["store.servers"]}
        if values["store"] == "cassandra" and len(ports) > 1:
            faults.append(f"store.servers: all have the same port ({sources['store.servers']})")
    for group, kind in (("store", values.get("store")), ("ranking", "redis")):
        if not any(name == group or name.startswith(f"{group}.") for name in faulty):
            faults.extend(_half_given(group, kind, values, sources))
    if not faulty & {"auth", "host", "open_on_network"}:
        faults.extend(_open_to_strangers(values, sources))
    if faults:
        raise ConfigError(faults)
    settings = Settings(**{spec.attribute: values[spec.name] for spec in SPECS})
    return Loaded(settings, MappingProxyType(sources))


def _defaults(environ: Mapping[str, str]) -> Iterator[_Given]:
    for spec in SPECS:
        text = _state_folder(environ) if spec is _DATA else spec.default_text
        yield _Given(spec, spec.value_type.lex(text), "default")


def _from_file(file: Path | None, environ: Mapping[str, str]) -> Iterator[_Given | str]:
    path, named_by = DEFAULT_FILE, "default"
    if file is not None:
        path, named_by = file, "flag --config"
    elif FILE_VARIABLE in environ:
        path, named_by = Path(environ[FILE_VARIABLE]), f"environment {FILE_VARIABLE}"
    try:
        with path.open("rb") as opened:
            entries = list(_flatten(tomllib.load(opened)))
    except OSError as error:
        if named_by != "default" or not isinstance(error, FileNotFoundError):
            yield f"{path}: can't be read: {error.strerror} ({named_by})"
        return
    except (ValueError, RecursionError) as error:
        yield f"{path}: is not TOML: {error} ({named_by})"
        return
    known = {spec.name: spec for spec in SPECS}
    for key, value in entries:
        if secret := next((spec for spec in SPECS if spec.is_secret and key.startswith(f"{spec.name}.")), None):
            yield _Given(secret, {}, str(path))  # a table in place of its text, of which nothing is shown
        else:
            yield _Given(known[key], value, str(path)) if key in known else _unknown(key, known, str(path))


def _flatten(table: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values. `cache.kind` is `cache`, so that a kind and its options share a table."""
    for key, value in table.items():
        name = above + (f'"{key}"' if "." in key else key)
        if isinstance(value, dict) and (value or name in _GROUPS):
            yield from _flatten(value, f"{name}.")
        else:
            yield name.removesuffix(".kind"), value


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given | str]:
    known = {spec.env: spec for spec in SPECS}
    for variable, text in sorted(environ.items()):
        if spec := known.get(variable):
            yield _Given(spec, spec.value_type.lex(text), f"environment {variable}")
        elif variable.startswith(ENV_PREFIX) and variable != FILE_VARIABLE:
            yield _unknown(variable, [*known, FILE_VARIABLE], "environment")


def _from_flags(flags: Mapping[str, FlagValue]) -> Iterator[_Given | str]:
    known = {spec.name: spec for spec in SPECS}
    for name, value in flags.items():
        if value is not None and (spec := known.get(name)):
            lexed = spec.value_type.lex(value) if isinstance(value, str) else value
            yield _Given(spec, lexed, f"flag {spec.flag}")
        elif value is not None:
            yield _unknown(name, known, "flags")


def _unknown(key: str, known: Iterable[str], source: str) -> str:
    # Compared without what all of them share, which would make any two alike.
    bare = {name.removeprefix(ENV_PREFIX).casefold(): name for name in known}
    nearest = difflib.get_close_matches(key.removeprefix(ENV_PREFIX).casefold(), bare, n=1)
    hint = f"; did you mean {bare[nearest[0]]}?" if nearest else ""
    return f"{key}: no such setting{hint} ({source})"


def _open_to_strangers(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    if values["auth"] == "open" and not values["open_on_network"] and not _is_loopback(values["host"]):
        yield (
            f"auth: open lets anyone act as anyone ({sources['auth']}), and others can reach host {values['host']} "
            f"({sources['host']}); listen on 127.0.0.1, or set open_on_network to true"
        )


def _half_given(group: str, kind: object, values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    together = [
        ("user", "password"),
        ("tls_certificate", "tls_key"),
        ("tls_key", "tls_certificate"),
        ("tls_certificate", "tls_authority"),
    ]
    if kind == "cassandra":  # Redis may ask for a password alone
        together.append(("password", "user"))
    for one, other in together:
        name = f"{group}.{one}"
        if values[name] and not values[f"{group}.{other}"]:
            yield f"{name}: {group}.{other} is missing beside it ({sources[name]})"


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
