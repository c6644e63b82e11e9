"""memcached killed, hung, out of reach or replaced by nonsense: misses at worst, and nothing old comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import uvloop

from rookery.adapters.memcached import MemcachedCache
from rookery.adapters.memcached.cache import ITEM_BYTES
from rookery.adapters.memcached.epochs import Epochs
from rookery.adapters.system import SystemClock
from rookery.domain.errors import Unavailable
from rookery.ports.cache import Swap
from rookery.ports.store import Store
from rookery.services.jobs import Jobs
from tests.contract.adapters.sqlite import open_store
from tests.contract.expecting import refused
from tests.faults import listening
from tests.servers import running
from tools.servers import Memcached

KEY, OTHER = b"tl:" + b"a" * 16, b"tl:" + b"b" * 16
PERIOD = 0.2
TIMEOUT = 0.1


@pytest.fixture(scope="module")
def shared_server() -> Memcached:
    return running(Memcached)


@pytest.fixture
def server(shared_server: Memcached) -> Iterator[Memcached]:
    yield shared_server
    if not shared_server.is_running:
        shared_server.start()
    shared_server.resume()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as store:
        yield store


class AwayStore:
    """Stands before a store that can be out of reach."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.is_away = False

    async def epochs(self) -> object:
        return await self._reach().epochs()

    async def raise_epoch(self, server: str, at: int) -> int:
        return await self._reach().raise_epoch(server, at)

    def _reach(self) -> Store:
        if self.is_away:
            raise Unavailable("store_unavailable", "away")
        return self.inner


class JumpingClock(SystemClock):
    """The machine's clock, as a process sees it that stood still for some seconds."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@asynccontextmanager
async def cache_of(
    store: object, *addresses: str, clock: SystemClock | None = None, timeout: float = TIMEOUT
) -> AsyncIterator[MemcachedCache]:
    made = MemcachedCache(
        addresses,
        cast("Store", store),
        clock or SystemClock(),
        run=Jobs(SystemClock()).run,
        timeout=timeout,
        period=PERIOD,
    )
    async with made as cache:
        yield cache


async def get(cache: MemcachedCache, key: bytes = KEY) -> bytes | None:
    return (await cache.get_many([key], touch=60))[0]


async def until_usable(*caches: MemcachedCache) -> None:
    async with asyncio.timeout(10):
        for cache in caches:
            while (await cache.add_many([OTHER], b"", 60)) != [True]:
                await cache.delete([OTHER])
                await asyncio.sleep(0.01)


async def put(cache: MemcachedCache, value: bytes, key: bytes = KEY) -> None:
    assert await cache.add_many([key], value, 60) == [True]


async def test_a_server_that_was_killed_gives_misses_and_is_used_again_when_it_is_back(
    store: Store, server: Memcached
) -> None:
    async with cache_of(store, server.address) as cache:
        await until_usable(cache)
        await put(cache, b"value")
        server.kill()
        begun = time.monotonic()
        for _ in range(100):
            assert await get(cache) is None
        assert await cache.add_many([KEY], b"value", 60) == [False]
        assert await cache.get_for_swap([KEY]) == [None]
        assert time.monotonic() - begun < 1, "who is away is not waited for"
        await cache.delete([KEY])
        assert await cache.prepend(b"tl:", [KEY[3:]], b"+") == 0
        server.start()
        await until_usable(cache)
        assert await get(cache) is None
        await put(cache, b"new")
        assert await get(cache) == b"new"


async def test_many_who_find_it_broken_open_one_connection(store: Store, server: Memcached) -> None:
    async with cache_of(store, server.address) as cache:
        await until_usable(cache)
        before = server.statistic("curr_connections")
        for _ in range(5):
            cache._servers[0].close()
            await asyncio.gather(*(cache.delete([KEY]) for _ in range(20)))
        async with asyncio.timeout(10):
            while server.statistic("curr_connections") > before:
                await asyncio.sleep(0.01)
        cache._servers[0].close()
        async with asyncio.timeout(10):
            while not await cache.get_for_swap([OTHER]) and await cache.add_many([OTHER], b"", 60) != [True]:
                await asyncio.sleep(0.01)


class HangingStore:
    """A store that tells the epoch of a server until it hangs, as one does whose nodes were just killed."""

    def __init__(self, server: str) -> None:
        self._server = server
        self.hangs = False

    async def epochs(self) -> dict[str, int]:
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        return {self._server: 1}


async def test_a_store_that_hangs_keeps_nobody_from_what_is_cached() -> None:
    store = HangingStore("one")
    epochs = Epochs(["one"], cast("Store", store), SystemClock(), PERIOD)
    running = asyncio.create_task(epochs.run())
    try:
        async with asyncio.timeout(10):
            while epochs.for_reading("one") is None:
                await asyncio.sleep(0.001)
        store.hangs = True
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert epochs.for_reading("one") == 1
            await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await epochs.close()


async def test_what_a_hung_server_held_does_not_come_back_with_it(store: Store, server: Memcached) -> None:
    async with cache_of(store, server.address) as cache, cache_of(store, server.address) as idle:
        await until_usable(cache, idle)
        await put(cache, b"deleted tweet")
        server.pause()
        begun = time.monotonic()
        assert await get(cache) is None
        assert time.monotonic() - begun < 1, "a hung server is waited for a tenth of a second"
        begun = time.monotonic()
        for _ in range(100):
            assert await get(cache) is None
        assert time.monotonic() - begun < 1
        await cache.delete([KEY])
        server.resume()
        await until_usable(cache, idle)
        assert await get(cache) is None
        assert await get(idle) is None


async def test_who_can_not_reach_a_server_keeps_the_others_from_what_he_deleted(
    store: Store, server: Memcached
) -> None:
    cut = asyncio.Event()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if cut.is_set():
            return
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while some := await from_server.read(65_536):
                writer.write(some)

        going_back = asyncio.create_task(back())
        try:
            while not cut.is_set() and (some := await reader.read(65_536)):
                if not cut.is_set():
                    to_server.write(some)
        finally:
            going_back.cancel()
            to_server.close()

    # Both know the server by one name; one of them goes by a way that will be cut.
    async with (
        listening(pass_on) as url,
        cache_of(store, server.address) as near,
        cache_of(store, server.address) as far,
    ):
        far._servers[0]._dial = url.removeprefix("http://")
        far._servers[0].close()
        await until_usable(near, far)
        await put(near, b"deleted tweet")
        assert await get(far) == b"deleted tweet"
        cut.set()
        far._servers[0].close()
        await far.delete([KEY])
        assert await get(near) is None
        await until_usable(near)
        assert await get(near) is None


async def test_while_the_store_is_away_reads_go_on_and_a_delete_that_fails_is_told(
    store: Store, server: Memcached
) -> None:
    away = AwayStore(store)
    async with cache_of(away, server.address) as cache:
        await until_usable(cache)
        await put(cache, b"value")
        away.is_away = True
        for _ in range(int(3 * PERIOD / 0.02)):
            await asyncio.sleep(0.02)
            assert await get(cache) == b"value"
        server.kill()
        with refused(Unavailable, "store_unavailable"):
            await cache.delete([KEY])
        with refused(Unavailable, "store_unavailable"):
            await cache.prepend(b"tl:", [KEY[3:]], b"+")


async def test_who_stood_still_uses_no_epoch_that_he_has_not_read_again(store: Store, server: Memcached) -> None:
    clock = JumpingClock()
    async with cache_of(store, server.address, clock=clock) as cache:
        await until_usable(cache)
        await put(cache, b"value")
        assert await get(cache) == b"value"
        clock.ahead += 2 * PERIOD
        assert await get(cache) is None
        async with asyncio.timeout(10):
            while await get(cache) is None:
                await asyncio.sleep(0.01)
        clock.ahead += 2 * PERIOD
        await cache.delete([KEY])
        assert await get(cache) is None


async def test_a_new_epoch_is_used_by_none_before_the_old_one_is_used_by_none(store: Store, server: Memcached) -> None:
    async with cache_of(store, server.address) as one, cache_of(store, server.address) as other:
        await until_usable(one, other)
        for _ in range(3):
            await put(one, b"old")
            assert await get(other) == b"old"
            begun = time.monotonic()
            await one.clear()
            assert time.monotonic() - begun >= PERIOD * 0.9
            assert await get(other) is None
            await until_usable(one, other)


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_answers_may_come_in_any_pieces(store: Store, server: Memcached, size: int) -> None:
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while some := await from_server.read(size):
                writer.write(some)
                await writer.drain()
                await asyncio.sleep(0)

        going_back = asyncio.create_task(back())
        try:
            while some := await reader.read(65_536):
                to_server.write(some)
        finally:
            going_back.cancel()
            to_server.close()

    async with listening(pass_on) as url, cache_of(store, url.removeprefix("http://"), timeout=10) as cache:
        await until_usable(cache)
        keys = [b"tw:%016d" % number for number in range(30)]
        value = bytes(range(256)) * 2 + b"\r\nMN\r\n"
        assert await cache.add_many(keys, value, 60) == [True] * 30
        assert await cache.get_many(keys, touch=60) == [value] * 30
        assert await cache.prepend(b"tw:", [key[3:] for key in keys], b"+") == 30
        got = await cache.get_for_swap(keys)
        swaps = [(key, one[1], b"new") for key, one in zip(keys, got, strict=True) if one]
        assert await cache.swap(swaps, 60) == [Swap.STORED] * 30
        await cache.delete(keys)
        assert await cache.get_many(keys, touch=60) == [None] * 30


NONSENSE: dict[str, Callable[[bytes], bytes]] = {
    "closes": lambda asked: b"",
    "garbage": lambda asked: b"garbage\r\n" * 10,
    "an answer to nothing": lambda asked: b"MN\r\n" * 5,
    "no number": lambda asked: b"VA many\r\nvalue\r\nMN\r\n",
    "a negative number": lambda asked: b"VA -5 O0\r\nvalue\r\nMN\r\n",
    "a value too short": lambda asked: b"VA 100 O0\r\nvalue\r\nMN\r\n",
    "a value too long": lambda asked: b"VA 2 O0\r\nvalue\r\nMN\r\n",
    "another's answer": lambda asked: b"VA 5 O77\r\nvalue\r\nMN\r\n",
    "an error": lambda asked: b"SERVER_ERROR out of memory\r\nMN\r\n",
    "no end": lambda asked: b"x" * 10_000_000,
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_nonsense_is_a_miss(store: Store, kind: str) -> None:
    begun = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while asked := await reader.read(65_536):
            if asked == b"mn\r\n" and not begun.is_set():
                writer.write(b"MN\r\n")
                continue
            begun.set()
            answer = NONSENSE[kind](asked)
            writer.write(answer)
            if not answer:
                return

    async with listening(talk) as url, cache_of(store, url.removeprefix("http://")) as cache:
        async with asyncio.timeout(10):
            while cache._epochs.for_reading(cache._servers[0].address) is None:
                await asyncio.sleep(0.01)
        for _ in range(3):
            assert await get(cache) is None
            assert await cache.get_for_swap([KEY]) == [None]
            assert await cache.swap([(KEY, (cache._servers[0].connection, 0, b"1"), b"v")], 60) != [Swap.STORED]
            begun.clear()
            await asyncio.sleep(0.06)  # it may be connected again
        await cache.delete([KEY])


def test_it_works_on_the_servers_own_event_loop(tmp_path: Path, server: Memcached) -> None:
    """Which is not asyncio's: its transports are of no class of asyncio's."""

    async def use() -> None:
        async with open_store(tmp_path) as store, cache_of(store, server.address) as cache:
            await until_usable(cache)
            await put(cache, b"|")
            assert await cache.prepend(b"tl:", [KEY[3:]], b"+") == 1
            assert await get(cache) == b"+|"
            cache._servers[0].close()
            assert await get(cache) is None
            async with asyncio.timeout(10):
                while await get(cache) is None:
                    await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


async def test_what_is_over_the_limit_is_not_kept(store: Store, server: Memcached) -> None:
    async with cache_of(store, server.address) as cache:
        await until_usable(cache)
        assert await cache.add_many([KEY], bytes(ITEM_BYTES), 60) == [False]
        await put(cache, bytes(ITEM_BYTES - len(KEY)))
        ((_, token),) = [one for one in await cache.get_for_swap([KEY]) if one]
        assert await cache.swap([(KEY, token, bytes(ITEM_BYTES))], 60) == [Swap.GONE]
        assert await get(cache) is None


async def test_a_timeline_without_room_is_dropped_and_its_neighbours_are_not(store: Store, server: Memcached) -> None:
    async with cache_of(store, server.address, timeout=2) as cache:
        await until_usable(cache)
        await cache.delete([OTHER])
        await put(cache, bytes(ITEM_BYTES - 100))
        await put(cache, b"|", OTHER)
        there = [await cache.prepend(b"tl:", [OTHER[3:], KEY[3:], b"c" * 16], b"+" * 32) for _ in range(200)]
        assert there == sorted(there, reverse=True)
        assert set(there) == {1, 2}
        assert await get(cache) is None
        assert await get(cache, OTHER) == b"+" * 32 * 200 + b"|"


async def test_a_mistake_in_what_goes_on_behind_it_is_outlived(
    store: Store, server: Memcached, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without epochs nothing is cached, and nobody would notice but by the load of the store."""
    jobs, read, faults = Jobs(SystemClock()), Epochs.read, list[Exception]()

    async def read_or_fail(epochs: Epochs) -> None:
        if faults:
            raise faults.pop()
        await read(epochs)

    monkeypatch.setattr(Epochs, "read", read_or_fail)
    made = MemcachedCache([server.address], store, SystemClock(), timeout=2.0, period=PERIOD, run=jobs.run)
    async with made as cache:
        faults.append(RuntimeError("a mistake"))
        async with asyncio.timeout(20):
            while not any(each.value for each in jobs.readings() if each.name == "job_restarts_total"):
                await asyncio.sleep(0.01)
            await cache.delete([KEY])
            while not (await cache.add_many([KEY], b"x" * 40, 60))[0]:
                await asyncio.sleep(0.01)
        assert jobs.down() == []
