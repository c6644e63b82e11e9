"""The Cassandra store's own cost beside the bare driver's: client CPU of an operation, 64 in flight; queries counted.

The node runs on the same machine; its CPU is not counted.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bench.inside import Inside, texts
from bench.measuring import Cost, Operation, Plan, Table, cpu_median, in_turns, many, micros, spread
from rookery.adapters.cassandra import CassandraStore
from rookery.config import Settings
from rookery.domain.ids import TweetId
from rookery.domain.tweets import TweetRecord
from rookery.wiring import apply_schema
from tools.servers import Cassandra, Memcached

FOLLOWEES = 200
READ = 10


def run(plan: Plan) -> list[Table]:
    with Cassandra(plan.scratch / "cassandra") as node, Memcached(plan.scratch / "memcached") as shared:
        settings: dict[str, Any] = {
            "store": "cassandra",
            "store_servers": (node.address,),
            "store_keyspace": f"bench_{uuid.uuid4().hex[:8]}",
            "store_replication": "1",
        }
        asyncio.run(apply_schema(Settings(data=plan.scratch, **settings)))
        cache: dict[str, Any] = {"cache": "memcached", "cache_servers": (shared.address,), "pull_threshold": "off"}
        with Inside(plan.scratch, **settings, **cache) as inside:
            return [_operations(plan, inside), _warm_reads(plan, inside)]


def _operations(plan: Plan, inside: Inside) -> Table:
    store = inside.rookery.backends.store
    assert isinstance(store, CassandraStore)
    driver, clock = store._session._driver, inside.rookery.backends.clock
    (ada,) = inside.people("writer", 1)
    stored = inside.stored(ada, READ)
    count = plan.pick(4_000, 500)
    read_row = inside.run(driver.create_prepared("SELECT * FROM tweet_by_id WHERE id = ?"))
    read_tail = inside.run(
        driver.create_prepared("SELECT id FROM tweet_by_author WHERE author = ? AND id < ? LIMIT 10")
    )
    write_row = inside.run(driver.create_prepared("INSERT INTO meta (name, value) VALUES (?, ?)"))

    async def bare(prepared: Any, values: Sequence[object]) -> None:
        statement = prepared.bind(list(values))
        statement.set_is_idempotent(True)
        [row.as_tuple() for row in (await driver.execute(statement)).all()]

    def new_tweet() -> TweetRecord:
        return TweetRecord(clock.new_tweet_id(), ada.id, "", "The rooks came back to the elms this morning.")

    top = TweetId(b"\xff" * 16)
    operations: dict[str, tuple[int, Operation]] = {
        "bare driver: read a row": (1, lambda: bare(read_row, [stored[0]])),
        "store: read a tweet": (1, lambda: store.tweets([stored[0]])),
        "store: read ten tweets": (10, lambda: store.tweets(stored)),
        "bare driver: read ten rows of a partition": (1, lambda: bare(read_tail, [ada.id, top])),
        "store: read a tail of ten": (1, lambda: store.tails([(ada.id, None)], 10)),
        "bare driver: write a row": (1, lambda: bare(write_row, ["bench", b"x"])),
        "store: add a tweet": (5, lambda: store.add_tweet(new_tweet(), 1_000)),
    }

    def side(operation: Operation) -> Callable[[], Cost]:
        return lambda: inside.cost_of(many(operation, count))

    found = in_turns(plan.pick(7, 3), {name: side(operation) for name, (_, operation) in operations.items()})
    rows = [
        [name, micros(cpu_median(costs) / count), str(operations[name][0]), spread([cost.cpu for cost in costs])]
        for name, costs in found.items()
    ]
    return Table("Operations", ["what", "client CPU", "statements", "quartiles"], rows)


class _Counting:
    """A function, and how often it was called."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self._call = call
        self.calls = 0

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return await self._call(*arguments, **options)


def _warm_reads(plan: Plan, inside: Inside) -> Table:
    """A page of ten by a reader whose timeline is resident: what is asked of cache and store, counted at both."""
    reader, *authors = inside.people("reader", FOLLOWEES + 1)
    inside.follow((reader, author) for author in authors)
    inside.tweets(authors, texts(FOLLOWEES))
    inside.run(asyncio.sleep(1.5))
    store, cache = inside.rookery.backends.store, inside.rookery.backends.cache
    assert isinstance(store, CassandraStore)
    queries, gets = _Counting(store._session.read), _Counting(cache.get_many)
    store._session.read, cache.get_many = queries, gets  # type: ignore[method-assign]
    reads = plan.pick(1_000, 100)

    async def read() -> None:
        for _ in range(reads):
            await inside.rookery.services.feeds.home(reader.id, READ, None)

    inside.run(inside.read_feeds([reader.id] * 3))
    queries.calls = gets.calls = 0
    cost = inside.cost_of(read())
    row = [f"{reads:,}", f"{gets.calls / reads:.2f}", f"{queries.calls / reads:.3f}", micros(cost.cpu / reads)]
    return Table(
        "Warm feeds of ten (target: at most 3 round trips and 0.05 store queries)",
        ["reads", "multi-gets", "store queries", "client CPU"],
        [row],
    )
