"""Through memcached a fan-out brings 250,000 tweets a second and API core to timelines, the followers' list included.

CPU of the API process alone; memcached has its own. A multi-get of ten is told beside.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from bench.deliveries import table_of
from bench.inside import Inside
from bench.measuring import Plan, Table, cpu_median, in_turns, micros, spread
from rookery.ports.cache import Cache
from tools.servers import Memcached

T = TypeVar("T")

TARGET = 250_000
GETS = 2_000
KEYS = [b"tw:" + bytes([number]) * 16 for number in range(10)]


class Shared(Inside):
    """Its event loop stands still between measurements, and before each it reads the epochs again, as a server does."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        super().run(asyncio.sleep(0.01))
        return super().run(work)


def run(plan: Plan) -> list[Table]:
    with Memcached(plan.scratch / "memcached", megabytes=1_024) as server:
        shared = Shared(plan.scratch, cache="memcached", cache_servers=(server.address,), pull_threshold="off")
        with shared as inside:
            inside.run(asyncio.sleep(1.5))  # a server that has just been met is used after a second
            return [table_of(plan, inside, TARGET), _gets(plan, inside)]


def _gets(plan: Plan, inside: Inside) -> Table:
    cache = inside.rookery.backends.cache
    inside.run(cache.add_many(KEYS, bytes(300), 3_600))
    found = in_turns(plan.pick(9, 3), {"gets": lambda: inside.cost_of(_read(cache))})["gets"]
    row = ["10 values of 300 bytes", micros(cpu_median(found) / GETS), spread([each.cpu for each in found])]
    return Table("A multi-get, one after the other", ["what", "CPU", "quartiles"], [row])


async def _read(cache: Cache) -> None:
    for _ in range(GETS):
        values = await cache.get_many(KEYS, touch=3_600)
        assert None not in values
