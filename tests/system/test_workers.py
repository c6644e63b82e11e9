"""`serve --workers`: several processes on one address, of which any may die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
    main = server.process.pid
    return {int(child) for child in Path(f"/proc/{main}/task/{main}/children").read_text().split()}


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


def test_a_worker_that_hangs_is_replaced_and_one_that_is_alone_is_left(tmp_path: Path) -> None:
    """All stood still for longer than any may be silent before that, and that was nobody's fault."""
    program = f"""
import os, signal, sys, time
from rookery.cli import workers
workers.PULSE_SECONDS, workers.SILENT_SECONDS = 0.02, 1.0

def serve(pulse, which):
    with open({str(tmp_path / "log")!r}, "a") as log:
        print(which, os.getpid(), file=log, flush=True)
    while True:
        pulse()
        time.sleep(0.02)

sys.exit(workers.Workers(2, serve, lambda: None, lambda: None).run())
"""

    def begun() -> dict[int, int]:
        """Which they are, by their process ids, in the order in which they began."""
        lines = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []
        return {int(process): int(which) for which, process in map(str.split, lines)}

    def until_begun(many: int) -> list[int]:
        limit = time.monotonic() + 30
        while len(begun()) < many:
            assert time.monotonic() < limit
            time.sleep(0.02)
        return list(begun())

    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    try:
        first, second = until_begun(2)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for process in (first, second, parent.pid):
                os.kill(process, number)
            time.sleep(1.5)  # the time that is measured
        assert len(begun()) == 2
        os.kill(second, signal.SIGSTOP)
        third = until_begun(3)[2]
        assert begun()[third] == begun()[second]
    finally:
        parent.terminate()
        told = parent.communicate(timeout=30)[1]
    assert f"worker {second} has been silent" in told
    assert parent.returncode == 0


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
