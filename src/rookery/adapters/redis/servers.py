"""Where keys of Redis lie: on one server, or on the masters of a cluster, to which each command finds its way."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Disconnected

_log = logging.getLogger(__name__)

_CONNECTIONS = 64
_MAP_SECONDS = 0.25
"""How long one node of a cluster may take to tell where the slots are, before another is asked."""
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Access:
    """Where Redis is and how to get in. Several servers are nodes of one cluster; each `host:port`."""

    servers: Sequence[str]
    user: str = ""
    password: str = ""
    tls_authority: Path | None = None
    """PEM file of whom to believe who Redis is; given, TLS is on."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether there are several masters."""
        return len(self.servers) > 1

    def options(self) -> Mapping[str, Any]:
        """The same as redis-py's connections take it."""
        login = {"username": self.user or None, "password": self.password} if self.password else {}
        if self.tls_authority is None:
            return login
        return login | {
            "connection_class": SSLConnection,
            "ssl_ca_certs": str(self.tls_authority),
            "ssl_certfile": str(self.tls_certificate) if self.tls_certificate else None,
            "ssl_keyfile": str(self.tls_key) if self.tls_key else None,
            "ssl_check_hostname": True,
        }


class Server:
    """One Redis."""

    def __init__(self, address: str, access: Access, timeout: float) -> None:
        host, _, port = address.rpartition(":")
        self._client: Redis = Redis(
            connection_pool=BlockingConnectionPool(
                max_connections=_CONNECTIONS,
                timeout=timeout,
                host=host.strip("[]"),
                port=int(port),
                socket_timeout=None,  # whoever asks has a bound of his own: the library's swallows cancelling
                socket_connect_timeout=timeout,
                retry_on_timeout=False,
                retry=None,
                **access.options(),
            )
        )

    async def ask(self, _: bytes, *command: Any) -> Any:
        """What it answers to a command about a key."""
        return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def infos(self) -> Sequence[Mapping[str, Any]]:
        """What each server with keys tells of itself."""
        return [await self._client.info()]

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.aclose(close_connection_pool=True)
        await self._client.connection_pool.disconnect()


class Cluster:
    """A Redis Cluster. Which of its masters has which slots is read when first asked, and whenever it turns out wrong.

    While a slot moves from one master to another its keys are in two places, and a function that needs several would
    find some of them: so what concerns such a slot waits until it has moved.
    """

    def __init__(self, access: Access, timeout: float) -> None:
        self._access = access
        self._timeout = timeout
        self._servers: dict[str, Server] = {}
        self._slots: list[tuple[int, int, str]] = []
        self._is_right = False
        self._reading = asyncio.Lock()

    async def ask(self, key: bytes, *command: Any) -> Any:
        """What the master of a key answers to a command about it."""
        slot = key_slot(key)
        while True:
            if not self._is_right:
                await self._read_slots()
            server = self._master_of(slot)
            try:
                return await server.ask(key, *command)
            except (MovedError, ReadOnlyError):
                self._is_right = False
            except (AskError, TryAgainError):
                await asyncio.sleep(_AGAIN_SECONDS)
            except (Disconnected, ClusterDownError, OSError, asyncio.CancelledError):
                self._is_right = False
                raise

    async def infos(self) -> Sequence[Mapping[str, Any]]:
        """What each master tells of itself, in the order of their slots."""
        self._is_right = False
        await self._read_slots()
        masters = dict.fromkeys(address for _, _, address in self._slots)
        return [info for address in masters for info in await self._server(address).infos()]

    async def close(self) -> None:
        """Let go of all connections."""
        for server in self._servers.values():
            await server.close()

    def _master_of(self, slot: int) -> Server:
        for first, last, address in self._slots:
            if first <= slot <= last:
                return self._server(address)
        raise Disconnected(f"no master has the slot {slot}")

    def _server(self, address: str) -> Server:
        if address not in self._servers:
            self._servers[address] = Server(address, self._access, self._timeout)
        return self._servers[address]

    async def _read_slots(self) -> None:
        async with self._reading:
            if self._is_right:
                return
            masters = [address for _, _, address in self._slots]
            failure: Exception | None = None
            for address in dict.fromkeys([*masters, *self._access.servers]):
                try:
                    async with asyncio.timeout(_MAP_SECONDS):
                        found = await self._server(address).ask(b"", "CLUSTER SLOTS")
                except (RedisError, OSError, TimeoutError) as error:
                    failure = error
                    if isinstance(error, ResponseError) and "cluster support disabled" in str(error):
                        _log.error("%s is no node of a Redis Cluster: name one server, or nodes of a cluster", address)
                    continue
                self._slots = sorted(_masters(found, address))
                self._is_right = True
                await self._forget(set(masters) - {address for _, _, address in self._slots})
                return
            raise Disconnected("no node of the cluster tells where its slots are") from failure

    async def _forget(self, addresses: set[str]) -> None:
        for address in addresses - set(self._access.servers):
            with suppress(RedisError, OSError):
                await self._servers.pop(address).close()


def _masters(slots: Any, asked: str) -> list[tuple[int, int, str]]:
    """First slot, last slot and master's address of each range. A node that does not know its name leaves it out."""
    found = []
    for first, last, (name, port, *_), *_ in slots:
        host = name.decode() if name else asked.rpartition(":")[0].strip("[]")
        found.append((first, last, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    return found
