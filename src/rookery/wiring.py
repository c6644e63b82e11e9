"""The only place that joins ports to adapters."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rookery import __version__
from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import (
    Database,
    ServerLock,
    SqliteRanking,
    SqliteStore,
    all_fresh_beside,
    place_of,
    put_in_place,
    require_in_one_piece,
)
from rookery.adapters.sqlite import schema_of as schema_of_file
from rookery.adapters.system import SystemClock, steps
from rookery.config import IN_PROCESS_CACHES, ConfigError, Settings
from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Metered
from rookery.ports.cache import Cache
from rookery.ports.clock import Clock
from rookery.ports.ranking import Ranking
from rookery.ports.steps import Steps, unwatched
from rookery.ports.store import Store
from rookery.ports.tracer import UNTRACED, Tracer
from rookery.services.accounts import Accounts, Rules
from rookery.services.chores import Chores
from rookery.services.counting import Counting
from rookery.services.fanout import Fanout
from rookery.services.feeds import Feeds
from rookery.services.filling import Filler
from rookery.services.follows import Follows
from rookery.services.hashing import HashingQueue
from rookery.services.health import Health
from rookery.services.jobs import Jobs
from rookery.services.promises import Promises
from rookery.services.pulling import Pulls
from rookery.services.showing import Showing
from rookery.services.sweeping import Sweeping
from rookery.services.telling import Telling
from rookery.services.timekeeping import Timekeeping
from rookery.services.top import Top
from rookery.services.tweets import Tweets
from rookery.services.unfinished import require_finished
from rookery.services.watching import Watch
from rookery.web.counters import Counters
from rookery.web.options import RateLimits, Services, WebOptions

if TYPE_CHECKING:
    from litestar.types import ASGIApp

    from rookery.adapters.cassandra import Access
    from rookery.adapters.redis import Access as RedisAccess
    from rookery.adapters.redis import RedisStore

DATABASE = "rookery.db"
_VOUCHED_SECONDS = 1.0
"""How long a server's start waits until the counts of a ranking elsewhere are known to be right."""


@dataclass(frozen=True, slots=True)
class Backends:
    """The adapters that the settings chose, behind their ports."""

    store: Store
    cache: Cache
    ranking: Ranking
    clock: Clock
    apart: bool = False
    """Whether cache or ranking outlive the process or lie apart from the store, so that work for them is promised."""
    forgets: bool = False
    """Whether the ranking may forget the last that it was told."""
    parts: Sequence[object] = ()
    """All that may have numbers to show."""
    reached: Steps = unwatched
    """Is told of the steps of works that must survive a process that is killed at them."""
    jobs: Jobs | None = None
    """Runs what the adapters do in the background, if any do."""


@dataclass(frozen=True, slots=True)
class Rookery:
    """Everything joined: what people do, and what goes on behind it."""

    services: Services
    chores: Chores
    fanout: Fanout
    promises: Promises
    jobs: Jobs
    backends: Backends
    parts: Sequence[Metered]
    """Those that have numbers to show."""


class Sharing(Enum):
    """Who else may have the database file open."""

    ANYONE = "anyone"
    SERVERS = "servers"
    """Other servers, if they share the cache; and who works beside servers."""
    NO_SERVER = "no server"
    """Only who works beside servers."""


@asynccontextmanager
async def open_backends(
    settings: Settings, sharing: Sharing, *, filling: bool = False, file: Path | None = None
) -> AsyncIterator[Backends]:
    """Open the stores that the settings name.

    `filling` admits a store into which a restore or copy has not ended. `file` is a database to open in place of the
    data folder's own, whose lock is taken all the same.

    Raises:
        Failure: when one can't be opened; without `filling` also `store_unfinished`.
    """
    async with AsyncExitStack() as stack:
        clock, reached = SystemClock(), steps(os.environ)
        path = settings.data / DATABASE
        in_process = settings.cache in IN_PROCESS_CACHES
        in_file = (settings.store == "sqlite", settings.ranking == "sqlite")
        shared = sharing is Sharing.ANYONE or (sharing is Sharing.SERVERS and not in_process)
        if sharing is not Sharing.ANYONE and (in_process or any(in_file)):
            with _naming(path):
                stack.enter_context(ServerLock(path, shared=shared))

        @cache
        def database() -> Database:
            with _naming(path):
                if file is None:
                    require_in_one_piece(path)
                opened = Database(
                    file or path, migrates=not shared, is_bounded=sharing is Sharing.SERVERS, reached=reached
                )
            stack.push_async_callback(opened.close)
            return opened

        store: Store
        if settings.store == "cassandra":
            store = await _open_cassandra(settings, sharing, clock, stack)
        elif settings.store == "redis":
            store = await _open_redis(settings, sharing, clock, stack)
        else:
            store = SqliteStore(database(), counts=all(in_file))
        if not filling:
            await require_finished(store)
        jobs = Jobs(clock)
        keeper = await _open_cache(settings, store, clock, jobs, stack)
        if in_process and any(in_file):
            _drop_after_late_writes(database(), keeper, stack)
        ranking = SqliteRanking(database()) if in_file[1] else _open_ranking(settings, sharing, clock, stack)
        yield Backends(
            store,
            keeper,
            ranking,
            clock,
            apart=not (in_process and all(in_file)),
            forgets=not in_file[1],
            parts=(store, keeper, ranking, *([database()] if any(in_file) else [])),
            reached=reached,
            jobs=jobs,
        )


def _drop_after_late_writes(database: Database, cache: Cache, stack: AsyncExitStack) -> None:
    """Have a cache in the process forget all when a refused write takes effect: nobody else brings it there."""
    clearing: set[asyncio.Task[None]] = set()

    def drop() -> None:
        task = asyncio.get_running_loop().create_task(cache.clear())
        clearing.add(task)
        task.add_done_callback(clearing.discard)

    async def finish() -> None:
        await asyncio.gather(*clearing)

    stack.push_async_callback(finish)
    database.when_late(drop)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whoever starts a server may know the path of its file, and needs it."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(error.code, f"Can't open {path}: {error.__cause__}") from error


def cassandra_access(settings: Settings) -> "Access":
    """Where the ring is and how to get in."""
    from rookery.adapters.cassandra import Access

    return Access(
        settings.effective_store_servers,
        settings.store_datacenter,
        settings.store_user,
        settings.store_password,
        _path(settings.store_tls_authority),
        _path(settings.store_tls_certificate),
        _path(settings.store_tls_key),
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None


async def apply_schema(settings: Settings) -> tuple[int, int]:
    """Make the tables of a Cassandra ring, or bring them up to this program; the schema before, 0 for none, and now.

    Raises:
        Failure: when it can't be done.
    """
    from rookery.adapters.cassandra import apply_schema

    access = cassandra_access(settings)
    return await apply_schema(access, SystemClock(), settings.store_keyspace, settings.store_replication)


async def schemas_of(settings: Settings) -> Mapping[str, tuple[int, int]]:
    """For the store, and for a ranking in a file of its own: its schema, 0 where there is none, and the one needed.

    Raises:
        Failure: when it can't be seen, or is a later program's.
    """
    found: dict[str, tuple[int, int]] = {}
    if settings.store == "cassandra":
        from rookery.adapters.cassandra import found_schema

        found["store"] = await found_schema(cassandra_access(settings), SystemClock(), settings.store_keyspace)
    elif settings.store == "redis":
        async with AsyncExitStack() as stack:
            found["store"] = await _redis_store(settings, Sharing.ANYONE, SystemClock(), stack).schema()
    if "sqlite" in (settings.store, settings.ranking):
        path = settings.data / DATABASE
        with _naming(path):
            found["store" if settings.store == "sqlite" else "ranking"] = await asyncio.to_thread(schema_of_file, path)
    return found


async def migrate(settings: Settings) -> Path | None:
    """Bring all tables up to this program; where the SQLite file is kept as it was. Its servers must be stopped.

    Raises:
        Failure: when it can't be done.
    """
    if settings.store == "cassandra":
        found, needed = (await schemas_of(settings))["store"]
        if found != needed:
            await apply_schema(settings)
    async with open_backends(settings, Sharing.NO_SERVER, filling=True) as backends:
        return next((part.kept for part in backends.parts if isinstance(part, Database)), None)


async def _open_cassandra(settings: Settings, sharing: Sharing, clock: Clock, stack: AsyncExitStack) -> Store:
    from rookery.adapters.cassandra import CassandraStore, check_schema, connect

    access = cassandra_access(settings)
    session = await connect(access, clock, keyspace=settings.store_keyspace, seconds=_seconds(sharing))
    store = CassandraStore(session, clock)
    stack.push_async_callback(store.close)
    await check_schema(session)
    return store


def _seconds(sharing: Sharing) -> float:
    """How long the store may take.

    Who asked a server is told within a second that it can't be done. A command rather waits, but not as long as it
    takes until its promises are overdue: what others have finished by then must not be decided after that.
    """
    return 0.9 if sharing is Sharing.SERVERS else 5.0


async def _open_redis(settings: Settings, sharing: Sharing, clock: Clock, stack: AsyncExitStack) -> Store:
    store = _redis_store(settings, sharing, clock, stack)
    await store.open()
    return store


def _redis_store(settings: Settings, sharing: Sharing, clock: Clock, stack: AsyncExitStack) -> "RedisStore":
    from rookery.adapters.redis import RedisStore

    access = _redis_access(settings, "store", settings.effective_store_servers)
    store = RedisStore(
        replace(access, alone=settings.store_alone == "on"),
        clock,
        prefix=settings.store_keyspace,
        seconds=_seconds(sharing),
    )
    stack.push_async_callback(store.close)
    return store


def _redis_access(settings: Settings, part: Literal["store", "ranking"], servers: Sequence[str]) -> "RedisAccess":
    from rookery.adapters.redis import Access

    def text(name: str) -> str:
        value: str = getattr(settings, f"{part}_{name}")
        return value

    authority, certificate, key = (_path(text(f"tls_{name}")) for name in ("authority", "certificate", "key"))
    return Access(servers, text("user"), text("password"), authority, certificate, key)


def place_beside(settings: Settings, which: bytes, *, force: bool) -> Path | None:
    """Where a restore shall make the database that takes the place of the one in the data folder at its end.

    None where it fills the one in the folder, or is refused by what that holds. `which` tells it from other restores.
    """
    return place_of(settings.data / DATABASE, which, force=force)


def put_database_in_place(settings: Settings, fresh: Path) -> Path | None:
    """Let a database that is whole take the place of the one in the data folder; the new name of that one.

    Raises:
        Failure: when a server or a command has it open.
    """
    path = settings.data / DATABASE
    with _naming(path), ServerLock(path, shared=False):
        return put_in_place(path, fresh, SystemClock().now(), steps(os.environ))


def unfinished_beside(settings: Settings) -> Sequence[Path]:
    """What restores that did not end, and changed nothing yet, left beside the database of the data folder."""
    return all_fresh_beside(settings.data / DATABASE) if settings.store == "sqlite" else ()


def _open_ranking(settings: Settings, sharing: Sharing, clock: Clock, stack: AsyncExitStack) -> Ranking:
    from rookery.adapters.redis import RedisRanking

    access = _redis_access(settings, "ranking", settings.ranking_servers)
    ranking = RedisRanking(
        access,
        clock,
        prefix=settings.ranking_keyspace,
        vouched=sharing is Sharing.SERVERS,  # commands show no counts, and have nobody who vouches
    )
    stack.push_async_callback(ranking.close)
    return ranking


async def _open_cache(settings: Settings, store: Store, clock: Clock, jobs: Jobs, stack: AsyncExitStack) -> Cache:
    if settings.cache == "memory":
        memory = MemoryCache(settings.cache_bytes, clock.monotonic)
        stack.push_async_callback(memory.close)
        return memory
    from rookery.adapters.memcached import MemcachedCache

    return await stack.enter_async_context(MemcachedCache(settings.cache_servers, store, clock, run=jobs.run))


def join(settings: Settings, backends: Backends, hasher: Argon2Hasher, tracer: Tracer = UNTRACED) -> Rookery:
    """Build the services on their ports."""
    store, cache, ranking, clock = backends.store, backends.cache, backends.ranking, backends.clock
    watches = Watch("store", tracer), Watch("ranking", tracer)
    store, ranking = watches[0].on(store), watches[1].on(ranking)
    filler = Filler(cache, clock)
    rules = Rules(
        open_mode=settings.auth == "open",
        registration_open=settings.registration == "open",
        reserved=frozenset(settings.reserved_names),
    )
    queue = HashingQueue(hasher, clock.monotonic)
    promises = Promises(store, clock, needed=backends.apart, noted=backends.forgets)
    accounts = Accounts(store, filler, clock, queue, promises, rules=rules, reached=backends.reached)
    showing = Showing(store, filler, ranking)
    top = Top(store, ranking, showing)
    fanout = Fanout(store, cache, clock, promises, settings.effective_pull_threshold)
    pulls, counting = Pulls(), Counting()
    sweeping = Sweeping(store, filler, clock, fanout, top, promises)
    jobs = backends.jobs or Jobs(clock)
    services = Services(
        accounts=accounts,
        follows=Follows(store, filler, clock, accounts, promises, settings.max_followees, backends.reached),
        tweets=Tweets(
            store,
            filler,
            clock,
            accounts,
            showing,
            fanout,
            top,
            promises,
            settings.max_chain,
            counting,
            backends.reached,
        ),
        feeds=Feeds(store, filler, showing, clock, pulls),
        top=top,
        health=Health(store, ranking, fanout, clock, jobs),
    )
    telling = Telling(store, clock, top, counting)
    chores = Chores(store, filler, clock, accounts, fanout, top, sweeping, telling, Timekeeping(store, clock))
    own: list[Metered] = [*watches, filler, pulls, fanout, sweeping, services.health, chores, jobs, queue]
    others = [part for part in backends.parts if isinstance(part, Metered)]
    return Rookery(services, chores, fanout, promises, jobs, backends, [*own, *others])


@asynccontextmanager
async def open_rookery(
    settings: Settings,
    sharing: Sharing,
    tracer: Tracer = UNTRACED,
    *,
    filling: bool = False,
    file: Path | None = None,
) -> AsyncIterator[Rookery]:
    """Open everything, without the background jobs; `filling` and `file` as `open_backends`."""
    async with open_backends(settings, sharing, filling=filling, file=file) as backends:
        hasher = Argon2Hasher()
        rookery = join(settings, backends, hasher, tracer)
        try:
            yield rookery
            await rookery.promises.flush()
        finally:
            hasher.close()


@dataclass(frozen=True, slots=True)
class Opened:
    """A server that runs: what answers requests, and what it answers them with."""

    app: "ASGIApp"
    rookery: Rookery
    parts: Sequence[Metered]


@asynccontextmanager
async def open_server(settings: Settings, counters: Counters | None = None) -> AsyncIterator[Opened]:
    """The web application with its background jobs running. Its limits are counted on `counters`, else on its own."""
    from rookery.web.app import create_app  # as long to import as all else together, and only for servers

    async with _open_tracer(settings) as tracer, open_rookery(settings, Sharing.SERVERS, tracer) as rookery:
        with suppress(TimeoutError):  # else nobody would see a count until the jobs vouch for the ranking
            async with asyncio.timeout(_VOUCHED_SECONDS):
                await rookery.chores.telling.tell_again()
        await rookery.chores.timekeeping.begin()
        running = asyncio.create_task(
            rookery.jobs.run(
                {
                    "fanout": rookery.fanout.run,
                    "chores": rookery.chores.run,
                    "promises": rookery.promises.run,
                    "health": rookery.services.health.watch,
                }
            ),
            name="jobs",
        )
        try:
            door = create_app(
                rookery.services, web_options(settings), rookery.backends.clock, tracer, counters=counters
            )
            yield Opened(door, rookery, [door, *rookery.parts])
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await rookery.fanout.drain()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            with suppress(Unavailable):
                await rookery.chores.timekeeping.note()


@asynccontextmanager
async def _open_tracer(settings: Settings) -> AsyncIterator[Tracer]:
    if not settings.traces_server:
        yield UNTRACED
        return
    try:
        from rookery.adapters.opentelemetry import OpenTelemetryTracer
    except ImportError as error:
        raise ConfigError(["traces.server: its packages are missing: install rookery[traces]"]) from error
    tracer = OpenTelemetryTracer(settings.traces_server, __version__)
    try:
        yield tracer
    finally:
        await asyncio.to_thread(tracer.close)


def web_options(settings: Settings) -> WebOptions:
    """What the web needs to know of the settings."""
    limits = RateLimits(settings.rate_limit_token, settings.rate_limit_address, settings.rate_limit_registrations)
    return WebOptions(
        open_mode=settings.auth == "open",
        public_reads=settings.reads == "public",
        rate_limits=limits if settings.rate_limit == "on" else None,
        cors_origins=frozenset(settings.cors_origins),
        allowed_hosts=frozenset(
            f"[{host}]" if ":" in host else host.lower().removesuffix(".")
            for host in (*settings.allowed_hosts, settings.host)
        ),
        trusted_proxies=tuple(settings.trusted_proxies),
    )
