"""The cache on memcached servers. Keys are spread over them by rendezvous hashing and carry their server's epoch."""

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self
from zlib import crc32

from rookery.adapters.memcached.connection import Broken, Reply
from rookery.adapters.memcached.epochs import PERIOD_SECONDS, Epochs
from rookery.adapters.memcached.server import Server
from rookery.domain.ids import ID_BYTES
from rookery.domain.tallies import Reading
from rookery.ports.cache import Swap
from rookery.ports.clock import Clock
from rookery.ports.jobs import RunJobs
from rookery.ports.store import Store

TIMEOUT_SECONDS = 0.1
"""How long a burst may take. memcached takes a hundredth of that, so one that is late will not come soon."""
ITEM_BYTES = 1024 * 1024 - 1024
"""The most a key and its value may hold: memcached's own default less what it keeps beside them."""
_SLOTS = 4_096
_OUTCOMES = {b"HD": Swap.STORED, b"EX": Swap.CHANGED, b"NF": Swap.GONE, b"NS": Swap.GONE}

At = list[int]
"""Positions in a list of keys."""


class MemcachedCache:
    """Implements `ports.cache.Cache`. Within `async with` it keeps itself connected and reads the epochs."""

    def __init__(
        self,
        addresses: Sequence[str],
        store: Store,
        clock: Clock,
        *,
        timeout: float = TIMEOUT_SECONDS,
        period: float = PERIOD_SECONDS,
        run: RunJobs,
    ) -> None:
        """`run` owns what keeps the servers connected and reads the epochs: if that ends, nothing here is cached."""
        self._servers = [Server(address, timeout) for address in addresses]
        self._slots = [_winner(self._servers, slot) for slot in range(_SLOTS)]
        self._epochs = Epochs(addresses, store, clock, period, timeout)
        self._run = run
        self._jobs: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        await asyncio.gather(self._epochs.read(), *(server.connect() for server in self._servers))
        keeping = {f"memcached {server.address}": server.run for server in self._servers}
        jobs = {"memcached epochs": self._epochs.run, **keeping}
        self._jobs = asyncio.create_task(self._run(jobs), name="memcached")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def readings(self) -> Iterable[Reading]:
        """Which servers there are."""
        for server in self._servers:
            up = server.connection is not None
            yield Reading("memcached_up", "Whether this memcached answers.", up, {"server": server.address})

    # --- reading and filling -----------------------------------------------------------------------------------------

    async def get_many(self, keys: Sequence[bytes], *, touch: int) -> list[bytes | None]:
        found: list[bytes | None] = [None] * len(keys)

        async def read(server: Server, epoch: int, some: At) -> None:
            after = b" v q T%d O" % touch
            commands = [b"mg %b%b%d\r\n" % (_name(epoch, keys[at]), after, at) for at in some]
            for at, _, value in _hits(await server.send(b"".join(commands)), len(keys)):
                found[at] = value

        await self._on_each(keys, read)
        return found

    async def add_many(self, keys: Sequence[bytes], value: bytes, ttl: int) -> list[bool]:
        added = [False] * len(keys)

        async def add(server: Server, epoch: int, some: At) -> None:
            after = b" %d ME q T%d O" % (len(value), ttl)
            commands = [b"ms %b%b%d\r\n%b\r\n" % (_name(epoch, keys[at]), after, at, value) for at in some]
            answers = _answers(await server.send(b"".join(commands)))
            for at in some:
                added[at] = at not in answers

        if all(len(key) + len(value) <= ITEM_BYTES for key in keys):
            await self._on_each(keys, add)
        return added

    async def get_for_swap(self, keys: Sequence[bytes]) -> list[tuple[bytes, object] | None]:
        found: list[tuple[bytes, object] | None] = [None] * len(keys)

        async def read(server: Server, epoch: int, some: At) -> None:
            connection = server.connection
            commands = [b"mg %b v c q O%d\r\n" % (_name(epoch, keys[at]), at) for at in some]
            for at, line, value in _hits(await server.send(b"".join(commands)), len(keys)):
                cas = next((part[1:] for part in line.split(b" ")[2:] if part.startswith(b"c")), b"0")
                found[at] = value, (connection, epoch, cas)

        await self._on_each(keys, read)
        return found

    async def swap(self, items: Sequence[tuple[bytes, Any, bytes]], ttl: int) -> list[Swap]:
        outcomes = [Swap.GONE] * len(items)

        async def replace(server: Server, epoch: int, some: At) -> None:
            commands, sent = [], []
            for at in some:
                key, (connection, read_by, cas), value = items[at]
                if connection is not server.connection or read_by != epoch:
                    outcomes[at] = Swap.CHANGED  # a server that was started anew may give the same numbers again
                elif len(key) + len(value) > ITEM_BYTES:
                    commands.append(b"md %b q\r\n" % _name(epoch, key))  # as a dictionary forgets what has no room
                else:
                    head = (_name(epoch, key), len(value), cas, ttl, at)
                    commands.append(b"ms %b %d C%b T%d q O%d\r\n" % head + value + b"\r\n")
                    sent.append(at)
            answers = _answers(await server.send(b"".join(commands)))
            for at in sent:
                outcomes[at] = _OUTCOMES[answers.get(at, b"HD")]

        await self._on_each([key for key, _, _ in items], replace)
        return outcomes

    # --- what must not be missed -------------------------------------------------------------------------------------

    async def prepend(self, kind: bytes, ids: Sequence[bytes], entry: bytes) -> int:
        existed = 0

        async def put(server: Server, epoch: int, some: At) -> None:
            nonlocal existed
            before, after = b"ms " + _prefix(epoch, kind), b"\r\n" + entry + b"\r\n"
            flags = b" %d MP q O%%d" % len(entry)
            names = _encoded([ids[at] for at in some])
            commands = [before + name + flags % at + after for at, name in enumerate(names)]
            refused = _answers(await server.send(b"".join(commands)))
            # It says the same of a key that is not there and of one that has no room, and only one may stay as it is.
            if refused:
                await server.send(b"".join([b"md %b%b q\r\n" % (before[3:], names[at]) for at in refused]))
            existed += len(some) - len(refused)

        await self._surely(ids, put, ids)
        return existed

    async def delete(self, keys: Sequence[bytes]) -> None:
        async def forget(server: Server, epoch: int, some: At) -> None:
            commands = [b"md %b q\r\n" % _name(epoch, keys[at]) for at in some]
            if any(not line.startswith(b"NF") for line, _ in await server.send(b"".join(commands))):
                raise Broken("a delete was refused")

        await self._surely(keys, forget)

    async def clear(self) -> None:
        for server in self._servers:
            await self._epochs.raise_(server.address)
        for server in self._servers:
            await self._epochs.settled(server.address)

    async def close(self) -> None:
        self._closed = True
        if self._jobs is not None:
            self._jobs.cancel()
            await asyncio.gather(self._jobs, return_exceptions=True)
            self._jobs = None
        await self._epochs.close()
        for server in self._servers:
            await server.stop()

    # --- which server ------------------------------------------------------------------------------------------------

    async def _on_each(self, keys: Sequence[bytes], do: Callable[[Server, int, At], Awaitable[None]]) -> None:
        """Do something on each server for its keys. On one that can't be used now it is not done: a miss."""

        async def attempt(server: Server, some: At) -> None:
            epoch = self._epochs.for_reading(server.address)
            if epoch is not None and server.connection is not None:
                try:
                    await do(server, epoch, some)
                except Broken:
                    server.close()  # what came may not belong to what was asked

        await self._spread(keys, attempt)

    async def _surely(
        self,
        keys: Sequence[bytes],
        do: Callable[[Server, int, At], Awaitable[None]],
        ids: Sequence[bytes] | None = None,
    ) -> None:
        """Do it, again if it was not confirmed, else leave the server's content behind. Then nobody reads the old one.

        Raises:
            Unavailable: when neither could be done.
        """
        unsettled: list[Server] = []

        async def attempt(server: Server, some: At) -> None:
            for _ in range(2):
                epoch = await self._epochs.for_dropping(server.address)
                if epoch is None or (server.connection is None and not await server.connect()):
                    break
                try:
                    await do(server, epoch, some)
                except Broken:
                    server.close()
                    continue
                if self._epochs.for_reading(server.address) != epoch:
                    unsettled.append(server)
                return
            await self._epochs.raise_(server.address)
            unsettled.append(server)

        await self._spread(keys, attempt, ids)
        # Others may still go by the old epoch, and this process may have missed a raise by another. Prepends wait too:
        # else a timeline might be filled from a tail that somebody still reads by the old epoch.
        await asyncio.gather(*(self._epochs.settled(server.address) for server in unsettled))

    async def _spread(
        self,
        keys: Sequence[bytes],
        attempt: Callable[[Server, At], Awaitable[None]],
        ids: Sequence[bytes] | None = None,
    ) -> None:
        """Let each server attempt its share. The id in a key decides which one's it is, whatever the kind."""
        if not keys or self._closed:
            return
        if len(self._servers) == 1:
            await attempt(self._servers[0], list(range(len(keys))))
            return
        shares: dict[Server, At] = {}
        for at, raw in enumerate(ids or [key.partition(b":")[2] for key in keys]):
            shares.setdefault(self._slots[crc32(raw) % _SLOTS], []).append(at)
        await asyncio.gather(*(attempt(server, some) for server, some in shares.items()))


def _winner(servers: Sequence[Server], slot: int) -> Server:
    """Rendezvous hashing (Thaler and Ravishankar, 1996): who scores highest has it, whoever else comes or goes."""
    return max(servers, key=lambda server: blake2b(b"%d %b" % (slot, server.address.encode())).digest())


def _prefix(epoch: int, kind: bytes) -> bytes:
    return b"rk1:%d:%b" % (epoch, kind)


def _name(epoch: int, key: bytes) -> bytes:
    """A key as memcached takes it: its kind as it is, its id in base64, as keys are text without spaces there."""
    kind, colon, raw = key.partition(b":")
    return _prefix(epoch, kind + colon) + _encoded([raw])[0]


def _encoded(ids: Sequence[bytes]) -> list[bytes]:
    """Ids in URL-safe base64. Those of 16 bytes are filled up to 18, so that all are encoded at once."""
    if all(len(raw) == ID_BYTES for raw in ids):
        text = urlsafe_b64encode(b"\0\0".join([*ids, b""]))
        return [text[at : at + 24] for at in range(0, len(text), 24)]
    return [b"-" + urlsafe_b64encode(raw) for raw in ids]


def _opaque(line: bytes) -> int:
    return int(line[line.rindex(b" O") + 2 :])


def _hits(replies: Sequence[Reply], asked: int) -> Iterator[tuple[int, bytes, bytes]]:
    """The position, line and value of each hit.

    Raises:
        Broken: when one belongs to nothing that was asked.
    """
    for line, value in replies:
        if line.startswith(b"VA "):
            try:
                at = _opaque(line)
            except ValueError:
                at = asked
            if not 0 <= at < asked:
                raise Broken("an answer to nothing that was asked")
            yield at, line, value


def _answers(replies: Sequence[Reply]) -> Mapping[int, bytes]:
    """What was refused, by its position: the first two letters of the answer.

    Raises:
        Broken: when the server said something that belongs to no command.
    """
    try:
        return {_opaque(line): line[:2] for line, _ in replies}
    except ValueError:
        raise Broken("an error of memcached's") from None
