"""Attack 1: a header that is dear to read."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from tests.system.one_client.bystander import ASKED, beside, place

CONNECTIONS = 50 if os.environ.get("TEST_LONG") == "1" else 1


def ask_with_commas(port: int, seconds: float) -> int:
    """Ask for the front page with 31,000 commas in Accept for so long; the number of answers."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(ask_on, [port] * CONNECTIONS, [seconds] * CONNECTIONS))


def ask_on(port: int, seconds: float) -> int:
    """As one connection does, again and again."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: " + b"," * 31_000 + b"\r\n\r\n"
    until, answers = monotonic() + seconds, 0
    while monotonic() < until:
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(head)
            answers += bool(client.recv(1))
    return answers


def test_commas_in_accept_cost_others_nothing(tmp_path: Path) -> None:
    with place(tmp_path) as at:
        measured = beside(at, ASKED, ask_with_commas, 2.0)
    assert min(measured.results) > 10
    measured.require(floor=0.1)
