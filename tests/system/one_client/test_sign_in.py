"""Attack 7: guessing passwords from many addresses, so that nobody else can sign in.

A hash takes a tenth of a second and more, so a dozen clients keep the server busy for good. Rate limits are off: the
attackers have as many addresses as they need. They come through a proxy that the server trusts.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from time import monotonic

import httpx
import pytest

from tests.serving import Server, running_server
from tests.system.one_client.bystander import beside

LONG = os.environ.get("TEST_LONG") == "1"
NETWORKS, CONNECTIONS = (41, 4) if LONG else (12, 7)
"""Networks that attack, and connections of each: more together than may wait."""
SECONDS = 20.0 if LONG else 3.0
FLOOR = 3.0
"""Seconds that a sign-in may take on any machine: some hashes on a slow one whose cores are busy."""
PASSWORD = "correct horse"


def post_token(name: str, password: str, address: str) -> bytes:
    body = json.dumps({"name": name, "password": password}).encode()
    head = f"POST /api/v1/token HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {address}\r\n"
    return head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def guess(port: int, seconds: float) -> dict[int, int]:
    """Guess passwords of ada and of others from all networks for so long; how many were answered by each status."""
    found: Counter[int] = Counter()

    async def client(number: int) -> None:
        request = post_token("ada" if number % 2 else f"user{number}", "wrong horse", f"10.0.{number % NETWORKS}.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            status = int(head.split()[1])
            found[status] += 1
            await asyncio.sleep(0 if status == 401 else 0.05)  # a flood of refused requests is another attack

    async def attack() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(client(number) for number in range(NETWORKS * CONNECTIONS)))

    asyncio.run(attack())
    return dict(found)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, "--auth", "token", "--trusted-proxies", "127.0.0.1", measured=False) as server:
        for name in ("ada", "bob"):
            answer = httpx.post(f"{server.url}/user", json={"name": name, "password": PASSWORD}, timeout=60)
            assert answer.status_code == 201, answer.text
        yield server


def test_whoever_signed_in_there_before_signs_in_as_when_it_is_quiet(server: Server) -> None:
    measured = beside(server.port, post_token("ada", PASSWORD, "198.51.100.7"), guess, server.port, SECONDS, turns=1)
    assert measured.statuses == {201}
    assert all(result.get(503, 0) + result.get(429, 0) for result in measured.results), "the attack filled the queue"
    measured.require(floor=FLOOR)


def test_a_right_password_from_a_new_network_gets_in(server: Server) -> None:
    took = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        attacking = pool.submit(guess, server.port, 1.5 * SECONDS)
        number = 0
        while not attacking.done():
            number += 1
            begun = monotonic()
            answer = httpx.post(
                f"{server.url}/api/v1/token",
                json={"name": "bob" if number % 2 else "ada", "password": PASSWORD},
                headers={"X-Forwarded-For": f"198.51.{number}.7"},
                timeout=60,
            )
            assert answer.status_code == 201, answer.text
            took.append(monotonic() - begun)
        result = attacking.result()
    assert result.get(503, 0) + result.get(429, 0), "the attack filled the queue"
    assert sorted(took)[len(took) // 2] < FLOOR
