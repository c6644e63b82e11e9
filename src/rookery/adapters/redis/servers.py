"""Where keys of Redis lie: on one server, or on the masters of a cluster, to which each command finds its way."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from redis.asyncio import ConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import AbstractConnection
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
from redis.exceptions import TimeoutError as TimedOut

_log = logging.getLogger(__name__)

_CONNECTIONS = 4
"""Over which one server is asked, and as many more for what a replica must have."""
_AT_ONCE = 100
"""Commands that are sent together."""
_IDLE_SECONDS = 1.0
"""Idle time after which a connection is checked with a PING before it carries commands."""
_PING_SECONDS = 0.25
"""The longest wait for the answer to that PING; then the connection is replaced."""
_MAP_SECONDS = 0.25
"""How long those nodes of a cluster are waited for that tell last where the slots are."""
_AGAIN_SECONDS = 0.05
_COPY_MILLIS = 500
"""How long a replica may take to have a write."""
_ALONE_SECONDS = 1.0
"""How long a master that has no replica is not asked again whether one has its writes."""
_LATE_SECONDS = 1
"""A replica that was not heard of for longer is away."""

_Map = tuple[tuple[int, int, str], ...]
"""First slot, last slot and master's address of each range."""


class NotCopied(RedisError):
    """What was written a master has, but none of its replicas. It may be lost with it."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where Redis is and how to get in. Several servers are nodes of one cluster; each `host:port`."""

    servers: Sequence[str]
    user: str = ""
    password: str = field(default="", repr=False)
    tls_authority: Path | None = None
    """PEM file of whom to believe who Redis is; given, TLS is on."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    alone: bool = True
    """Whether a master of a cluster goes on while no replica follows it."""

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


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    command: Sequence[Any]
    answer: asyncio.Future[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Queue:
    """What waits for its turn on one of a few connections."""

    waiting: list[_Asked] = field(default_factory=list)
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CONNECTIONS))


class Server:
    """One Redis: a master of a cluster, or one that is alone and has all keys."""

    def __init__(self, address: str, access: Access, timeout: float) -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        self._client: Redis = Redis(
            connection_pool=ConnectionPool(
                host=host.strip("[]"),
                port=int(port),
                socket_timeout=None,  # whoever asks has a bound of his own: the library's swallows cancelling
                socket_connect_timeout=timeout,
                retry_on_timeout=False,
                retry=None,
                **access.options(),
            )
        )
        self._timeout = timeout
        self._answered_at: WeakKeyDictionary[AbstractConnection, float] = WeakKeyDictionary()
        self._failed_at = float("-inf")
        """When a connection was lost, by the event loop's clock: then the idle ones may be lost, too."""
        self._reads, self._writes = _Queue(), _Queue()
        self._sending: set[asyncio.Task[None]] = set()
        self._is_of_cluster: bool | None = access.is_cluster or None
        self._may_be_alone = access.alone
        self._is_alone = False
        self._ask_again_at = float("-inf")

    async def ask(self, _: bytes, *command: Any) -> Any:
        """What it answers to a command about a key."""
        return await self._put(self._reads, command)

    async def ask_and_copy(self, _: bytes, *command: Any) -> Any:
        """The same of a command that writes. Where there is a replica one has it too, before this returns.

        Raises:
            NotCopied: no replica has it, although there is one.
        """
        return await self._put(self._writes if self._is_of_cluster else self._reads, command)

    def _put(self, queue: _Queue, command: Sequence[Any]) -> asyncio.Future[Any]:
        """What is asked for in the same moment is sent together, in one round trip."""
        asked = _Asked(command, asyncio.get_running_loop().create_future())
        queue.waiting.append(asked)
        if len(queue.waiting) == 1:
            task = asyncio.create_task(self._send(queue))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return asked.answer

    async def _send(self, queue: _Queue) -> None:
        async with queue.free:
            while waiting := queue.waiting[:_AT_ONCE]:
                del queue.waiting[: len(waiting)]
                if some := [asked for asked in waiting if not asked.answer.done()]:  # else whoever asked has gone
                    await self._ask_for(some, copy=queue is self._writes)

    async def _ask_for(self, some: Sequence[_Asked], *, copy: bool) -> None:
        answers: Sequence[Any]
        commands = [asked.command for asked in some]
        try:
            async with asyncio.timeout(self._timeout):
                answers = await (self._answers_copied(commands) if copy else self._answers(commands))
        except TimeoutError:
            answers = [TimedOut("not in time")] * len(some)
        except Exception as error:  # noqa: BLE001 - each who asked is told
            answers = [error] * len(some)
        for asked, answer in zip(some, answers, strict=True):
            if asked.answer.done():
                continue
            if isinstance(answer, Exception):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)

    async def _answers(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """What it answers to each; a refusal is an exception among them."""
        if self._is_of_cluster is None:
            await self._require_alone()
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await self._require_alive(connection)
            try:
                answers = await _exchange(connection, commands)
            except BaseException:
                self._failed_at = asyncio.get_running_loop().time()
                await connection.disconnect(nowait=True)  # else the next user would read what is still to come
                raise
            self._answered_at[connection] = asyncio.get_running_loop().time()
            return answers
        finally:
            await pool.release(connection)

    async def _require_alive(self, connection: AbstractConnection) -> None:
        """Replace a connection that died while it was idle.

        The pool sees one that the server closed, but neither one that was reset nor one that a machine between lost. A
        command that was sent on such a connection can't be repeated, as it may have been executed.
        """
        now = asyncio.get_running_loop().time()
        answered_at = self._answered_at.get(connection, now)
        try:
            await connection.send_packed_command([])  # raises what ended it
            if answered_at <= max(now - _IDLE_SECONDS, self._failed_at):
                async with asyncio.timeout(_PING_SECONDS):
                    await _exchange(connection, [("PING",)])
        except (RedisError, OSError, TimeoutError):
            await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]

    async def _answers_copied(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The same; what was written a replica has, else that is the answer."""
        now = asyncio.get_running_loop().time()
        if self._is_alone and now < self._ask_again_at:
            return await self._answers(commands)
        self._ask_again_at = now + _ALONE_SECONDS  # the others don't wait for it
        *answers, copies = await self._answers([*commands, ("WAIT", 1, _COPY_MILLIS)])
        if isinstance(copies, Exception) or (copies == 0 and not await self._goes_on_alone()):
            missing = NotCopied("no replica has what was written")
            return [answer if isinstance(answer, Exception) else missing for answer in answers]
        if copies:
            self._is_alone = False
        return answers

    async def _goes_on_alone(self) -> bool:
        """Whether none follows it just now, and it is to go on without."""
        replication = await self._client.info("replication")
        following = [one for name, one in replication.items() if name.startswith("slave") and isinstance(one, dict)]
        if replication["role"] != "master" or any(
            one["state"] == "online" and int(one["lag"]) <= _LATE_SECONDS for one in following
        ):
            return False
        if not self._is_alone:
            _log.warning("%s has no replica that follows it", self._address)
        self._is_alone = self._may_be_alone
        return self._is_alone

    async def infos(self) -> Sequence[Mapping[str, Any]]:
        """What each server with keys tells of itself."""
        return [await self._client.info()]

    async def close(self) -> None:
        """Let go of all connections."""
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._client.aclose(close_connection_pool=True)
        await self._client.connection_pool.disconnect()

    async def _require_alone(self) -> None:
        info = await self._client.info("cluster")
        if info["cluster_enabled"]:
            _log.error("%s is of a cluster: name more of its nodes", self._address)
            raise Disconnected("it is of a cluster")
        self._is_of_cluster = False


async def _exchange(connection: AbstractConnection, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """The answer to each command, all sent in one piece; a command's refusal is an exception among them."""
    await connection.send_packed_command(connection.pack_commands(commands))
    answers: list[Any] = []
    for _ in commands:
        try:
            answers.append(await connection.read_response())
        except ResponseError as error:
            answers.append(error)
    return answers


class Cluster:
    """A Redis Cluster. Which of its masters has which slots is read when first asked, and whenever it turns out wrong.

    While a slot moves from one master to another its keys are in two places, and a function that needs several would
    find some of them: so what concerns such a slot waits until it has moved.
    """

    def __init__(self, access: Access, timeout: float) -> None:
        self._access = access
        self._timeout = timeout
        self._servers: dict[str, Server] = {}
        self._slots: _Map = ()
        self._is_right = False
        self._reading = asyncio.Lock()
        self._behind: asyncio.Task[None] | None = None

    async def ask(self, key: bytes, *command: Any) -> Any:
        """What the master of a key answers to a command about it."""
        return await self._find(key, command, copy=False)

    async def ask_and_copy(self, key: bytes, *command: Any) -> Any:
        """The same of a command that writes; see `Server.ask_and_copy`."""
        return await self._find(key, command, copy=True)

    async def _find(self, key: bytes, command: Sequence[Any], *, copy: bool) -> Any:
        slot = key_slot(key)
        while True:
            if not self._slots:
                await self._read_slots()
            server = self._master_of(slot)
            try:
                return await (server.ask_and_copy if copy else server.ask)(key, *command)
            except (MovedError, ReadOnlyError) as moved:
                self._is_right = False
                await self._read_slots()
                if self._master_of(slot) is server:  # the others don't know yet, or this one is behind
                    _log.info("where slot %d is is not settled: %s", slot, moved)
                    await asyncio.sleep(_AGAIN_SECONDS)
            except (AskError, TryAgainError):
                await asyncio.sleep(_AGAIN_SECONDS)
            except (Disconnected, TimedOut, NotCopied, ClusterDownError, OSError):
                self._doubt()
                raise

    def _doubt(self) -> None:
        """Look behind everybody's back whether another is the master by now: the other masters go on."""
        self._is_right = False
        if self._behind is None or self._behind.done():
            self._behind = asyncio.create_task(self._look())

    async def _look(self) -> None:
        with suppress(Disconnected):
            await self._read_slots()

    async def infos(self) -> Sequence[Mapping[str, Any]]:
        """What each master tells of itself, in the order of their slots."""
        self._is_right = False
        await self._read_slots()
        masters = dict.fromkeys(address for _, _, address in self._slots)
        return [info for address in masters for info in await self._server(address).infos()]

    async def close(self) -> None:
        """Let go of all connections."""
        if self._behind is not None:
            await self._behind
        for server in list(self._servers.values()):
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
        """Ask all nodes that are known, and believe most of them: one may be cut off from the others."""
        async with self._reading:
            if self._is_right:
                return
            known = dict.fromkeys([*(address for _, _, address in self._slots), *self._access.servers])
            told = await self._maps_of(known)
            if not told:
                raise Disconnected("no node of the cluster tells where its slots are")
            self._slots = told.most_common(1)[0][0]
            self._is_right = True

    async def _maps_of(self, addresses: Iterable[str]) -> Counter[_Map]:
        """What nodes tell within a moment; or the first, where none does so soon."""
        asking = {asyncio.create_task(self._map_of(address)) for address in addresses}
        try:
            done, waiting = await asyncio.wait(asking, timeout=_MAP_SECONDS)
            while waiting and not any(one.result() for one in done):
                more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                done |= more
            return Counter(slots for one in done if (slots := one.result()))
        finally:
            for one in asking:
                one.cancel()

    async def _map_of(self, address: str) -> _Map | None:
        try:
            found = await self._server(address).ask(b"", "CLUSTER SLOTS")
        except (RedisError, OSError) as error:
            if "cluster support disabled" in str(error):
                _log.error("%s is no node of a Redis Cluster: name one server, or nodes of a cluster", address)
            return None
        return tuple(sorted(_masters(found, address)))


def _masters(slots: Any, told_by: str) -> list[tuple[int, int, str]]:
    """Of CLUSTER SLOTS the masters. A node that does not know its own name leaves it out."""
    found = []
    for first, last, (name, port, *_), *_ in slots:
        host = name.decode() if name else told_by.rpartition(":")[0].strip("[]")
        found.append((first, last, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    return found
