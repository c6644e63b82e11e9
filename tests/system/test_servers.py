"""The servers that are started for tests and for trying out: they answer, and none outlives who started it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from rookery.client import Client
from tests.contract.adapters import cassandra
from tests.servers import running, started
from tools.servers import Cassandra, Memcached, Redis
from tools.servers.__main__ import main
from tools.servers.process import Failed, Process

ROOT = Path(__file__).parents[2]


class Script(Process):
    """A server that is a line of shell."""

    start_seconds = 1.0
    stop_seconds = 0.2

    def __init__(self, folder: Path, line: str, *, good: bool = True) -> None:
        super().__init__(folder)
        self._line = line
        self._good = good

    def command(self) -> list[str]:
        return ["sh", "-c", self._line]

    def answers(self) -> bool:
        return self._good


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def until_gone(pids: list[int]) -> None:
    limit = time.monotonic() + 20
    while any(map(is_there, pids)):
        assert time.monotonic() < limit, "a server outlives who started it"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", [Memcached, Redis, Cassandra])
def test_a_server_stops_is_killed_and_starts_again_on_its_port(
    kind: type[Memcached | Redis | Cassandra], tmp_path: Path
) -> None:
    with started(kind(tmp_path)) as server:
        expect_it_back(server)


def expect_it_back(server: Memcached | Redis | Cassandra) -> None:
    port = server.port
    for end in (server.stop, server.kill):
        assert server.answers()
        end()
        assert not server.is_running
        assert not server.answers()
        server.start()
        assert server.port == port
    server.pause()
    server.stop()
    assert not server.is_running


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="no such luck"):
        Script(tmp_path / "one", "echo no such luck; exit 3", good=False).start()
    with pytest.raises(Failed, match="did not start"):
        Script(tmp_path / "two", "exec sleep 100", good=False).start()


def test_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    server = Script(tmp_path, "trap '' TERM; while :; do sleep 0.1; done").start()
    server.stop()
    assert not server.is_running


def test_what_is_not_known_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["oracle"])
    assert "there is no oracle; known are cassandra, memcached, redis" in capsys.readouterr().err


async def tell_and_be_told(url: str, other: str) -> None:
    async with Client(url) as one, Client(other) as two:  # they ask again while a Java that just began is slow
        posted = await one.post("ada", "hello")
        assert [tweet.id async for tweet in two.tweets("@ada")] == [posted.id]


@pytest.mark.parametrize(
    ("number", "kinds"),
    [(signal.SIGINT, [Memcached]), (signal.SIGTERM, [Memcached, Redis]), (signal.SIGKILL, [])],
    ids=["SIGINT", "SIGTERM", "SIGKILL-cassandra-too"],
)
def test_a_cluster_serves_and_ends_with_who_started_it(
    tmp_path: Path, number: signal.Signals, kinds: list[type[Memcached | Redis]]
) -> None:
    """A cluster of these servers, or of all."""
    for kind in kinds or (Memcached, Redis):
        running(kind).stop()  # they are installed, or this is skipped
    if not kinds:
        cassandra.server()
    names = [kind.__name__.lower() for kind in kinds]
    command = [sys.executable, "-m", "tools.servers", *names, "--rookery", "2", "--data", str(tmp_path)]
    cluster = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert cluster.stdout
    urls = []
    for line in cluster.stdout:
        if line.startswith("Rookery on "):
            urls.append(line.split()[-1])
        if line.startswith("Ctrl-C"):
            break
    try:
        assert len(urls) == 2
        asyncio.run(tell_and_be_told(*urls))
        assert httpx.get(f"{urls[1]}/status").json()["ranking"] == "ok"
        children = Path(f"/proc/{cluster.pid}/task/{cluster.pid}/children").read_text().split()
        assert len(children) == 2 + (len(kinds) or 3)
    finally:
        cluster.send_signal(number)
        cluster.stdout.close()
        try:
            status = cluster.wait(60)
        finally:
            cluster.kill()
    assert status == (0 if number != signal.SIGKILL else -9)
    until_gone([int(child) for child in children])
