"""The containers that we ship: by the real docker-compose, and each setting and file in them is one that exists."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from rookery.config import SPECS, load
from tests.servers import do_without
from tools.servers.cassandra import VERSION
from tools.servers.installing import Missing, require
from tools.servers.process import free_port

FOLDER = Path(__file__).parents[2] / "deploy"
FILE = FOLDER / "compose.yaml"
DOCKERFILES = [FOLDER / "Dockerfile", FOLDER / "rsyslog" / "Dockerfile"]
AHEAD = {"store": "7.2"}
"""Branches beyond those of the tests: of Redis 7.0 no image is mended any more, only Debian's package is."""
PROFILES = {
    "embedded": ["rookery"],
    "redis": ["rookery-on-redis", "store"],
    "cluster": [
        *("cassandra1", "cassandra2", "cassandra3"),
        *("haproxy", "log", "memcached", "ranking", "rookery1", "rookery2", "schema"),
    ],
}


@pytest.fixture(scope="module")
def composed() -> Mapping[str, Any]:
    """The file as docker-compose reads it."""
    try:
        program = require("docker-compose", "docker-compose")
    except Missing as missing:
        do_without(missing)
    done = subprocess.run([program, "--file", FILE, "config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    read: Mapping[str, Any] = yaml.safe_load(done.stdout)
    return read


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_its_parts_and_what_they_wait_for(composed: Mapping[str, Any], profile: str) -> None:
    services = {name: one for name, one in composed["services"].items() if profile in one["profiles"]}
    assert sorted(services) == PROFILES[profile]
    for one in services.values():
        assert set(one.get("depends_on", {})) <= set(services)
        assert {volume.partition(":")[0] for volume in one.get("volumes", ()) if volume[0] not in "./"} <= set(
            composed["volumes"]
        )


@pytest.mark.parametrize("name", ["rookery", "rookery-on-redis", "schema", "rookery1", "rookery2"])
def test_every_setting_of_ours_exists_and_is_right(composed: Mapping[str, Any], name: str) -> None:
    service = composed["services"][name]
    given = {key: str(value) for key, value in service.get("environment", {}).items()}
    image = dict(re.findall(r"(ROOKERY_\w+)=(\S+)", DOCKERFILES[0].read_text()))
    assert set(given) | set(image) <= {spec.env for spec in SPECS}
    assert load(flags={}, environ={**image, **given}, file=None).settings.host == image["ROOKERY_HOST"]
    for address in (one for key, value in given.items() if key.endswith("_SERVERS") for one in value.split(",")):
        host, _, port = address.rpartition(":")
        assert host in composed["services"]
        assert (
            port == {"cassandra": "9042", "memcached": "11211", "ranking": "6379", "store": "6379"}[host.rstrip("123")]
        )
    assert given.get("ROOKERY_LOG_SERVER", "log:5140") == "log:5140"


def test_haproxy_is_told_what_its_file_asks_for_and_is_believed(composed: Mapping[str, Any]) -> None:
    haproxy = composed["services"]["haproxy"]
    asked = set(re.findall(r"presetenv (\w+)", (FOLDER / "haproxy" / "haproxy.cfg").read_text()))
    assert set(haproxy["environment"]) <= asked
    addresses = {
        name: composed["services"][name]["networks"]["default"]["ipv4_address"]
        for name in ("haproxy", "rookery1", "rookery2")
    }
    for number in (1, 2):
        environment = composed["services"][f"rookery{number}"]["environment"]
        assert environment["ROOKERY_TRUSTED_PROXIES"] == f"{addresses['haproxy']}/32"
        assert haproxy["environment"][f"ROOKERY_SERVER{number}"] == f"{addresses[f'rookery{number}']}:5000"
        assert composed["services"][f"rookery{number}"]["hostname"] == f"rookery{number}", "its folder of log lines"
        assert int(environment["ROOKERY_DRAIN_SECONDS"]) >= 2, "one second to be asked, half a second to be believed"


def test_what_is_mounted_and_built_is_there(composed: Mapping[str, Any]) -> None:
    for one in composed["services"].values():
        for volume in one.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith("/") or Path(source).is_file(), source
        if build := one.get("build"):
            context = Path(build["context"])
            dockerfile = context / build.get("dockerfile", "Dockerfile")
            assert dockerfile in DOCKERFILES
            for line in dockerfile.read_text().splitlines():
                if line.startswith("COPY ") and "--from" not in line:
                    *sources, _ = line.split()[1:]
                    assert all((context / source).exists() for source in sources)


def test_images_are_pinned_and_nobody_is_root_who_need_not_be(composed: Mapping[str, Any]) -> None:
    bases = [
        line.split()[1] for file in DOCKERFILES for line in file.read_text().splitlines() if line.startswith("FROM")
    ]
    images = [one["image"] for one in composed["services"].values()]
    for image in (*bases, *images):
        assert re.search(r":(\d+\.\d+\.\d+|\w+-20\d{6})(-\w+)*$", image), f"{image} is of no certain version"
    for file in DOCKERFILES:
        users = [line.split()[1] for line in file.read_text().splitlines() if line.startswith("USER")]
        assert users[-1:]
        assert users[-1].partition(":")[0] not in ("0", "root")
    for name, one in composed["services"].items():
        if name not in ("haproxy", "store", "ranking") and not name.startswith("cassandra"):
            assert one["cap_drop"] == ["ALL"]


def test_only_haproxy_is_open_to_others(composed: Mapping[str, Any]) -> None:
    for name, one in composed["services"].items():
        for port in one.get("ports", ()):
            assert name == "haproxy" or str(port).startswith("127.0.0.1:")


def test_the_versions_are_of_the_branches_that_the_tests_run_on(composed: Mapping[str, Any]) -> None:
    name, _, version = composed["services"]["cassandra1"]["image"].partition(":")
    assert (name, version.split(".")[:2]) == ("cassandra", VERSION.split(".")[:2])
    assert int(version.split(".")[2]) >= int(VERSION.split(".")[2])
    for service, command in {"store": "redis-server", "memcached": "memcached", "haproxy": "haproxy"}.items():
        try:
            program = require(command, command)
        except Missing as missing:
            do_without(missing)
        said = subprocess.run(
            [program, "--version"] if command != "haproxy" else [program, "-v"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = re.search(r"(\d+\.\d+)\.(\d+)", said)
        assert found
        name, _, version = composed["services"][service]["image"].partition(":")
        branch, _, patch = version.rpartition(".")
        assert name == command.removesuffix("-server")
        if branch != AHEAD.get(service):
            assert branch == found[1]
            assert int(patch) >= int(found[2])


@pytest.mark.parametrize(("service", "server"), [("store", "rookery-on-redis"), ("ranking", "rookery1")])
def test_redis_starts_with_a_password_only_and_lets_nobody_in_without(
    composed: Mapping[str, Any], service: str, server: str, tmp_path: Path
) -> None:
    """The script of the container by the real Redis; what only the image has is put in its place."""
    try:
        require("redis-server", "redis-server")
    except Missing as missing:
        do_without(missing)
    shell, flags, script = composed["services"][service]["entrypoint"]
    port, conf = free_port(), tmp_path / "redis.conf"
    (source,) = (one.partition(":")[0] for one in composed["services"][service]["volumes"] if one.startswith("/"))
    script = script.replace("$$", "$").replace("/etc/redis/redis.conf", source).replace("/tmp/redis.conf", str(conf))
    script = (
        script.replace("chown redis", ":")
        .replace("docker-entrypoint.sh ", "")
        .replace("--dir /data", f"--dir {tmp_path}")
    )
    command = [shell, flags, f"{script.rstrip()} --port {port}"]
    refused = subprocess.run(
        command, env={**os.environ, "REDISCLI_AUTH": ""}, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0
    assert "ROOKERY_REDIS_PASSWORD" in refused.stderr
    running = subprocess.Popen(command, env={**os.environ, "REDISCLI_AUTH": "open sesame"}, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: redis.Redis(port=port, password="open sesame").ping(), running)
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("x")
        with redis.Redis(port=port, password="open sesame") as ours:
            assert ours.config_get("protected-mode") == {"protected-mode": "yes"}
        assert conf.stat().st_mode & 0o077 == 0
        assert "sesame" not in Path(f"/proc/{running.pid}/cmdline").read_text()
    finally:
        running.terminate()
        running.wait()
    wanted = "ROOKERY_STORE_PASSWORD" if service == "store" else "ROOKERY_RANKING_PASSWORD"
    assert wanted in composed["services"][server]["environment"]


def wait_until(answers: Callable[[], object], running: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 30
    while True:
        with suppress(redis.ConnectionError):
            if answers():
                return
        assert running.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_secrets_of_these_files_stay_out_of_git() -> None:
    ignored = (FOLDER.parent / ".gitignore").read_text().splitlines()
    assert {"/deploy/*.pem", "/deploy/.env"} <= set(ignored)
