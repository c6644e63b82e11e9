"""The system tests once more, with servers that have only what the service leaves them.

Left out are those of programs beside the server (test_deploy…, test_readme, test_servers, test_systemd), and those that
ask of a hardened server nothing that the others do not: test_copy, test_races, test_ranking_elsewhere, test_real_input
and test_upgrade are about what is stored, and test_cassandra_ring about a ring.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hardened import allowed_calls, options
from tests.servers import need_root
from tests.serving import running_server

ROOT = Path(__file__).parents[2]
LONG = os.environ.get("TEST_LONG") == "1"
SHORT_FORM = ["test_stopping", "test_backup"]
LONG_FORM = [
    *SHORT_FORM,
    "haproxy/test_passing",
    "haproxy/test_restarts",
    "haproxy/test_slow",
    "test_client",
    "test_client_faults",
    "test_commands",
    "test_counts",
    "test_export",
    "test_full_disk",
    "test_histories",
    "test_kills",
    "test_pages",
    "test_redis_kills",
    "test_redis_ranking",
    "test_rsyslog",
    "test_traces",
    "test_two_servers",
    "test_workers",
]


@pytest.fixture(autouse=True)
def root() -> None:
    need_root("only root can take rights away so")


def test_they_have_what_the_unit_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_HARDENED", "1")
    with running_server(tmp_path) as server:
        lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
        status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        mounts = Path(f"/proc/{server.process.pid}/mounts").read_text().splitlines()
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    writable = {line.split()[1] for line in mounts if "rw" in line.split()[3].split(",")}
    assert writable == {str(tmp_path)}


def test_of_the_systems_calls_those_are_left_that_the_unit_names() -> None:
    calls = allowed_calls(options()["SystemCallFilter"])
    assert {"read", "futex", "epoll_wait", "fsync"} <= calls
    assert calls.isdisjoint({"mount", "reboot", "setuid", "ptrace", "setrlimit", "bpf"})


@pytest.mark.parametrize("module", LONG_FORM if LONG else SHORT_FORM)
def test_system_tests_pass_so_too(module: str) -> None:
    """But for Cassandra's, which has a test of its own."""
    expect_to_pass(module, "not cassandra")


def test_cassandra_and_all_of_a_cluster_are_reached_so_too() -> None:
    """The drivers of Cassandra (in C++, with threads of its own), memcached and Redis."""
    expect_to_pass("test_two_servers", "what_one_accepted and cassandra")


def expect_to_pass(module: str, chosen: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"tests/system/{module}.py",
        "-k",
        chosen,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "TEST_HARDENED": "1", "TEST_LONG": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:]
    assert " passed" in done.stdout
