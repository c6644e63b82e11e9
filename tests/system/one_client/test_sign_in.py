"""Attack: guessing passwords from many addresses, so that nobody else can sign in.

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
from tests.system.one_client.bystander import Measured

LONG = os.environ.get("TEST_LONG") == "1"
NETWORKS, CONNECTIONS = (41, 4) if LONG else (12, 7)
"""Networks that attack, and connections of each: more together than may wait."""
SECONDS = 20.0 if LONG else 3.0
HASHES = 6
"""Quiet sign-ins that one may take as long as during the attack, while more than sixty guesses wait: the hash that runs
when it comes and its own, on cores that the attack keeps busy."""
USERS, ROUNDS = (10, 5) if LONG else (4, 1)
"""Users who sign in during the attack, and how often each does."""
VICTIM = 0
"""The user whose password is guessed."""
HOME = "198.51"
"""The networks where the users sign in before the attack, each in one of their own."""
PASSWORD = "correct horse"


def post_token(name: str, password: str, address: str) -> bytes:
    body = json.dumps({"name": name, "password": password}).encode()
    head = f"POST /api/v1/token HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {address}\r\n"
    return head.encode() + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def guess(port: int, seconds: float) -> dict[int, int]:
    """Guess passwords of a user and of others from all networks for so long; the number of answers by status."""
    found: Counter[int] = Counter()

    async def client(number: int) -> None:
        request = post_token(
            f"friend{VICTIM}" if number % 2 else f"user{number}", "wrong horse", f"10.0.{number % NETWORKS}.1"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            status = int(head.split()[1])
            found[status] += 1
            await asyncio.sleep(0 if status == 401 else 0.5)  # a flood of refused requests is another attack

    async def attack() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(client(number) for number in range(NETWORKS * CONNECTIONS)))

    asyncio.run(attack())
    return dict(found)


def sign_in(server: Server, measured: Measured[dict[int, int]], user: int, network: str) -> float:
    """Sign in as one of the users from an address; the seconds that it took."""
    begun = monotonic()
    answer = httpx.post(
        f"{server.url}/api/v1/token",
        json={"name": f"friend{user}", "password": PASSWORD},
        headers={"X-Forwarded-For": f"{network}.{user}.7"},
        timeout=60,
    )
    measured.statuses.add(answer.status_code)
    return monotonic() - begun


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, "--auth", "token", "--trusted-proxies", "127.0.0.1", measured=False) as server:
        for number in range(USERS):
            sent = {"name": f"friend{number}", "password": PASSWORD}
            answer = httpx.post(f"{server.url}/user", json=sent, timeout=60)
            assert answer.status_code == 201, answer.text
        yield server


def test_passwords_that_are_guessed_from_many_networks_hold_up_nobody_else(server: Server) -> None:
    """Each of some users signs in at home, and again while the attack goes on, at home and where they never were.

    The one whose account is guessed at does so at home only: elsewhere nothing tells them from an attacker.
    """
    measured: Measured[dict[int, int]] = Measured()
    measured.quiet += [sign_in(server, measured, user, HOME) for user in range(USERS)]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        attacking = pool.submit(guess, server.port, SECONDS)
        rounds = 0
        while not attacking.done() and rounds < ROUNDS:
            for user in range(USERS):
                measured.attacked.append(sign_in(server, measured, user, HOME))
                if user != VICTIM:
                    measured.attacked.append(sign_in(server, measured, user, f"203.{rounds}"))
            rounds += 1
        measured.results.append(attacking.result())
    assert measured.results[0].get(503, 0) > NETWORKS, "the attack filled the queue"
    measured.require(floor=HASHES * max(measured.quiet), status=201)
