"""Two servers on shared backends, all of them real processes, and the faults that befall them."""

import asyncio
import random
import resource
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import started
from tests.serving import Server
from tools.servers import Memcached, Redis
from tools.servers.installing import require_file

_FAKETIME = "usr/lib/*/faketime/libfaketimeMT.so.1"
_SPARE_BYTES = 24 << 20
"""Address space that a limited server may still take: less than a thread's arena."""
_STEPS = (-3600, -60, -5, 5, 60, 3600)
"""Seconds by which the machine's clock is set."""


@dataclass
class Place:
    """Two servers on one store, one memcached and maybe a Redis, on a machine whose clock can be set."""

    servers: list[Server]
    memcached: Memcached
    redis: Redis | None
    clock: Path
    told: list[str] = field(default_factory=list)
    """The faults so far, for who must understand a failure."""
    _ahead: int = 0

    async def befall(self, chance: random.Random) -> None:
        """One fault, and its end."""
        faults: list[Callable[[random.Random], Awaitable[None]]] = [
            self.kill_server,
            self.pause_server,
            self.kill_memcached,
            self.pause_memcached,
            self.set_clock,
            self.limit_memory,
        ]
        if self.redis is not None:
            faults += [self.kill_redis, self.pause_redis]
        await chance.choice(faults)(chance)

    async def kill_server(self, chance: random.Random) -> None:
        """SIGKILL, and a start."""
        server = self._one(chance)
        server.kill()
        self.told.append("kill a server")
        await asyncio.sleep(chance.choice((0, 0.5)))
        await asyncio.to_thread(server.start, server.port)

    async def pause_server(self, chance: random.Random) -> None:
        """As a machine that swaps, or whose other guest takes all: nothing moves, and then goes on."""
        server = self._one(chance)
        self.told.append("pause a server")
        with server.paused():
            await asyncio.sleep(chance.uniform(0.2, 1.5))

    async def kill_memcached(self, chance: random.Random) -> None:
        """It comes back empty."""
        self.memcached.kill()
        self.told.append("kill memcached")
        await asyncio.sleep(chance.choice((0, 0.5)))
        await asyncio.to_thread(self.memcached.start)

    async def pause_memcached(self, chance: random.Random) -> None:
        """It comes back with all it had."""
        self.memcached.pause()
        self.told.append("pause memcached")
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        self.memcached.resume()

    async def kill_redis(self, chance: random.Random) -> None:
        """It comes back with what its append-only file has."""
        assert self.redis
        self.redis.kill()
        self.told.append("kill Redis")
        await asyncio.sleep(chance.choice((0, 0.5)))
        await asyncio.to_thread(self.redis.start)

    async def pause_redis(self, chance: random.Random) -> None:
        """It answers late."""
        assert self.redis
        self.redis.pause()
        self.told.append("pause Redis")
        await asyncio.sleep(chance.uniform(0.2, 1.5))
        self.redis.resume()

    async def set_clock(self, chance: random.Random) -> None:
        """Both servers' wall clock, as they share a machine; not the monotonic one."""
        self._ahead += chance.choice(_STEPS)
        write_clock(self.clock, self._ahead)
        self.told.append(f"set the clock {self._ahead} seconds ahead")

    async def limit_memory(self, chance: random.Random) -> None:
        """A server that gets no more address space for a moment. It may end of it, if it does so in order."""
        server = self._one(chance)
        pid = server.process.pid
        self.told.append("limit a server's memory")
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + _SPARE_BYTES
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, before[1]))
        await asyncio.sleep(0.5)
        if server.is_running():
            resource.prlimit(pid, resource.RLIMIT_AS, before)
        else:
            status = server.process.returncode
            assert status >= 0, f"a server out of memory ended by signal {-status}:\n{server.err()[-4_000:]}"
            await asyncio.to_thread(server.start, server.port)

    async def heal(self) -> None:
        """All is there, and the clock goes right."""
        write_clock(self.clock, 0)
        for server in self.servers:
            if not server.is_running():
                await asyncio.to_thread(server.start, server.port)

    def _one(self, chance: random.Random) -> Server:
        running = [server for server in self.servers if server.is_running()]
        return chance.choice(running)


def clock_environment(file: Path) -> Mapping[str, str]:
    """The environment of a server whose wall clock goes by this file; the monotonic one is the machine's.

    Raises:
        Missing: where libfaketime can't be had.
    """
    return {
        "LD_PRELOAD": require_file(_FAKETIME, "faketime"),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def write_clock(file: Path, ahead: int) -> None:
    """How many seconds the machine's clock is ahead. It is replaced whole: a server may read it at any moment."""
    new = file.with_suffix(".new")
    new.write_text(f"{ahead:+d}\n")
    new.replace(file)


@contextmanager
def opened(folder: Path, store: str) -> Iterator[Place]:
    """A place whose `store` is "sqlite", with all in one file, or "redis", which keeps the counts too."""
    with ExitStack() as stack:
        memcached = stack.enter_context(started(Memcached(folder / "memcached")))
        redis = stack.enter_context(started(Redis(folder / "redis", fsync="always"))) if store == "redis" else None
        (folder / "one").mkdir()
        (folder / "two").symlink_to(folder / "one")  # each has its log beside its own name of the folder
        clock = folder / "clock"
        write_clock(clock, 0)
        environment = clock_environment(clock)
        flags = ("--cache", "memcached", "--cache-servers", memcached.address, *_flags(store, redis))
        servers = [Server(folder / name, *flags, env=environment, measured=False) for name in ("one", "two")]
        stack.callback(_end, servers)
        for server in servers:
            server.start()
        yield Place(servers, memcached, redis, clock)
        for server in servers:
            assert server.stop() == 0, server.err()[-8_000:]


def _flags(store: str, redis: Redis | None) -> Sequence[str]:
    if redis is None:
        return ()
    return (
        "--store",
        store,
        "--store-servers",
        redis.address,
        "--ranking",
        "redis",
        "--ranking-servers",
        redis.address,
    )


def _end(servers: Sequence[Server]) -> None:
    for server in servers:
        if server.is_running():
            server.kill()


def now() -> float:
    """The test's own clock, which no fault sets."""
    return time.monotonic()
