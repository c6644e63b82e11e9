"""The in-process cache holds what it says it holds: a resident timeline costs the bytes that it is reckoned with.

Growth of a process's resident memory, each case in a fresh process. First as the services make timelines: owners read
their feeds (100 entries), then more is delivered and read again (400). Then the cache alone, for the two numbers that
`adapters/memory/cache.py` reckons with.
"""

import subprocess
import sys

import msgspec

from bench.measuring import ROOT, Plan, Table
from bench.resident import Measured
from rookery.adapters.memory.cache import ITEM_BYTES, PART_BYTES

SMALL, LARGE = 300, 3_232
"""A tweet's fragment, and a timeline of a hundred entries with its footer."""
PARTS = 40


def run(plan: Plan) -> list[Table]:
    count = plan.pick(20_000, 2_000)
    owners = [_measure("owners", count, entries, plan) for entries in (100, 400)]
    rows = [
        [f"{each.size}", f"{each.count:,}", f"{each.grown / each.count:,.0f}", f"{each.reckoned / each.count:,.0f}"]
        for each in owners
    ]
    services = Table(
        "An owner's timeline, exceptions and name in the cache, bytes",
        ["entries", "owners", "measured", "reckoned by the cache"],
        rows,
    )
    many = plan.pick(100_000, 20_000)
    small, large = (_measure("items", each, value, plan) for each, value in ((many, SMALL), (count, LARGE)))
    together, apart = (_measure(kind, count, PARTS, plan) for kind in ("shared", "own"))
    rows = [
        [f"an item, beside its key and a value of {SMALL} bytes", f"{small.grown / many:,.0f}", f"{ITEM_BYTES}"],
        [f"an item, beside its key and a value of {LARGE:,} bytes", f"{large.grown / count:,.0f}", f"{ITEM_BYTES}"],
        ["a part beside its bytes, its tweet in every timeline", f"{_part(together):,.0f}", f"{PART_BYTES}"],
        ["a part beside its bytes, its tweet in this timeline alone", f"{_part(apart):,.0f}", f"{PART_BYTES}"],
    ]
    return [services, Table("What the cache reckons with, bytes", ["what", "measured", "reckoned"], rows)]


def _part(found: Measured) -> float:
    return found.grown / (found.count * found.size)


def _measure(kind: str, count: int, entries: int, plan: Plan) -> Measured:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench.resident",
            kind,
            str(count),
            str(entries),
            str(plan.scratch / f"{kind}{entries}"),
        ],
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
        cwd=ROOT,
    )
    return msgspec.json.decode(done.stdout, type=Measured)
