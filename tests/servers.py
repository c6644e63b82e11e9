"""Servers that tests share, started when the first test asks and ended with the run. A missing one skips at home."""

import atexit
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest
import redis

from tools.servers import Missing, Redis, RedisCluster, Ring
from tools.servers.process import Process

P = TypeVar("P", bound=Process | Ring | RedisCluster)


def running(kind: type[P], **options: Any) -> P:
    """A server of this kind that runs to the end of all tests."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.__name__.lower()}-"))
    made = kind(folder, **options)
    _start(made)
    atexit.register(made.stop)
    return made


@contextmanager
def started(server: P) -> Iterator[P]:
    """A server of one's own, ended at the end."""
    _start(server)
    try:
        yield server
    finally:
        server.stop()


def log_sizes(server: Redis) -> Mapping[Path, int]:
    """How long its append-only files are now."""
    return {file: file.stat().st_size for file in server.append_only_folder.glob("*.incr.aof")}


def cut_back(server: Redis, sizes: Mapping[Path, int]) -> None:
    """Kill Redis, and let it start again with its append-only files as they were when they had these sizes."""
    server.kill()
    for file, size in sizes.items():
        assert size < file.stat().st_size, "else nothing is lost"
        os.truncate(file, size)
    server.start()


def master_of(cluster: RedisCluster, key: bytes) -> Redis:
    """Who has a key just now."""
    alive = next(node for node in cluster.nodes if node.is_running)
    with redis.RedisCluster(host="127.0.0.1", port=alive.port) as connection:
        port = connection.get_node_from_key(key).port
    return next(node for node in cluster.nodes if node.port == port)


def replicas_of(cluster: RedisCluster, master: Redis) -> list[Redis]:
    """Who follows a master just now."""
    with redis.Redis(port=master.port) as connection:
        following = [one for one in connection.info("replication").values() if isinstance(one, dict) and "port" in one]
    return [node for node in cluster.nodes if node.port in {int(one["port"]) for one in following}]


def do_without(missing: Missing) -> NoReturn:
    """Pass over what needs a program that is not there; in CI nothing may be passed over."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(missing))
    pytest.skip(str(missing))


def need_root(why: str) -> None:
    """Pass over what only root can do."""
    if os.geteuid():
        do_without(Missing(why))


def _start(server: Process | Ring | RedisCluster) -> None:
    try:
        server.start()
    except Missing as missing:
        do_without(missing)
