"""Servers that tests share, started when the first test asks and ended with the run. A missing one skips at home."""

import atexit
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

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


def _start(server: Process | Ring | RedisCluster) -> None:
    try:
        server.start()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
