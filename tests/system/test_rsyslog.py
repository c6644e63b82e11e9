"""Log lines by way of a local rsyslog to a central one, both as we ship them."""

import asyncio
import gzip
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import started
from tests.serving import Server, running_server
from tools.certificates import Authority
from tools.servers import Rsyslog
from tools.servers.rsyslog import SHIPPED

LONG = os.environ.get("TEST_LONG") == "1"
AWAY_SECONDS = 60 if LONG else 3
ARRIVED_SECONDS = 60


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture
def central(authority: Authority, tmp_path: Path) -> Iterator[Rsyslog]:
    own = authority.sign("central", "127.0.0.1")
    with started(
        Rsyslog(tmp_path / "central", SHIPPED / "central.conf", authority=authority.certificate, own=own)
    ) as central:
        yield central


@pytest.fixture
def local(central: Rsyslog, authority: Authority, tmp_path: Path) -> Iterator[Rsyslog]:
    own = authority.sign("local", "127.0.0.1")
    shipped = SHIPPED / "rookery.conf"
    with started(
        Rsyslog(tmp_path / "local", shipped, authority=authority.certificate, own=own, central=central.port)
    ) as local:
        yield local


@pytest.fixture
def server(local: Rsyslog, tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, "--log-server", local.address) as server:
        yield server


def filed(central: Rsyslog) -> Counter[str]:
    """The ids of the requests that it has lines of, and how many of each."""
    found: Counter[str] = Counter()
    for file in central.logs.rglob("*.log"):
        for line in file.read_text().splitlines():
            found[json.loads(line).get("request_id", "")] += 1
    del found[""]
    return found


async def until_all(central: Rsyslog, ids: set[str]) -> Counter[str]:
    async with asyncio.timeout(ARRIVED_SECONDS):
        while ids - (found := filed(central)).keys():
            await asyncio.sleep(0.2)
    return found


async def test_every_request_is_filed_once_by_host_and_day(server: Server, central: Rsyslog) -> None:
    async with httpx.AsyncClient(base_url=server.url) as http:
        ids = {(await http.get("/top")).headers["x-request-id"] for _ in range(200)}
    found = await until_all(central, ids)
    assert {found[one] for one in ids} == {1}
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert re.fullmatch(rf"[^/]+/{day}\.log", str(next(central.logs.rglob("*.log")).relative_to(central.logs)))
    assert server.out() == "", "it goes there instead of stdout"


@pytest.mark.parametrize("tls", [False, True])
async def test_one_log_server_for_all_files_them_too(authority: Authority, tmp_path: Path, tls: bool) -> None:
    own = authority.sign("alone", "127.0.0.1")
    shipped = SHIPPED / "alone.conf"
    trusting = ("--log-tls-authority", str(authority.certificate)) if tls else ()
    with (
        started(Rsyslog(tmp_path / "alone", shipped, authority=authority.certificate, own=own, tls=tls)) as alone,
        running_server(tmp_path, "--log-server", alone.address, *trusting) as server,
    ):
        async with httpx.AsyncClient(base_url=server.url) as http:
            ids = {(await http.get("/top")).headers["x-request-id"] for _ in range(20)}
        found = await until_all(alone, ids)
    assert {found[one] for one in ids} == {1}


async def test_the_log_server_killed_under_load_holds_up_nobody_and_misses_nothing(
    server: Server, central: Rsyslog
) -> None:
    ids: set[str] = set()
    stopped = False

    async def ask(http: httpx.AsyncClient) -> None:
        while not stopped:
            answer = await http.get("/livez")
            assert answer.status_code == 200
            ids.add(answer.headers["x-request-id"])
            await asyncio.sleep(0.005)

    async with httpx.AsyncClient(base_url=server.url, timeout=5) as http:
        tasks = [asyncio.create_task(ask(http)) for _ in range(4)]
        await asyncio.sleep(1)
        central.kill()
        await asyncio.sleep(AWAY_SECONDS)
        await asyncio.to_thread(central.start)
        await asyncio.sleep(1)
        stopped = True
        await asyncio.gather(*tasks)
    found = await until_all(central, ids)
    assert {request: times for request, times in found.items() if times != 1} == {}


def send_lines(local: Rsyslog, numbers: range) -> None:
    """Lines as Rookery sends them, with these for the requests' ids, as fast as they are taken."""
    with socket.create_connection(("127.0.0.1", local.port)) as connection:
        for number in numbers:
            line = f'<134>1 2026-11-25T00:00:00.{number:06}Z box rookery 1 - - {{"request_id": "{number}"}}'.encode()
            connection.sendall(b"%d %b" % (len(line), line))


def until_it_rests(folder: Path) -> int:
    """Until its files grow no more; their bytes."""
    limit = time.monotonic() + 30
    sizes: list[int] = []
    while len(sizes) < 10 or len(set(sizes[-10:])) > 1:
        assert time.monotonic() < limit
        time.sleep(0.05)
        sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
    return sizes[-1]


@pytest.mark.parametrize("killed", [False, True])
async def test_what_waits_is_on_the_disk_and_outlives_the_local_one(
    local: Rsyslog, central: Rsyslog, killed: bool
) -> None:
    """But for some that were on their way to the central one when it was killed, or to the disk."""
    lines, on_their_way = 5_000, 200
    central.kill()
    await asyncio.to_thread(send_lines, local, range(lines))
    assert await asyncio.to_thread(until_it_rests, local.spool) > 1_000_000
    if killed:
        local.kill()
    else:
        local.stop()
    local.start()
    central.start()
    async with asyncio.timeout(ARRIVED_SECONDS):
        while len(found := filed(central)) < lines - on_their_way:
            await asyncio.sleep(0.2)
    assert set(found.values()) == {1}


async def test_a_full_disk_queue_holds_up_nobody_and_says_how_many_it_dropped(
    central: Rsyslog, authority: Authority, tmp_path: Path
) -> None:
    shipped, lines = (SHIPPED / "rookery.conf").read_text(), 20_000
    small = tmp_path / "small.conf"
    small.write_text(shipped.replace('maxDiskSpace="2g"', 'maxDiskSpace="3m"').replace('interval="60"', 'interval="1"'))
    own = authority.sign("small", "127.0.0.1")
    local = Rsyslog(tmp_path / "small", small, authority=authority.certificate, own=own, central=central.port)
    central.kill()
    with started(local):
        async with asyncio.timeout(20):
            await asyncio.to_thread(send_lines, local, range(lines))
        async with asyncio.timeout(ARRIVED_SECONDS):
            while not local.dropped.exists():
                await asyncio.sleep(0.05)
        await asyncio.to_thread(until_it_rests, local.spool)
        central.start()
        async with asyncio.timeout(ARRIVED_SECONDS):
            while len(found := filed(central)) + dropped(local) < lines:
                await asyncio.sleep(0.1)
            await asyncio.to_thread(send_lines, local, range(lines, lines + 10))
            while not {str(number) for number in range(lines, lines + 10)} <= found.keys():
                await asyncio.sleep(0.1)
                found = filed(central)
    assert set(found.values()) == {1}
    missing = lines + 10 - len(found)
    assert 0 < missing <= dropped(local)  # which counts words of its own too


def dropped(local: Rsyslog) -> int:
    return sum(map(int, re.findall(r"discarded\.full=(\d+)", local.dropped.read_text())))


async def test_a_line_as_long_as_a_stack_trace_is_whole(local: Rsyslog, central: Rsyslog) -> None:
    line = json.dumps({"request_id": "long", "trace": "x" * 30_000})
    sent = f"<134>1 2026-11-25T00:00:00Z box rookery 1 - - {line}".encode()
    with socket.create_connection(("127.0.0.1", local.port)) as connection:
        connection.sendall(b"%d %b" % (len(sent), sent))
    await until_all(central, {"long"})
    assert next(central.logs.rglob("*.log")).read_text().strip() == line


class Filer:
    """Our program that files lines, as rsyslog runs it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [SHIPPED / "rookery-file", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )
        assert self.answered() == "OK"

    def tell(self, *lines: str) -> None:
        assert self._process.stdin
        self._process.stdin.writelines(f"{line}\n" for line in lines)
        self._process.stdin.flush()

    def answered(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()


def test_what_is_sent_again_is_filed_once_also_by_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    filer = Filer(folder)
    filer.tell("a 2026-11-22 one", "b 2026-11-22 one", "a 2026-11-22 two", "a 2026-11-23 three", "a 2026-11-22 two")
    assert [filer.answered() for _ in range(5)] == ["OK"] * 5
    filer.end()
    (folder / "a" / "2026-11-22.log").unlink()  # compressed long ago
    filer = Filer(folder)
    filer.tell("a 2026-11-23 three", "b 2026-11-22 one", "a 2026-11-23 four {} with spaces", "a 2026-11-23 three")
    assert [filer.answered() for _ in range(4)] == ["OK"] * 4
    filer.end()
    files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.log")}
    assert files == {"a/2026-11-23.log": "three\nfour {} with spaces\n", "b/2026-11-22.log": "one\n"}


def test_a_file_that_was_taken_away_is_begun_again(tmp_path: Path) -> None:
    filer = Filer(tmp_path)
    filer.tell("a 2026-11-22 one")
    assert filer.answered() == "OK"
    (tmp_path / "a" / "2026-11-22.log").unlink()
    filer.tell("a 2026-11-22 two")
    assert filer.answered() == "OK"
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "a").write_text("in its way")
    filer.tell("a 2026-11-22 three", "b 2026-11-22 one", "a 2026-11-23 three")
    assert [filer.answered()[:6] for _ in range(3)] == ["Error:", "OK", "Error:"]
    (tmp_path / "a").unlink()
    filer.tell("a 2026-11-23 three")
    assert filer.answered() == "OK"
    filer.end()
    assert (tmp_path / "a" / "2026-11-23.log").read_text() == "three\n"
    assert (tmp_path / "b" / "2026-11-22.log").read_text() == "one\n"


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "2026-11-22.log").write_text('one\n{"to')
    filer = Filer(tmp_path)
    filer.tell("a 2026-11-22 two")
    assert filer.answered() == "OK"
    filer.end()
    assert (tmp_path / "a" / "2026-11-22.log").read_text() == 'one\n{"to\ntwo\n'


def test_a_line_that_does_not_fit_is_told_and_leaves_no_half(tmp_path: Path) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    filer = Filer(tmp_path, preexec_fn=little_room)
    filer.tell("a 2026-11-22 " + "x" * 80, "a 2026-11-22 " + "y" * 80, "a 2026-11-22 z")
    assert filer.answered() == "OK"
    assert filer.answered().startswith("Error: ")
    assert filer.answered() == "OK"
    filer.end()
    assert (tmp_path / "a" / "2026-11-22.log").read_text() == "x" * 80 + "\nz\n"


@pytest.mark.parametrize("name", ["rookery.conf", "central.conf", "alone.conf"])
def test_the_configuration_is_valid(name: str, authority: Authority, tmp_path: Path) -> None:
    own = authority.sign("check", "127.0.0.1")
    checked = Rsyslog(tmp_path / "rsyslog", SHIPPED / name, authority=authority.certificate, own=own, central=6514)
    done = subprocess.run(checked.check(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr.lower()


def test_files_of_other_days_are_compressed_and_old_ones_removed(tmp_path: Path) -> None:
    days = {
        "today.log": 0,
        "yesterday.log": 2,
        "late.log": 3,
        "late.log.gz": 3,
        "last month.log.gz": 40,
        "old.log.gz": 300,
    }
    for name, age in days.items():
        file = tmp_path / "host" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(b"{}\n") if name.endswith(".gz") else b"{}\n")
        os.utime(file, (time.time() - age * 86_400,) * 2)
    subprocess.run([SHIPPED / "rookery-logs", tmp_path], check=True)
    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {"host/today.log", "host/yesterday.log.gz", "host/late.log.gz", "host/last month.log.gz"}
    assert gzip.decompress((tmp_path / "host" / "late.log.gz").read_bytes()) == b"{}\n{}\n"


@pytest.mark.parametrize("call", range(1, 9))
def test_no_line_is_lost_or_twice_where_that_is_cut_off(tmp_path: Path, call: int) -> None:
    logs, programs = tmp_path / "logs", tmp_path / "programs"
    logs.mkdir()
    programs.mkdir()
    (logs / "late.log.gz").write_bytes(gzip.compress(b"1\n"))
    for name, text in (("late.log", "2\n"), ("other.log", "3\n")):
        (logs / name).write_text(text)
        os.utime(logs / name, (time.time() - 3 * 86_400,) * 2)
    for name in ("cat", "gzip", "mv", "rm"):
        program = programs / name
        program.write_text(
            f"#!/bin/sh\necho >>{tmp_path}/calls\n[ $(wc -l <{tmp_path}/calls) != {call} ] || exit 1\n"
            f'exec {shutil.which(name)} "$@"\n'
        )
        program.chmod(0o755)
    shadowed = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    for _ in range(2):
        subprocess.run([SHIPPED / "rookery-logs", logs], env=shadowed, check=False)
    assert len((tmp_path / "calls").read_text()) >= call, "it was cut off"
    found = {file.name: gzip.decompress(file.read_bytes()) for file in logs.iterdir()}
    assert found == {"late.log.gz": b"1\n2\n", "other.log.gz": b"3\n"}
