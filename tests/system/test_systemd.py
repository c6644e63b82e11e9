"""Rookery under systemd: what it is told, the socket that it keeps, and the units that we ship."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import running
from tests.serving import running_server
from tools.servers import Memcached
from tools.servers.installing import require
from tools.servers.process import free_port

FOLDER = Path(__file__).parents[2] / "deploy" / "debian"
UNITS = ["rookery.service", "rookery@.service", "rookery.socket"]
MOST_EXPOSURE = 1.2


class Manager:
    """Who is told, as systemd is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(20)

    def next(self) -> str:
        return self._socket.recv(4_096).decode()

    def next_but(self, passed_by: str) -> str:
        while (told := self.next()) == passed_by:
            pass
        return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


def test_it_is_told_of_the_beginning_and_the_end(manager: Manager, tmp_path: Path) -> None:
    with running_server(tmp_path, env={"NOTIFY_SOCKET": str(manager.path)}) as server:
        assert manager.next() == "READY=1"
        assert httpx.get(server.url + "/readyz").status_code == 200
        server.process.terminate()
        assert manager.next() == "STOPPING=1"


def test_it_is_told_again_and_again_that_the_loop_turns(manager: Manager, tmp_path: Path) -> None:
    env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "150000"}
    with running_server(tmp_path, env=env) as server:
        assert manager.next_but("WATCHDOG=1") == "READY=1"
        assert [manager.next() for _ in range(5)] == ["WATCHDOG=1"] * 5
        server.process.terminate()
        assert manager.next_but("WATCHDOG=1") == "STOPPING=1"


def test_it_is_told_for_workers_too_and_when_one_of_them_answers(manager: Manager, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--cache", "memcached", "--cache-servers", running(Memcached).address)
    env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "150000"}
    with running_server(tmp_path, *flags, env=env) as server:
        assert manager.next_but("WATCHDOG=1") == "READY=1"
        assert httpx.get(server.url + "/readyz").status_code == 200
        assert [manager.next() for _ in range(5)] == ["WATCHDOG=1"] * 5
        server.process.terminate()
        assert manager.next_but("WATCHDOG=1") == "STOPPING=1"


def test_workers_that_never_serve_are_never_ready(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "rookery.db").write_text("not a database, but long enough to be looked at as one " * 20)
    command = [sys.executable, "-m", "rookery", "serve", "--port", "0", "--data", str(tmp_path)]
    command += ["--workers", "2", "--cache", "memcached"]
    done = subprocess.run(
        command, env={**os.environ, "NOTIFY_SOCKET": str(manager.path)}, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert manager.next() == "STOPPING=1"


def test_nobody_listens_and_nothing_happens(tmp_path: Path) -> None:
    with running_server(tmp_path, env={"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "0"}) as server:
        assert httpx.get(server.url + "/livez").status_code == 200


def activated(port: int, data: Path, *flags: str, address: str = "127.0.0.1") -> "subprocess.Popen[str]":
    """Rookery, started by who comes to a socket that was there before."""
    command = [require("systemd-socket-activate", "systemd"), "-l", f"{address}:{port}"]
    command += [f"--setenv=ROOKERY_CONFIG={os.devnull}", f"--setenv=PATH={os.environ['PATH']}"]
    command += [sys.executable, "-m", "rookery", "serve", "--data", str(data), "--rate-limit", "off", *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def until_listening(port: int) -> socket.socket:
    limit = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            assert time.monotonic() < limit
            time.sleep(0.02)


def test_who_comes_before_it_is_there_is_answered(tmp_path: Path) -> None:
    port = free_port()
    running = activated(port, tmp_path / "data", "--auth", "open", "--port", "1")
    try:
        with until_listening(port) as waiting:
            waiting.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")
    finally:
        running.terminate()
        told = running.communicate(timeout=30)[1]
    assert f"listens on http://127.0.0.1:{port} " in told


def test_a_socket_that_others_reach_is_no_way_around_open_mode(tmp_path: Path) -> None:
    port = free_port()
    running = activated(port, tmp_path / "data", "--auth", "open", address="0.0.0.0")  # noqa: S104 - that is the point
    until_listening(port).close()
    told = running.communicate(timeout=30)[1]
    assert running.returncode == 2
    assert "auth: open lets anyone act as anyone" in told


# The units


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The shipped units, with a program that exists here."""
    require("systemd-analyze", "systemd")
    for name in UNITS:
        text = (FOLDER / name).read_text().replace("/usr/sbin/rookery", shutil.which("true") or "")
        (tmp_path / name.replace("@", "@one")).write_text(text)
    return tmp_path


def test_they_are_what_systemd_understands(units: Path) -> None:
    files = [str(units / name.replace("@", "@one")) for name in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_a_service_may_do_no_more_than_it_needs(name: str) -> None:
    command = [require("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found
    assert float(found[1]) <= MOST_EXPOSURE


@pytest.mark.parametrize("name", [unit for unit in UNITS if unit.endswith(".service")])
def test_a_service_has_bounds_of_its_own_and_leaves_no_memory_behind(name: str) -> None:
    """So that the machine lives, whatever the server does; and no core file holds passwords."""
    lines = (FOLDER / name).read_text().splitlines()
    for line in ("MemoryMax=75%", "TasksMax=512", "LimitCORE=0"):
        assert line in lines


def test_one_of_several_is_bound_as_one_alone_is() -> None:
    """As tests of what a service can still do are about one alone."""
    alone, several = (set((FOLDER / name).read_text().splitlines()) for name in UNITS[:2])
    assert {line.partition("=")[0] for line in alone ^ several if not line.startswith("#")} == {
        *("Description", "After", "ExecStart", "StateDirectory"),
    }


def test_it_gets_more_time_to_stop_than_it_takes(tmp_path: Path) -> None:
    for name in UNITS[:2]:
        text = (FOLDER / name).read_text()
        given = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
        assert given
        assert int(given[1]) > 35 + 60, "ten to answer, twenty to close, five more, and up to a minute of drain_seconds"
