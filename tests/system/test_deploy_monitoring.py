"""Alerts and dashboard: that Prometheus takes them, and that what they speak of exists."""

import json
import re
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serving import running_server
from tests.web.test_metrics import documented
from tools.servers.installing import require
from tools.servers.process import free_port

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "rookery.json"
COMMON = re.compile(r"process_\w+|python_\w+|up")
"""What every program that speaks to Prometheus shows."""


def expressions() -> list[str]:
    rules = yaml.safe_load(RULES.read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return found + [target["expr"] for panel in panels for target in panel["targets"]]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:rookery|process|python)_\w+|\bup\b", expression))


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_in_it_exists(expression: str) -> None:
    named = {re.sub(r"(_seconds|_batch)_(bucket|count|sum)$", r"\1", name) for name in metrics_of(expression)}
    assert named, "else it asks for nothing of ours"
    assert {name for name in named if not COMMON.fullmatch(name)} <= documented()


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


def test_prometheus_takes_what_a_server_shows(tmp_path: Path) -> None:
    port = free_port()
    with running_server(tmp_path, "--metrics-port", str(port)) as server:
        httpx.post(f"{server.url}/tweet", json={"user_name": "ada", "body": "one"}).raise_for_status()
        shown = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert httpx.get(f"{server.url}/metrics").status_code == 404, "they are not for everyone"
    assert "rookery_request_seconds_count" in shown
    promtool("check", "metrics", stdin="".join(f"{line}\n" for line in shown.splitlines() if "python_" not in line))
