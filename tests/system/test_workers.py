"""`serve --workers`: several processes on one address, of which any may die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import running
from tests.serving import Server, running_server
from tests.system.commands import rookery
from tools.servers import Memcached


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    flags = ("--cache", "memcached", "--cache-servers", running(Memcached).address)
    with running_server(tmp_path, "--workers", "2", *flags) as server:
        yield server


def workers(server: Server) -> set[int]:
    return children_of(server.process.pid)


def children_of(process: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()}


def wait_for_workers(server: Server, other_than: set[int]) -> set[int]:
    limit = time.monotonic() + 30
    while len(found := workers(server)) != 2 or found == other_than:
        assert time.monotonic() < limit, server.err()
        time.sleep(0.05)
    return found


def test_what_one_worker_accepted_all_show(server: Server) -> None:
    wait_for_workers(server, set())
    with httpx.Client(base_url=server.url) as http:
        http.post("/tweet", json={"user_name": "ada", "body": "hello"}).raise_for_status()
        http.post("/tweet", json={"user_name": "bob", "body": "I read"}).raise_for_status()
        http.post("/follow/@bob", json={"followee_id": "@ada"}).raise_for_status()
    for _ in range(40):  # a connection each: they fall to one worker or the other
        answer = httpx.get(f"{server.url}/feed/@bob")
        assert [tweet["body"] for tweet in answer.json()] == ["hello"]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(server: Server) -> None:
    before = wait_for_workers(server, set())
    posted: list[str] = []
    while len(posted) < 100:
        answer = httpx.post(f"{server.url}/tweet", json={"user_name": "ada", "body": str(len(posted))})
        assert answer.status_code == 201, answer.text
        posted.append(answer.json()["body"])
    os.kill(min(before), signal.SIGKILL)
    after = wait_for_workers(server, before)
    assert len(after - before) == 1
    assert "another takes its place" in server.err()
    with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as http:
        found = http.get(f"{server.url}/tweet/@ada", params={"limit": 100}).json()
    assert [tweet["body"] for tweet in found] == posted[::-1][:100]


def test_all_end_with_their_parent(server: Server) -> None:
    """With SIGTERM as it should be (the fixture's end), and when it is killed."""
    left = wait_for_workers(server, set())
    server.kill()
    limit = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() and "Z" not in _state(worker) for worker in left):
        assert time.monotonic() < limit
        time.sleep(0.05)


class Supervised:
    """Two workers that only say that they are there, with short bounds."""

    def __init__(self, folder: Path, serve: str, before: str = "") -> None:
        """`serve` is what each does first; `turn` is the how manieth it is. `before` is done before all of it."""
        self._log = folder / "log"
        self._log.touch()
        program = f"""
import fcntl, os, signal, sys, time
from rookery.cli import workers
workers.SILENT_SECONDS, workers.BEGIN_SECONDS, workers._TICK_SECONDS = 1.0, 1.5, 0.1
{before}

def serve(pulse, which):
    with open({str(self._log)!r}, "a+") as log:
        fcntl.flock(log, fcntl.LOCK_EX)  # else two that begin together both read two lines, and both take turn 2
        print(which, os.getpid(), file=log, flush=True)
        log.seek(0)
        turn = len(log.readlines())
    {serve}
    while True:
        pulse()
        time.sleep(0.02)

sys.exit(workers.Workers(2, serve, lambda: None, lambda: None, 1.0).run())
"""
        self.parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)

    def begun(self) -> dict[int, int]:
        """Which they are, by their process ids, in the order in which they began."""
        return {int(process): int(which) for which, process in map(str.split, self._log.read_text().splitlines())}

    def until_begun(self, many: int) -> list[int]:
        limit = time.monotonic() + 30
        while len(self.begun()) < many:
            assert time.monotonic() < limit
            time.sleep(0.02)
        return list(self.begun())

    def stop(self) -> str:
        """What it said."""
        self.parent.terminate()
        return self.parent.communicate(timeout=30)[1]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[str], Supervised]]:
    made: list[Supervised] = []

    def make(serve: str, before: str = "") -> Supervised:
        made.append(Supervised(tmp_path, serve, before))
        return made[-1]

    yield make
    for one in made:
        one.parent.kill()
        one.parent.communicate()


def test_a_worker_that_hangs_is_replaced_but_not_for_what_all_stood_still(
    supervise: Callable[[str], Supervised],
) -> None:
    workers = supervise("")
    first, second = workers.until_begun(2)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in (first, second, workers.parent.pid):
            os.kill(process, number)
        time.sleep(1.5)  # the time that is measured
    assert len(workers.begun()) == 2
    os.kill(second, signal.SIGSTOP)
    third = workers.until_begun(3)[2]
    assert workers.begun()[third] == workers.begun()[second]
    assert f"worker {second} has been silent" in workers.stop()
    assert workers.parent.returncode == 0


def test_a_worker_that_does_not_begin_is_replaced(supervise: Callable[[str], Supervised]) -> None:
    workers = supervise("time.sleep(600 if turn == 2 else 0)")
    _, second, third = workers.until_begun(3)
    assert workers.begun()[third] == workers.begun()[second]
    assert f"worker {second} has been silent" in workers.stop()


def test_a_worker_that_does_not_stop_is_killed(supervise: Callable[[str], Supervised]) -> None:
    workers = supervise("signal.signal(signal.SIGTERM, signal.SIG_IGN) if which else None")
    workers.until_begun(2)
    time.sleep(0.2)  # until they are at work
    assert "has not ended in 1 seconds and is killed" in workers.stop()
    assert workers.parent.returncode == 1


@pytest.mark.parametrize(
    "before",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "sys.stderr = open('/dev/full', 'w', buffering=1)",
        """
forks, fork = [], os.fork
def scarce():
    forks.append(1)
    if len(forks) == 3: raise OSError(11, "no more processes")
    return fork()
os.fork = scarce""",
    ],
    ids=["who started it ignores SIGCHLD", "a full disk", "no process to be had"],
)
def test_whatever_happens_a_worker_that_died_is_replaced(supervise: Callable[..., Supervised], before: str) -> None:
    workers = supervise("", before)
    first, second = workers.until_begun(2)
    os.kill(second, signal.SIGKILL)
    third = workers.until_begun(3)[2]
    assert workers.begun()[third] == workers.begun()[second]
    assert Path(f"/proc/{first}").exists()
    workers.stop()
    assert workers.parent.returncode in (0, 120), "or Python's own word for a disk that is full"


def test_who_is_told_to_stop_before_any_serves_ends_well(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--cache", "memcached", "--cache-servers", running(Memcached).address)
    command = [sys.executable, "-m", "rookery", "serve", "--port", "0", "--data", str(tmp_path), *flags]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 30
    while len(children_of(parent.pid)) < 2:
        assert time.monotonic() < limit
        time.sleep(0.001)
    parent.terminate()
    told = parent.communicate(timeout=60)[1]
    assert (parent.returncode, "Traceback" in told) == (0, False), told


def test_workers_that_can_not_start_end_all(tmp_path: Path) -> None:
    (tmp_path / "rookery.db").write_text("not a database, but long enough to be looked at as one " * 20)
    failed = rookery(
        "serve", "--workers", "2", "--port", "0", "--data", str(tmp_path), "--cache", "memcached", status=1
    )
    assert "not_rookery" in failed.stderr


@pytest.mark.parametrize("arguments", [("--workers", "2"), ("--workers", "0", "--cache", "memcached")])
def test_workers_need_a_cache_in_common(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused = rookery("serve", "--data", str(tmp_path), *arguments, status=2)
    assert "need a cache in common" in refused.stderr


def _state(worker: int) -> str:
    try:
        return Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_workers_count_limits_together(tmp_path: Path) -> None:
    limit, asked = 30, 120
    flags = ("--cache", "memcached", "--cache-servers", running(Memcached).address)
    limits = ("--rate-limit", "on", "--rate-limit-address", str(limit))
    with running_server(tmp_path, "--workers", "2", *flags, *limits) as server:
        wait_for_workers(server, set())
        answers: list[httpx.Response] = []
        resets = [1, 2]
        while resets != sorted(resets, reverse=True):  # until a whole run falls into one minute
            answers = [httpx.get(f"{server.url}/top") for _ in range(asked)]  # a connection each
            resets = [int(answer.headers["RateLimit-Reset"]) for answer in answers]
        let_in = [answer.status_code for answer in answers].count(200)
        assert let_in <= limit
        remaining = [int(answer.headers["RateLimit-Remaining"]) for answer in answers[:let_in]]
        assert remaining == sorted(remaining, reverse=True), "each answer counts what the other worker let in"
