"""Attack: requests that wait behind answers which their clients don't read."""

import os
import re
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, sleep

import httpx

from tests.system.one_client.bystander import ASKED, beside, place

CONNECTIONS = 100 if os.environ.get("TEST_LONG") == "1" else 40
"""Each had a place among the requests under way, of which the server has 2,048."""
EACH = 600
"""Requests of a connection: their answers fill all buffers between."""
MOST_UNDER_WAY = 10
"""Requests that may be under way while these wait: those that others have just sent."""
BYSTANDERS = 150
"""More than the bystander asks between two looks."""
_SEND_SECONDS = 120.0
_HEAD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def figure(metrics_port: int, name: str) -> int:
    """Of the server, the sum of a metric."""
    told = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30).text
    return int(sum(float(value) for value in re.findall(rf"^rookery_{name}(?:{{.*}})? (\S+)$", told, re.MULTILINE)))


def ask_and_not_read(port: int, metrics_port: int) -> int:
    """Send many requests on each of many connections until none of them is begun; how many are under way then."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", port))
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.send(EACH * _HEAD)
        deadline, before = monotonic() + _SEND_SECONDS, -1
        while (answered := figure(metrics_port, "request_seconds_count")) > before + BYSTANDERS:
            assert monotonic() < deadline
            before = answered
            sleep(0.3)  # the time over which it is measured
        return figure(metrics_port, "requests_under_way")


def test_requests_behind_unread_answers_take_no_places(tmp_path: Path) -> None:
    with place(tmp_path) as at:
        measured = beside(at, ASKED, ask_and_not_read, at.metrics, turns=1)
    assert measured.results[0] < MOST_UNDER_WAY
    # So many turns of the loop have a request of each connection, which on a busy machine takes its time.
    measured.require(floor=0.25, bursts=EACH, before=CONNECTIONS)
