"""Calling libraries of functions that live in Redis: on one server, or on a cluster where the keys lie.

Every call has a bound. Where nothing answered, one call asks now and then whether it is back, and the others are
refused at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from redis.exceptions import ClusterDownError, MasterDownError, RedisError, ResponseError

from rookery.adapters.redis.servers import Access, Cluster, NotCopied, Server
from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Reading
from rookery.ports.clock import Clock

T = TypeVar("T")

_log = logging.getLogger(__name__)

CLUSTER_SHARDS = 64
"""Of a cluster: a few for each of the masters that there may be. Fixed, as it says where each thing lies."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_COMPLAIN_SECONDS = 60.0
_FUNCTION_MISSING = "Function not found"
_REFUSED = "REFUSED"
"""What a refusal begins with that a function gives; the reason follows."""


@dataclass(frozen=True, slots=True)
class Library:
    """Functions that live in Redis: what a shard is there for.

    Their names hold the version, so that servers of two versions go on beside each other, each with its own.
    """

    name: str
    """Of the Lua file."""
    version: int
    refusals: Mapping[str, Callable[[], Exception]]
    """What is raised for each reason that a function refuses for."""
    unavailable: Callable[[], Unavailable]
    """What is raised when Redis can't do it now."""

    @property
    def prefix(self) -> str:
        """What its functions' names begin with."""
        return f"rookery_{self.name}_v{self.version}_"

    def code(self) -> str:
        """The text of it."""
        text = files("rookery.adapters.redis").joinpath(f"{self.name}.lua").read_text()
        return f"#!lua name=rookery_{self.name}_v{self.version}\nlocal PREFIX = '{self.prefix}'\n{text}"


def open_shards(
    access: Access, clock: Clock, library: Library, *, timeout: float, prefix: str
) -> tuple[Server | Cluster, list["Shard"]]:
    """The client of Redis, and all shards on it: one where there is one server."""
    client = Cluster(access, timeout) if access.is_cluster else Server(access.servers[0], access, timeout)
    bases = [b"{%b:%d}:" % (prefix.encode(), number) for number in range(CLUSTER_SHARDS if access.is_cluster else 1)]
    return client, [Shard(client, base, clock, timeout, library) for base in bases]


def states_of(part: str, shards: Sequence["Shard"]) -> Iterable[Reading]:
    """How many of a part's shards answer."""
    silent = sum(shard.is_refused for shard in shards)
    of = {"part": part}
    yield Reading("redis_shards", "Shards that this part has on Redis.", len(shards), of)
    yield Reading("redis_shards_silent", "Those that did not answer and are left alone for a moment.", silent, of)


class Shard:
    """What lies with one hash tag: on one server at any time, which answers or does not."""

    def __init__(self, client: Server | Cluster, base: bytes, clock: Clock, timeout: float, library: Library) -> None:
        self.base = base
        """What all its keys begin with."""
        self._client = client
        self._clock = clock
        self._timeout = timeout
        self._library = library
        self._pause = 0.0
        self._retry_at = 0.0
        self._complain_at = float("-inf")
        self._closed = False

    @property
    def is_refused(self) -> bool:
        """Whether it did not answer a moment ago."""
        return self._clock.monotonic() < self._retry_at

    async def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the library, which is put there first where it is missing.

        Raises:
            Unavailable: the library's.
            Exception: the one of `Library.refusals`.
        """
        return await self._call(self._client.ask, function, arguments)

    async def call_and_copy(self, function: str, *arguments: Any) -> Any:
        """The same of a function that writes. Where there is a replica one has it too, before this returns."""
        return await self._call(self._client.ask_and_copy, function, arguments)

    async def field(self, key: bytes, name: str) -> bytes | None:
        """A field of a hash."""
        found: bytes | None = await self._try(lambda: self._client.ask(self.base, "HGET", self.base + key, name))
        return found

    async def scan(self, key: bytes, cursor: int, many: int) -> tuple[int, list[bytes]]:
        """About so many fields of a hash, and the cursor behind them, 0 at the end."""
        command = ("HSCAN", self.base + key, cursor, "COUNT", many)
        behind, rows = await self._try(lambda: self._client.ask(self.base, *command))
        return int(behind), rows[::2]

    async def infos(self) -> Sequence[Mapping[str, Any]]:
        """What each server with keys, of this shard or another, tells of itself."""
        return await self._try(self._client.infos)

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    async def _call(self, ask: Callable[..., Awaitable[Any]], function: str, arguments: Sequence[Any]) -> Any:
        command = ("FCALL", self._library.prefix + function, 1, self.base, *arguments)

        async def call() -> Any:
            try:
                return await ask(self.base, *command)
            except ResponseError as error:
                if _FUNCTION_MISSING not in str(error):
                    raise
            await self._client.ask(self.base, "FUNCTION LOAD", "REPLACE", self._library.code())
            return await ask(self.base, *command)

        return await self._try(call)

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, unless Redis did not answer a moment ago."""
        now = self._clock.monotonic()
        if self._closed or now < self._retry_at:
            raise self._library.unavailable()
        if self._pause:
            self._retry_at = now + self._pause  # one asks whether it is back, and the others don't wait for him
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask()
        except (ClusterDownError, MasterDownError) as error:
            raise self._failed(error) from error
        except (ResponseError, NotCopied) as error:
            self._pause = self._retry_at = 0.0  # it answers
            raise self._refusal(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        self._pause = self._retry_at = 0.0
        return answer

    def _refusal(self, error: RedisError) -> Exception:
        what, _, rest = str(error).partition(" ")
        if what == _REFUSED and (made := self._library.refusals.get(rest.split(" ")[0])):
            return made()
        now = self._clock.monotonic()
        if now >= self._complain_at:  # it is full, say, or can't write
            _log.warning("the %s is refused by Redis: %s", self._library.name, error)
            self._complain_at = now + _COMPLAIN_SECONDS
        return self._library.unavailable()

    def _failed(self, error: Exception) -> Unavailable:
        if not self._pause:
            _log.warning("the %s does not answer: %s", self._library.name, str(error) or "not in time")
        now = self._clock.monotonic()
        if now >= self._retry_at:  # of those who waited together the first doubles the pause
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._retry_at = now + self._pause
        return self._library.unavailable()


def warn_of_loss(infos: Iterable[Mapping[str, Any]]) -> None:
    """Say so in the log where servers don't keep what they are given."""
    for info in infos:
        if not info["aof_enabled"]:
            _log.warning("Redis has no append-only file (appendonly yes): what it is given ends with its process")
        if info["maxmemory"] and info["maxmemory_policy"] != "noeviction":
            _log.warning("Redis takes keys away when it is full (maxmemory-policy): it must be noeviction")


async def all_of(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The answers of all, side by side. If some failed the first of these tells why, when all have come to an end."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers  # type: ignore[return-value]
