"""Durable posts come at 0.3 of the pace of bare batched SQLite inserts at least, with 64 in flight.

Each post is on the disk (WAL, synchronous=FULL) before its answer. Bare: the same rows into the tweet table of the same
schema alone, with its index, by `executemany` in batches of 32, one transaction each, in one thread. Both in turns on
the same disk, in this process; then `POST /api/v1/tweet/{id}` of a server, 64 connections.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from time import time_ns

import msgspec

from bench.inside import Inside, Person, texts
from bench.measuring import (
    IN_FLIGHT,
    Cost,
    Plan,
    Table,
    cost_of,
    cpu_median,
    in_turns,
    micros,
    millis,
    spread,
    wall_median,
)
from bench.outside import Clients, post, rookery
from rookery.domain.ids import id_at
from rookery.wiring import DATABASE

BATCH = 32
AUTHORS = 64
TARGET = 0.3
BARE, SERVICE, HTTP = "bare inserts, batches of 32", "Tweets.post", "POST over HTTP"


def run(plan: Plan) -> list[Table]:
    count = plan.pick(4_000, 1_000)
    rounds = plan.pick(9, 3)
    disk = _file_system(plan.scratch)
    assert disk != "tmpfs", f"{plan.scratch} is in memory: nothing is durable there; set TMPDIR to a folder on a disk"
    with Inside(plan.scratch / "service") as inside:
        authors = inside.people("author", AUTHORS)
        work = list(zip(authors * (count // AUTHORS + 1), texts(count), strict=False))
        bare = _Bare(plan.scratch / "bare.db", plan.scratch / "service" / DATABASE)
        sides: dict[str, Callable[[], Cost]] = {
            BARE: lambda: cost_of(lambda: bare.insert(authors, texts(count))),
            SERVICE: lambda: inside.cost_of(inside.post_all(work)),
        }
        found = in_turns(rounds, sides)
        bare.close()
    found[HTTP] = _over_http(plan, authors, count, rounds)
    base, base_cpu = wall_median(found[BARE]), cpu_median(found[BARE])
    rows = [
        [
            name,
            f"{count / wall_median(costs):,.0f}",
            f"{base / wall_median(costs):.2f}",
            spread([cost.wall for cost in costs]),
            micros(cpu_median(costs) / count),
            f"{base_cpu / cpu_median(costs):.2f}",
        ]
        for name, costs in found.items()
    ]
    head = ["writer", "posts/s", "ratio", "quartiles", "CPU per post", "ratio by CPU"]
    title = f"Durable posts, {IN_FLIGHT} in flight, on {disk} (target: ratio of {TARGET})"
    note = f"A bare batch took {millis(base / count * BATCH)}, of which {millis(base_cpu / count * BATCH)} are CPU."
    return [Table(title, head, rows, [note])]


class _Bare:
    """The tweet table of a Rookery database, alone in a file of its own."""

    def __init__(self, path: Path, like: Path) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None)
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = FULL")
        schema = sqlite3.connect(like)
        for (statement,) in schema.execute("SELECT sql FROM sqlite_schema WHERE tbl_name = 'tweet' AND sql NOT NULL"):
            self._sql.execute(statement)
        schema.close()
        self._made = 0

    def insert(self, authors: list[Person], bodies: list[str]) -> None:
        rows = []
        for body in bodies:
            self._made += 1
            tweet = id_at(time_ns() // 1_000_000, self._made.to_bytes(10, "big"))
            rows.append((tweet, authors[self._made % AUTHORS].id, "", body))
        for start in range(0, len(rows), BATCH):
            self._sql.execute("BEGIN IMMEDIATE")
            self._sql.executemany(
                "INSERT INTO tweet (id, author, title, body, depth, initial) VALUES (?,?,?,?,0,0)",
                rows[start : start + BATCH],
            )
            self._sql.execute("COMMIT")

    def close(self) -> None:
        self._sql.close()


def _over_http(plan: Plan, authors: list[Person], count: int, rounds: int) -> list[Cost]:
    requests = [
        post(f"/api/v1/tweet/{author.text_id}", author.token, msgspec.json.encode({"tweet": text}))
        for author, text in zip(authors * (count // AUTHORS + 1), texts(count), strict=False)
    ]
    with rookery(plan.scratch / "service") as server, Clients([server.port], IN_FLIGHT) as clients:
        return in_turns(rounds, {HTTP: lambda: cost_of(lambda: clients.run(requests), server.pid)})[HTTP]


def _file_system(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    at, kind = max((mount for mount in mounts if folder.resolve().is_relative_to(mount[0])), key=lambda m: len(m[0]))
    return kind if at else ""
