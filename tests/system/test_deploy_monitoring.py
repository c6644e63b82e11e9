"""Alerts and dashboard: that Prometheus takes them, and that what they speak of exists."""

import json
import re
import socket
import subprocess
from pathlib import Path
from secrets import token_hex

import httpx
import pytest
import yaml

from tests.contract.adapters import cassandra
from tests.servers import running
from tests.serving import running_server
from tests.web.test_metrics import documented, expect_documented
from tools.servers import Memcached, Redis
from tools.servers.installing import require
from tools.servers.process import free_port
from tools.servers.rookery import apply_schema

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "rookery.json"
COMMON = re.compile(r"process_\w+|python_\w+|up")
"""What every program that speaks to Prometheus shows."""


PROMETHEUS_OWN = {"instance", "job", "le"}
"""Labels that it gives, or histograms have."""


def expressions() -> list[tuple[str, str]]:
    """What is asked for, and the text with the labels of what comes back."""
    rules = yaml.safe_load(RULES.read_text())
    found = [(rule["expr"], rule["annotations"]["summary"]) for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return found + [(target["expr"], target["legendFormat"]) for panel in panels for target in panel["targets"]]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:rookery|process|python)_\w+|\bup\b", expression))


def labels_of(expression: str, told: str) -> set[str]:
    """Those by which it picks and sums, and those that are told of what comes back."""
    lists = [inside for found in re.findall(r"\{([^}]*)\}|\bby \(([^)]*)\)", expression) for inside in found]
    named = {word for part in lists for word in re.findall(r"\b([a-z_]+)\b(?=\s*(?:=|,|$))", part)}
    return (named | set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)", told))) - PROMETHEUS_OWN


@pytest.mark.parametrize(("expression", "told"), expressions())
def test_every_metric_and_label_in_it_exists(expression: str, told: str) -> None:
    named = {re.sub(r"(_seconds|_batch)_(bucket|count|sum)$", r"\1", name) for name in metrics_of(expression)}
    assert named, "else it asks for nothing of ours"
    known = documented()
    ours = {name for name in named if not COMMON.fullmatch(name)}
    assert ours <= known.keys()
    for name in ours:
        assert labels_of(expression, told) <= known[name], name


def test_labels_are_found_wherever_they_stand() -> None:
    expression = 'sum by (call, le) (rate(a{method="GET", status=~"5..",job="rookery"}[5m])) / sum(b) by (kind)'
    assert labels_of(expression, "{{ $labels.part }} {{code}}") == {"call", "method", "status", "kind", "part", "code"}


def test_every_alert_tells_what_it_is_and_what_to_do() -> None:
    book = (ROOT / "docs" / "operating.md").read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert f"`{rule['alert']}`" in book


def promtool(*arguments: str, stdin: str = "") -> None:
    done = subprocess.run(
        [require("promtool", "prometheus"), *arguments], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", "--lint=all", str(RULES))


def elsewhere() -> list[str]:
    """All parts that a server may have beside it, and a log server that is not there."""
    keeping = running(Redis).address
    flags = ["--store", "redis", "--store-servers", keeping, "--ranking", "redis", "--ranking-servers", keeping]
    return [
        *flags,
        "--cache",
        "memcached",
        "--cache-servers",
        running(Memcached).address,
        "--log-server",
        "127.0.0.1:9",
    ]


def on_cassandra() -> list[str]:
    server = cassandra.server()
    flags = ["--store", "cassandra", "--store-servers", server.address, "--store-keyspace", f"shown_{token_hex(4)}"]
    apply_schema([*flags, "--store-replication", "1"])
    return flags


AT_FAULTS = {
    "rookery_cassandra_failures_total",
    "rookery_chore_failures_total",
    "rookery_passwords_refused_total",
    "rookery_ranking_failures_total",
    "rookery_store_failures_total",
}
"""Those that are not there before something went wrong."""


def test_prometheus_takes_what_servers_on_cassandra_and_elsewhere_show_and_that_is_all_we_speak_of(
    tmp_path: Path,
) -> None:
    found: set[str] = set()
    for name, flags in {"alone": [], "elsewhere": elsewhere(), "cassandra": on_cassandra()}.items():
        shown = shown_by(tmp_path / name, flags)
        expect_documented(shown)
        promtool("check", "metrics", stdin="".join(f"{line}\n" for line in shown.splitlines() if "python_" not in line))
        found |= set(re.findall(r"^# TYPE (rookery_\w+)", shown, re.MULTILINE))
    assert documented().keys() - found == AT_FAULTS


def shown_by(folder: Path, flags: list[str]) -> str:
    """What a server shows that was asked something, good and bad."""
    port = free_port()
    with running_server(folder, "--metrics-port", str(port), *flags) as server:
        httpx.post(f"{server.url}/tweet", json={"user_name": "ada", "body": "one"}).raise_for_status()
        httpx.get(f"{server.url}/feed/@ada").raise_for_status()
        httpx.get(f"{server.url}/readyz").raise_for_status()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        assert httpx.get(f"{server.url}/metrics").status_code == 404, "they are not for everyone"
        return httpx.get(f"http://127.0.0.1:{port}/metrics").text
