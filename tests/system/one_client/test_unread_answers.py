"""Attack 6: many connections ask for the largest answer and do not read it."""

import os
import re
import resource
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.system.one_client.bystander import ASKED, beside, place

pytestmark = pytest.mark.no_cover  # memory is measured

CONNECTIONS = 1_000 if os.environ.get("TEST_LONG") == "1" else 400
MOST_BYTES_EACH = 200 * 1024
"""What a connection that reads nothing may cost, with what the kernel keeps of it on both sides; it is half of that.
It was 2 MiB."""
ASSET = b"GET /api/v1/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def ask_and_not_read(port: int, many: int, seconds: float) -> int:
    """Ask on so many connections, and hold them for so long; how many got the start of an answer."""
    clients = []
    try:
        for _ in range(many):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", port))
            client.settimeout(10)
            client.sendall(ASSET)
            clients.append(client)
        answered = sum(client.recv(12) == b"HTTP/1.1 200" for client in clients)
        time.sleep(seconds)
        return answered
    finally:
        for client in clients:
            client.close()


def kept_bytes(pid: int) -> int:
    """Memory of a process, and of the kernel for TCP: it takes answers that would be the process's else."""
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    pages = re.search(r"^TCP: .* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert resident
    assert pages
    return int(resident[1]) * 1_024 + int(pages[1]) * resource.getpagesize()


def test_answers_that_nobody_reads_cost_little(tmp_path: Path) -> None:
    with place(tmp_path, "--rate-limit", "off") as at:
        pid, most, is_over = at.attacked.process.pid, [0], threading.Event()
        assert ask_and_not_read(at.port, 1, 0.0) == 1
        before = kept_bytes(pid)

        def watch() -> None:
            while not is_over.wait(0.02):
                most[0] = max(most[0], kept_bytes(pid))

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            measured = beside(at, ASKED, ask_and_not_read, CONNECTIONS, 1.0, turns=1)
        finally:
            is_over.set()
            watching.join()
    assert measured.results == [CONNECTIONS]
    grown = most[0] - before
    assert grown < CONNECTIONS * MOST_BYTES_EACH, f"{grown / CONNECTIONS / 1024:.0f} KiB each"
    measured.require(floor=0.05)
