"""One session with a Cassandra ring: prepared statements, bounds on time and number, and errors of the domain."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import acsylla
from acsylla.errors import (
    CassErrorLibNoHostsAvailable,
    CassErrorLibUnableToSetKeyspace,
    CassErrorServerInvalidQuery,
    CassErrorServerSyntaxError,
    CassErrorServerUnauthorized,
    CassErrorServerUnavailable,
    CassException,
)

from rookery.domain.errors import Conflict, Malformed, Unavailable
from rookery.domain.tallies import Reading, Tally
from rookery.ports.clock import Clock

T = TypeVar("T")

_log = logging.getLogger(__name__)

Row = tuple[Any, ...]
Change = tuple[str, Sequence[object]]
"""A statement of CQL and the values for its question marks."""

IN_FLIGHT = 64
"""Statements of one call that are under way together."""
AHEAD_MICROS = 1_000_000
"""By how much what must win over another machine's write is dated ahead: more than their clocks may differ."""
_CONNECT_SECONDS = 5.0
# A request that the first node does not answer is sent to the next one as well: that is what hides a dead node until
# the ring has noticed. It costs a second request where answers take longer than this.
_SPECULATE_MILLIS = 60
_SPECULATIVE = 2
_QUEUE = 32_768
_RECONNECT_MILLIS = 500
_HEARTBEAT_SECONDS = 2
# The chain of the certificate (1) and the node's address in it (2). acsylla takes anything with a value, and its own
# word for the second means the first alone.
_VERIFIED = SimpleNamespace(value=1 | 2)
_ATTEMPTS = 2
"""How often what only one node is asked for can be tried within the bound, when that one does not answer."""
_MISTAKES = (CassErrorServerInvalidQuery, CassErrorServerSyntaxError)
"""What only a mistake of ours can bring about."""
_REFUSED = (CassErrorServerUnavailable, CassErrorServerUnauthorized, CassErrorLibNoHostsAvailable, RuntimeError)
"""What surely changed nothing: too few nodes, no right to it, none to ask, a closed session."""
_TOLD_SECONDS = 10.0
"""How often at most the log tells of failures of one kind."""
ABOVE_ALL = b"\xff" * 17
"""Above every id."""
_LONG_SECONDS = 30.0
_BACK_OFF_SECONDS = 0.004
_LONGEST_BACK_OFF_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Access:
    """Where a ring is and how to get in. Paths are of PEM files; `authority` turns TLS on and says whom to believe."""

    servers: Sequence[str]
    """`host:port` each, all of one port: the nodes to ask first for the others."""
    datacenter: str = ""
    """The one whose nodes are asked; "" where there is one only."""
    user: str = ""
    password: str = field(default="", repr=False)
    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class Session:
    """Runs statements at LOCAL_QUORUM. Each method raises `Unavailable` (`store_unavailable`).

    `timeout` (seconds) bounds one statement; `within` bounds several.
    """

    def __init__(self, driver: acsylla.Session, clock: Clock, timeout: float) -> None:
        self._driver = driver
        self._clock = clock
        self._timeout = timeout
        self._prepared: dict[str, acsylla.PreparedStatement] = {}
        self._stamp = 0
        self._closed = False
        self._failures: Tally[str] = Tally()
        self._told: dict[type[BaseException], float] = {}
        """When the log was last told of a kind of failure."""

    def readings(self) -> Iterable[Reading]:
        """How its connections are, and what failed."""
        if not self._closed:
            found = self._driver.metrics()
            yield Reading("cassandra_connections", "Connections to all nodes.", found.stats_total_connections)
            late = found.errors_request_timeouts
            yield Reading("cassandra_timeouts_total", "Requests that no node answered in the driver's time.", late)
        for kind, many in self._failures.items():
            yield Reading("cassandra_failures_total", "Statements that failed, by how.", many, {"kind": kind})

    # --- time --------------------------------------------------------------------------------------------------------

    def stamp(self, after: int | None = None) -> int:
        """A timestamp for writes: microseconds since 1970, each greater than the one before and than `after`.

        Whoever changes what was written gives that write's own timestamp: so the later one wins also where the clocks
        of two machines differ.
        """
        self._stamp = max(self._clock.now() * 1000, self._stamp + 1)
        return max(self._stamp, (after or 0) + 1)  # not kept: another's wrong clock must not become ours

    @asynccontextmanager
    async def within(self, seconds: float | None = None) -> AsyncIterator[None]:
        """What is done inside takes no longer than one statement may, or so many seconds, all together."""
        try:
            async with asyncio.timeout(seconds or self._timeout):
                yield
        except TimeoutError as error:
            raise self._failed(error) from error

    async def back_off(self, turn: int) -> None:
        """Wait a little, at random and longer each turn, before trying again what others try as well."""
        most = min(_BACK_OFF_SECONDS * 2 ** min(turn, 10), _LONGEST_BACK_OFF_SECONDS)
        await asyncio.sleep(most * int.from_bytes(self._clock.random(2), "big") / 65_536)

    # --- statements --------------------------------------------------------------------------------------------------

    async def read(self, cql: str, *values: object, serial: bool = False, long: bool = False) -> list[Row]:
        """The rows of a SELECT. `serial` settles what is being decided; `long` allows for counting many rows."""
        seconds = _LONG_SECONDS if long else self._timeout
        async with self.within(seconds):
            statement = await self._bind(cql, values)
            statement.set_is_idempotent(not long)  # counting takes its time, and twice is twice the work
            if serial:
                statement.set_consistency(acsylla.Consistency.LOCAL_SERIAL)
            if long:
                statement.set_timeout(seconds)
            return _rows(await self._run(self._driver.execute(statement)))

    async def page(self, cql: str, position: bytes, limit: int) -> tuple[list[Row], bytes | None]:
        """Some of the rows of a SELECT over all partitions, and the position behind them; None at the end."""
        async with self.within():
            statement = await self._bind(cql, ())
            statement.set_is_idempotent(True)
            statement.set_page_size(limit)
            if position:
                statement.set_page_state(position)
            result = await self._run(self._driver.execute(statement))
        return _rows(result), result.page_state() if result.has_more_pages() else None

    async def write(self, cql: str, *values: object, stamp: int) -> None:
        """Write with a timestamp of its own, so that doing it twice is doing it once."""
        async with self.within():
            statement = await self._bind(cql, values)
            statement.set_is_idempotent(True)
            statement.set_timestamp(stamp)
            await self._run(self._driver.execute(statement))

    async def decide(self, *changes: Change) -> bool | None:
        """Make changes of one partition if their conditions hold (a lightweight transaction).

        False when they do not hold; None when nobody knows: then what became of it is to be read with `serial`.
        """
        seconds = self._timeout / _ATTEMPTS
        statements = [await self._bind(cql, values) for cql, values in changes]
        if len(statements) == 1:
            statements[0].set_timeout(seconds)
            asked = self._driver.execute(statements[0])
        else:
            batch = acsylla.create_batch_unlogged(timeout=seconds)
            batch.set_consistency(acsylla.Consistency.LOCAL_QUORUM)
            batch.set_serial_consistency(acsylla.Consistency.LOCAL_SERIAL)
            for statement in statements:
                batch.add_statement(statement)
            asked = self._driver.execute_batch(batch)
        try:
            async with asyncio.timeout(seconds):
                result = await asked
        except _MISTAKES:
            raise
        except _REFUSED as error:
            raise self._failed(error) from error
        except (CassException, TimeoutError) as error:
            self._failed(error)
            return None
        return bool(result.first().column_value_by_index(0))

    async def set_once(self, change: Change, query: Change) -> bool:
        """Set a flag that `query` reads, if it is not set; whether it was us. Of many at once one gets True."""
        turn = 0
        while (applied := await self.decide(change)) is None:
            await self.back_off(turn)
            turn += 1
            cql, values = query
            if (rows := await self.read(cql, *values, serial=True)) and rows[0][0]:
                return True  # nobody can say whose it was; that it is done is what matters
        return applied

    async def change(self, cql: str) -> None:
        """Change the schema, and wait until all nodes agree on it."""
        async with self.within():
            await self._run(self._driver.execute(acsylla.create_statement(cql)))

    async def each(self, tasks: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
        """The results of many, `IN_FLIGHT` at a time under way, in the order given."""
        if len(tasks) == 1:
            return [await tasks[0]()]
        results: dict[int, T] = {}
        waiting = iter(enumerate(tasks))

        async def work() -> None:
            for at, task in waiting:
                results[at] = await task()

        workers = [asyncio.create_task(work()) for _ in range(min(IN_FLIGHT, len(tasks)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return [results[at] for at in range(len(tasks))]

    async def close(self) -> None:
        """Let go of all connections."""
        if not self._closed:
            self._closed = True
            await self._driver.close()

    async def _bind(self, cql: str, values: Sequence[object]) -> acsylla.Statement:
        for attempt in range(_ATTEMPTS):  # the node that is asked first may be one that died a moment ago
            if cql in self._prepared:
                break
            try:
                async with self.within(self._timeout / _ATTEMPTS):
                    self._prepared[cql] = await self._run(self._driver.create_prepared(cql))
            except Unavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
        return self._prepared[cql].bind(list(values))

    async def _run(self, asked: Awaitable[T]) -> T:
        """Wait for an answer, `within` a bound of ours, as the driver's own does not hold in every case."""
        try:
            return await asked
        except _MISTAKES:
            raise
        except (CassException, RuntimeError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> Unavailable:
        """What is told of a failure; its cause goes to the log, now and then."""
        now, kind = self._clock.monotonic(), type(error)
        self._failures.add(kind.__name__)
        if not self._closed and now - self._told.get(kind, float("-inf")) >= _TOLD_SECONDS:
            self._told[kind] = now
            _log.warning("Cassandra: %s: %s", kind.__name__, str(error) or "no answer in time")
        return unavailable(error)


async def connect(access: Access, clock: Clock, *, keyspace: str | None, seconds: float) -> Session:
    """Open a session with a ring, in a keyspace of it or, to make one, in none. A write takes so many seconds at most.

    Raises:
        Unavailable: `store_unavailable`.
        Conflict: `schema_missing`, `datacenter_missing`.
    """
    hosts, ports = zip(*(server.rsplit(":", 1) for server in access.servers), strict=True)
    cluster = acsylla.create_cluster(
        [host.strip("[]") for host in hosts],
        port=int(ports[0]),
        username=access.user or None,
        password=access.password or None,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=seconds,
        consistency=acsylla.Consistency.LOCAL_QUORUM,
        serial_consistency=acsylla.Consistency.LOCAL_SERIAL,
        queue_size_io=_QUEUE,
        constant_reconnect_delay_ms=_RECONNECT_MILLIS,
        heartbeat_interval_sec=_HEARTBEAT_SECONDS,
        idle_timeout_sec=2 * _HEARTBEAT_SECONDS,
        speculative_execution_policy=acsylla.SpeculativeExecutionPolicy(_SPECULATE_MILLIS, _SPECULATIVE),
        ssl_enabled=access.authority is not None,
        ssl_trusted_cert=_pem(access.authority),
        ssl_cert=_pem(access.certificate),
        ssl_private_key=_pem(access.key),
        ssl_verify_flags=_VERIFIED,
        load_balance_dc_aware=access.datacenter or None,
        prepare_on_all_hosts=False,  # it would wait for one that died a moment ago
        log_level="disabled",  # what it has to say of nodes that come and go it says to stderr
        application_name="rookery",
    )
    try:
        async with asyncio.timeout(2 * _CONNECT_SECONDS):
            driver = await cluster.create_session(keyspace)
    except CassErrorLibUnableToSetKeyspace as error:
        raise Conflict(
            "schema_missing", f"Cassandra has no keyspace {keyspace}: make it with rookery schema apply."
        ) from error
    except (CassException, TimeoutError) as error:
        raise unavailable(error) from error
    session = Session(driver, clock, seconds)
    try:
        await _require_datacenter(session, access)
    except BaseException:
        await session.close()
        raise
    return session


async def _require_datacenter(session: Session, access: Access) -> None:
    """Refuse to guess. What is decided is decided within one datacenter, so all must ask the same."""
    rows = await session.read("SELECT data_center FROM system.local")
    rows += await session.read("SELECT data_center FROM system.peers_v2")
    known = {datacenter for (datacenter,) in rows if datacenter}  # of a node that joins it may not be known yet
    if access.datacenter not in known and (access.datacenter or len(known) > 1):
        raise Conflict(
            "datacenter_missing",
            f"Name one datacenter in store.datacenter, the same for all servers: {', '.join(sorted(known))}.",
        )


def unavailable(error: BaseException | None = None) -> Unavailable:
    """The one answer when the ring can't be read or written."""
    made = Unavailable("store_unavailable", "The store can't be read or written now.")
    made.__cause__ = error
    return made


def _pem(path: Path | None) -> str | None:
    try:
        return path.read_text() if path else None
    except OSError as error:
        reason = (error.strerror or "not readable").lower()
        raise Malformed("unreadable_file", f"{path}: {reason}") from error


def _rows(result: acsylla.Result) -> list[Row]:
    return [row.as_tuple() for row in result.all()]
