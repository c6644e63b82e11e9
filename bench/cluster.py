"""Feeds and posts on a cluster, by one API process and by two: what a request costs the API, and how many there are.

Cassandra (one node), memcached and Redis run on the same machine, and so does the client: what a second process brings
is bounded by the cores that are left. One post to twenty feeds of ten by readers in turn, over 32 connections.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, cycle, islice
from time import perf_counter
from typing import Any

import msgspec

from bench.inside import Inside, Person, texts
from bench.measuring import Cost, Plan, Table, cpu_median, cpu_of, in_turns, micros, spread, wall_median
from bench.outside import Clients, Server, get, post, rookery
from rookery.config import Settings
from rookery.wiring import apply_schema
from tools.servers import Cassandra, Memcached, Redis

READERS = 50
AUTHORS = 200
FEEDS_PER_POST = 20


def run(plan: Plan) -> list[Table]:
    with ExitStack() as stack:
        settings: dict[str, Any] = {
            "store": "cassandra",
            "store_servers": (stack.enter_context(Cassandra(plan.scratch / "cassandra")).address,),
            "store_keyspace": f"bench_{uuid.uuid4().hex[:8]}",
            "store_replication": "1",
            "cache": "memcached",
            "cache_servers": (stack.enter_context(Memcached(plan.scratch / "memcached")).address,),
            "ranking": "redis",
            "ranking_servers": (stack.enter_context(Redis(plan.scratch / "redis")).address,),
        }
        asyncio.run(apply_schema(Settings(data=plan.scratch, **settings)))
        readers, authors = _set_up(plan, settings)
        flags = [
            part
            for name, value in settings.items()
            for part in (f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, tuple) else value)
        ]
        servers = []
        for name in ("one", "two"):
            (plan.scratch / name).mkdir()
            servers.append(stack.enter_context(rookery(plan.scratch / name, *flags)))
        requests, asked = plan.pick(4_200, 840), _requests(readers, authors)
        turns = {many: _turn(some, asked, requests) for many, some in (("1", servers[:1]), ("2", servers))}
        found = in_turns(plan.pick(11, 3), turns)
    rows = [
        [
            many,
            f"{requests / wall_median(costs):,.0f}",
            f"{wall_median(found['1']) / wall_median(costs):.2f}",
            micros(cpu_median(costs) / requests),
            spread([cost.cpu for cost in costs]),
        ]
        for many, costs in found.items()
    ]
    head = ["API processes", "requests/s", "ratio", "CPU of the API per request", "quartiles"]
    return [Table("The same requests by one process and by two", head, rows)]


def _set_up(plan: Plan, settings: dict[str, Any]) -> tuple[list[Person], list[Person]]:
    with Inside(plan.scratch, **settings) as inside:
        authors, readers = inside.people("author", AUTHORS), inside.people("reader", READERS)
        inside.follow((reader, author) for reader in readers for author in authors)
        inside.tweets(authors, texts(AUTHORS))
    return readers, authors


def _requests(readers: list[Person], authors: list[Person]) -> Iterator[bytes]:
    feeds = (get(f"/api/v1/feed/{reader.text_id}?limit=10", reader.token) for reader in cycle(readers))
    for number, author in zip(count(), cycle(authors)):
        body = msgspec.json.encode({"body": f"Tweet {number}, while others read."})
        yield post(f"/api/v1/tweet/{author.text_id}", author.token, body)
        yield from islice(feeds, FEEDS_PER_POST)


def _turn(servers: list[Server], asked: Iterator[bytes], requests: int) -> Callable[[], Cost]:
    def measure() -> Cost:
        cpu, wall = sum(cpu_of(server.pid) for server in servers), perf_counter()
        with Clients([server.port for server in servers]) as clients:  # idle ones would be closed in the other's turn
            clients.run(islice(asked, requests))
        return Cost(sum(cpu_of(server.pid) for server in servers) - cpu, perf_counter() - wall)

    return measure
