"""Calling the library of functions that lives in Redis: on one server, or on a cluster where the keys lie.

Every call has a bound. Where nothing answered, one call asks now and then whether it is back, and the others are
refused at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from rookery.adapters.redis.servers import Access, Cluster, Server
from rookery.domain.errors import Unavailable
from rookery.ports.clock import Clock

T = TypeVar("T")

_log = logging.getLogger(__name__)

CLUSTER_SHARDS = 64
"""Of a cluster: a few for each of the masters that there may be. Fixed, as it says where each thing lies."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_FUNCTION_MISSING = "Function not found"


@dataclass(frozen=True, slots=True)
class Library:
    """Functions that live in Redis: what a shard is there for."""

    name: str
    """Of the Lua file, and of the function that tells its version with `_version` behind it."""
    version: int
    """As in the file."""
    says: tuple[str, ...]
    """What its functions' refusals begin with. All others say that something is wrong with Redis."""
    refused: Callable[[], Unavailable]
    """What is told when Redis can't do it now."""

    def code(self) -> str:
        """The text of it."""
        return files("rookery.adapters.redis").joinpath(f"{self.name}.lua").read_text()


def open_shards(
    access: Access, clock: Clock, library: Library, *, timeout: float, prefix: str
) -> tuple[Server | Cluster, list["Shard"]]:
    """The client of Redis, and all shards on it: one where there is one server."""
    client = Cluster(access, timeout) if access.is_cluster else Server(access.servers[0], access, timeout)
    bases = [b"{%b:%d}:" % (prefix.encode(), number) for number in range(CLUSTER_SHARDS if access.is_cluster else 1)]
    return client, [Shard(client, base, clock, timeout, library) for base in bases]


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
        self._failures = 0
        self._loaded = False
        self._loading = asyncio.Lock()
        self._closed = False

    @property
    def is_refused(self) -> bool:
        """Whether it did not answer a moment ago."""
        return self._clock.monotonic() < self._retry_at

    async def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the library, which is put there first where it is missing.

        Raises:
            Unavailable: the library's.
            ResponseError: what the function refused.
        """

        async def call() -> Any:
            if not self._loaded:
                await self._load()
            return await self._ask("FCALL", function, 1, self.base, *arguments)

        try:
            return await self._try(call)
        except ResponseError as error:
            if _FUNCTION_MISSING not in str(error):
                raise
        self._loaded = False  # the server was emptied
        return await self._try(call)

    async def field(self, key: bytes, name: str) -> bytes | None:
        """A field of a hash."""
        found: bytes | None = await self._try(lambda: self._ask("HGET", self.base + key, name))
        return found

    async def scan(self, key: bytes, cursor: int, many: int) -> tuple[int, list[bytes]]:
        """About so many fields of a hash, and the cursor behind them, 0 at the end."""
        command = ("HSCAN", self.base + key, cursor, "COUNT", many)
        behind, rows = await self._try(lambda: self._ask(*command))
        return int(behind), list(rows)

    async def infos(self) -> Sequence[Mapping[str, Any]]:
        """What each server with keys, of this shard or another, tells of itself."""
        return await self._try(self._client.infos)

    async def _ask(self, *command: Any) -> Any:
        return await self._client.ask(self.base, *command)

    async def _try(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask, unless Redis did not answer a moment ago."""
        now = self._clock.monotonic()
        if self._closed or now < self._retry_at:
            raise self._refused(None)
        if self._pause:
            self._retry_at = now + self._pause  # one asks whether it is back, and the others don't wait for him
        try:
            async with asyncio.timeout(self._timeout):
                answer = await ask()
        except ResponseError as error:
            if str(error).startswith(self._library.says) or _FUNCTION_MISSING in str(error):
                self._pause = self._retry_at = 0.0  # it answers
                raise
            raise self._failed(error) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise self._failed(error) from error
        self._pause = self._retry_at = 0.0
        return answer

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    async def _load(self) -> None:
        failures, library = self._failures, self._library
        async with self._loading:
            if self._loaded:
                return
            if self._failures != failures:
                raise self._refused(None)  # whoever had the lock before found that it does not answer
            try:
                there = int(await self._ask("FCALL", f"rookery_{library.name}_version", 1, self.base))
            except ResponseError as error:
                if _FUNCTION_MISSING not in str(error):
                    raise
                there = 0
            if there > library.version:
                _log.error("Redis has functions of version %d, we know %d: use a newer Rookery", there, library.version)
                raise self._refused(None)
            if there < library.version:
                await self._ask("FUNCTION LOAD", "REPLACE", library.code())
            self._loaded = True

    def _failed(self, error: Exception) -> Unavailable:
        self._failures += 1
        if not self._pause:
            _log.warning("the %s does not answer: %s", self._library.name, str(error) or "not in time")
        now = self._clock.monotonic()
        if now >= self._retry_at:  # of those who waited together the first doubles the pause
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._retry_at = now + self._pause
        return self._refused(error)

    def _refused(self, error: Exception | None) -> Unavailable:
        made = self._library.refused()
        made.__cause__ = error
        return made


async def all_of(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The answers of all, side by side. If some failed the first of these tells why, when all have come to an end."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers  # type: ignore[return-value]
