"""Runs real servers, and Rookery on them if asked, until Ctrl-C."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.servers import Cassandra, Memcached, Missing, Redis, RedisCluster
from tools.servers.process import Failed, Process
from tools.servers.rookery import Rookery, apply_schema

Kind = type[Cassandra] | type[Memcached] | type[Redis] | type[RedisCluster]


@dataclass(frozen=True, slots=True)
class Part:
    """What a server is for: the setting, its value, and what it is started with."""

    kind: Kind
    setting: str
    value: str
    options: Mapping[str, Any] = field(default_factory=dict)


PARTS: Mapping[str, Part] = {
    "cassandra": Part(Cassandra, "store", "cassandra"),
    "memcached": Part(Memcached, "cache", "memcached"),
    "redis": Part(Redis, "ranking", "redis"),
    "redis-cluster": Part(RedisCluster, "ranking", "redis"),
    "redis-store": Part(Redis, "store", "redis", {"fsync": "always"}),
    "redis-cluster-store": Part(RedisCluster, "store", "redis", {"fsync": "always"}),
}
USUAL = ("cassandra", "memcached", "redis")
FIRST_PORT = 5000


def main(arguments: Sequence[str] | None = None) -> int:
    """Start what was asked for, say how to reach it, and end it all on Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tools.servers", description=__doc__)
    parser.add_argument(
        "servers", nargs="*", metavar="SERVER", help=f"what to start, of {', '.join(PARTS)}; else {', '.join(USUAL)}"
    )
    parser.add_argument("--rookery", type=int, default=0, metavar="N", help="and so many Rookery servers on them")
    parser.add_argument("--data", type=Path, default=Path("data/cluster"), help="where all of them keep their data")
    given = parser.parse_args(arguments)
    for name in given.servers:
        if name not in PARTS:
            parser.error(f"there is no {name}; known are {', '.join(PARTS)}")
    settings = [PARTS[name].setting for name in given.servers]
    if len(set(settings)) < len(settings):
        parser.error("one for each of store, cache and ranking")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has its background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            flags = _start_servers(stack, given.servers or USUAL, given.data)
            _start_rookery(stack, given.rookery, given.data, flags)
            print("Ctrl-C ends all.", flush=True)
            signal.pause()
    except (Missing, Failed) as failure:
        print(f"servers: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _start_servers(stack: ExitStack, names: Sequence[str], data: Path) -> list[str]:
    flags: list[str] = []
    for name in names:
        part = PARTS[name]
        server = part.kind(data.absolute() / name, **part.options)
        stack.enter_context(server)
        flags += [f"--{part.setting}", part.value, f"--{part.setting}-servers", server.address]
        print(f"{name} on {server.address}", flush=True)
    if "cassandra" in names:
        apply_schema([*flags, "--store-replication", "1"])
    return flags


def _start_rookery(stack: ExitStack, many: int, data: Path, flags: Sequence[str]) -> None:
    if not many:
        print("Rookery on these:  rookery serve", *flags, flush=True)
    started: list[Process] = []
    for number in range(many):
        port = FIRST_PORT + number
        server = Rookery(data.absolute() / f"rookery-{number + 1}", data.absolute() / "rookery", port, flags)
        started.append(stack.enter_context(server))
        print(f"Rookery on http://127.0.0.1:{port}", flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
