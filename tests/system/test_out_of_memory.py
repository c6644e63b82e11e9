"""A server that gets no more memory: it answers 503 where it can, ends in order where not, and loses nothing."""

import asyncio
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.serving import environment, running_server

LONG = os.environ.get("TEST_LONG") == "1"
START_SECONDS, STOP_SECONDS = 60.0, 60.0
CLIENTS, EACH = 40, 10
SPARE_BYTES = 2 << 20
"""Less than a thread's stack and than a hash takes, more than answers do that are small."""


@contextmanager
def limited(pid: int, spare: int) -> Iterator[None]:
    """The process gets so many bytes of address space more, and no others."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it has ended
            resource.prlimit(pid, resource.RLIMIT_AS, before)


async def ask_on(http: httpx.AsyncClient, number: int, statuses: Counter[int], acknowledged: set[str]) -> None:
    """Post, register with a password, sign in, read."""
    for turn in range(EACH):
        name, body = f"{'ada' if turn % 2 else 'bob'}{number}", f"{number}: {turn}"
        posted = await http.post("/tweet", json={"user_name": name, "body": body})
        if posted.status_code == 201:
            acknowledged.add(body)
        answers = [
            posted,
            await http.post("/user", json={"name": f"new{number}x{turn}", "password": "a long password"}),
            await http.post("/token", json={"user_name": name, "password": "a long password"}),
            await http.get(f"/feed/@{name}"),
            await http.get("/"),
        ]
        for answer in answers:
            statuses[answer.status_code] += 1
            if answer.status_code == 503:
                assert answer.json()["code"] in {"out_of_memory", "busy", "store_unavailable"}
                assert answer.headers["retry-after"]


async def test_without_memory_answers_are_503_and_nothing_is_lost(tmp_path: Path) -> None:
    statuses: Counter[int] = Counter()
    acknowledged: set[str] = set()
    with running_server(tmp_path, "--rate-limit", "off") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            with limited(server.process.pid, SPARE_BYTES):
                await asyncio.gather(*(ask_on(http, number, statuses, acknowledged) for number in range(CLIENTS)))
            assert statuses[503] > 0
            assert not [status for status in statuses if status >= 500 and status != 503], statuses
            assert (await http.post("/user", json={"name": "late", "password": "a long password"})).status_code == 201
            found = set()
            for number in range(CLIENTS):
                for name in ("ada", "bob"):
                    answer = await http.get(f"/tweet/@{name}{number}", params={"limit": 100})
                    found |= {tweet["body"] for tweet in answer.json()} if answer.status_code == 200 else set()
            assert found >= acknowledged


def test_a_server_without_memory_stops_when_told(tmp_path: Path) -> None:
    with running_server(tmp_path) as server, limited(server.process.pid, 0):
        assert httpx.get(server.url + "/livez").status_code == 200
        assert server.stop() == 0


@pytest.mark.parametrize("mebibytes", range(60, 420, 4 if LONG else 80))
def test_a_server_that_finds_too_little_starts_or_ends_by_itself(tmp_path: Path, mebibytes: int) -> None:
    with (tmp_path / "err").open("w") as err:
        server = subprocess.Popen(
            [
                "prlimit",
                f"--as={mebibytes << 20}",
                sys.executable,
                "-m",
                "rookery",
                "serve",
                "--port",
                "0",
                "--data",
                ".",
            ],
            cwd=tmp_path,
            stderr=err,
            stdout=subprocess.DEVNULL,
            env=environment({}, measured=False),  # what measures would be what ends it
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while server.poll() is None and "listens" not in (tmp_path / "err").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.terminate()
        assert server.wait(STOP_SECONDS) in {0, 1}, "no signal ends it"
    finally:
        server.kill()
        server.wait()
