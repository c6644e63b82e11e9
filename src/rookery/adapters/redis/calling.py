"""Calling the library of functions that lives in Redis: on one server, or on a cluster where the keys lie.

Every call has a bound. Where nothing answered, one call asks now and then whether it is back, and the others are
refused at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from rookery.domain.errors import Unavailable
from rookery.ports.clock import Clock

T = TypeVar("T")
Ask = Callable[[Any], Awaitable[T]]
"""What is asked of a client of redis-py."""

_log = logging.getLogger(__name__)

VERSION = 5
"""Of the library, as in ranking.lua."""
_LIBRARY = files("rookery.adapters.redis").joinpath("ranking.lua").read_text()
_CONNECTIONS = 64
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_FUNCTION_MISSING = "Function not found"
_OURS = (_FUNCTION_MISSING, "STALE")
"""Refusals of functions that say something to us. All others say that something is wrong with Redis."""


class One:
    """The client of one Redis."""

    def __init__(self, address: str, timeout: float) -> None:
        host, _, port = address.rpartition(":")
        pool = BlockingConnectionPool(
            max_connections=_CONNECTIONS,
            timeout=timeout,
            host=host.strip("[]"),
            port=int(port),
            socket_timeout=None,  # a call has a bound of ours: the library's swallows cancelling
            socket_connect_timeout=timeout,
            retry_on_timeout=False,
            retry=None,
        )
        self.client: Any = Redis(connection_pool=pool)

    async def ask(self, ask: Ask[T]) -> T:
        """Ask for something."""
        return await ask(self.client)

    async def load(self, _: bytes) -> None:
        """Put the library there."""
        await self.client.execute_command("FUNCTION LOAD", "REPLACE", _LIBRARY)

    async def infos(self) -> Sequence[dict[str, Any]]:
        """What each server with keys tells of itself."""
        return [await self.client.info()]

    async def close(self) -> None:
        """Let go of all connections."""
        await self.client.aclose(close_connection_pool=True)
        await self.client.connection_pool.disconnect()


class Cluster:
    """The client of a Redis Cluster, of which these nodes are known."""

    def __init__(self, addresses: Sequence[str], timeout: float) -> None:
        parts = [address.rpartition(":") for address in addresses]
        self.client: Any = RedisCluster(
            startup_nodes=[ClusterNode(host.strip("[]"), int(port)) for host, _, port in parts],
            require_full_coverage=False,  # one master that is away keeps nobody from the others
            retry=Retry(NoBackoff(), 2),
            reinitialize_steps=1,
            socket_timeout=None,
            socket_connect_timeout=timeout,
        )
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def ask(self, ask: Ask[T]) -> T:
        """Ask for something of one key, which leads to where it lies."""
        async with self._free:
            return await ask(self.client)

    async def load(self, key: bytes) -> None:
        """Put the library where a key lies."""
        node = self.client.get_node_from_key(key)
        await self.client.execute_command("FUNCTION LOAD", "REPLACE", _LIBRARY, target_nodes=node)

    async def infos(self) -> Sequence[dict[str, Any]]:
        """What each master tells of itself."""
        await self.client.initialize()
        found: dict[str, dict[str, Any]] = await self.client.info(target_nodes=RedisCluster.PRIMARIES)
        if "run_id" in found:  # of one master alone
            return [found]
        return [found[name] for name in sorted(found)]

    async def close(self) -> None:
        """Let go of all connections."""
        await self.client.aclose()


class Shard:
    """What lies with one hash tag: on one server at any time, which answers or does not."""

    def __init__(self, client: One | Cluster, base: bytes, clock: Clock, timeout: float) -> None:
        self.base = base
        """What all its keys begin with."""
        self._client = client
        self._clock = clock
        self._timeout = timeout
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
            Unavailable: `ranking_unavailable`.
            ResponseError: what the function refused.
        """

        async def call(client: Any) -> Any:
            if not self._loaded:
                await self._load(client)
            return await client.fcall(function, 1, self.base, *arguments)

        try:
            return await self.ask(call)
        except ResponseError as error:
            if _FUNCTION_MISSING not in str(error):
                raise
        self._loaded = False  # the server was emptied
        return await self.ask(call)

    async def generation(self) -> int:
        """The generation that is read."""
        return int(await self.ask(lambda client: client.hget(self.base + b"meta", "gen")) or 0)

    async def scan(self, key: bytes, cursor: int, many: int) -> tuple[int, list[bytes]]:
        """About so many fields of a hash, and the cursor behind them, 0 at the end."""
        behind, rows = await self.ask(lambda client: client.hscan(self.base + key, cursor, count=many))
        return int(behind), list(rows)

    async def ask(self, ask: Ask[T]) -> T:
        """Ask, unless Redis did not answer a moment ago.

        Raises:
            Unavailable: `ranking_unavailable`.
            ResponseError: what Redis refused.
        """
        now = self._clock.monotonic()
        if self._closed or now < self._retry_at:
            raise unavailable(None)
        if self._pause:
            self._retry_at = now + self._pause  # one asks whether it is back, and the others don't wait for him
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._client.ask(ask)
        except ResponseError as error:
            if any(known in str(error) for known in _OURS):
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

    async def _load(self, client: Any) -> None:
        failures = self._failures
        async with self._loading:
            if self._loaded:
                return
            if self._failures != failures:
                raise unavailable(None)  # whoever had the lock before found that it does not answer
            try:
                there = int(await client.fcall("rookery_version", 1, self.base))
            except ResponseError as error:
                if _FUNCTION_MISSING not in str(error):
                    raise
                there = 0
            if there > VERSION:
                _log.error("Redis has functions of version %d, we know %d: use a newer Rookery", there, VERSION)
                raise unavailable(None)
            if there < VERSION:
                await self._client.load(self.base)
            self._loaded = True

    def _failed(self, error: Exception) -> Unavailable:
        self._failures += 1
        if not self._pause:
            _log.warning("the ranking does not answer: %s", str(error) or "not in time")
        now = self._clock.monotonic()
        if now >= self._retry_at:  # of those who waited together the first doubles the pause
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._retry_at = now + self._pause
        return unavailable(error)


async def all_of(asked: Iterable[Awaitable[T]]) -> list[T]:
    """The answers of all, side by side. If some failed the first of these tells why, when all have come to an end."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers  # type: ignore[return-value]


def unavailable(error: Exception | None) -> Unavailable:
    """What is told when Redis can't do it now."""
    made = Unavailable("ranking_unavailable", "The ranking can't be read or written now.")
    made.__cause__ = error
    return made
