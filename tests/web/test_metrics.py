"""The numbers that Prometheus reads: that they count what they say, and that each is written down."""

import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Reading, Spread
from rookery.web import listener
from rookery.web.metrics import registry_of, shown_at
from tests.web.site import Site

ROOT = Path(__file__).parents[2]
Labels = Mapping[str, str]


def samples(site: Site) -> dict[str, list[tuple[Labels, float]]]:
    """All that it shows just now, by the name of the sample."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(generate_latest(registry_of(site.parts)).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(site: Site, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels."""
    return sum(number for has, number in samples(site).get(name, []) if labels.items() <= has.items())


async def test_requests_are_counted_by_route_and_status(site: Site) -> None:
    ada = await site.register("ada")
    for number in range(3):
        await ada.posts(str(number))
    await site.get("/tweet/@ada")
    await site.get("/tweet/@nobody")
    await site.client.get("/nowhere/at/all")
    await site.client.request("BREW", "/top")
    posts = {"method": "POST", "status": "201"}
    assert value(site, "rookery_request_seconds_count", **posts, route="/tweet") == 3
    listed = {"method": "GET", "route": "/tweet/{user_id:str}"}
    assert value(site, "rookery_request_seconds_count", **listed, status="200") == 1
    assert value(site, "rookery_request_seconds_count", **listed, status="404") == 1
    assert value(site, "rookery_request_seconds_count", route="none", status="404") == 1
    assert value(site, "rookery_request_seconds_count", method="BREW") == 0, "anyone could make up any number of names"
    assert value(site, "rookery_request_seconds_count", method="other") == 1
    assert value(site, "rookery_request_seconds_sum", **posts) > 0
    assert value(site, "rookery_request_seconds_bucket", **posts, le="+Inf") == 4
    assert value(site, "rookery_requests_under_way") == 0


async def test_what_the_cache_knew_is_counted_by_kind(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await bob.follows(ada)
    await ada.posts("one")
    for _ in range(2):
        await bob.feed()
    reads = {
        (labels["kind"], labels["result"]): number for labels, number in samples(site)["rookery_cache_reads_total"]
    }
    assert reads["timeline", "miss"] == 1
    assert reads["timeline", "hit"] == 1
    assert reads["tweet", "hit"] >= 1


async def test_the_way_of_a_post_is_counted(site: Site) -> None:
    ada = await site.register("ada")
    for number in range(5):
        await ada.posts(str(number))
    assert value(site, "rookery_store_seconds_count", call="add_tweet") == 5
    assert value(site, "rookery_fanout_seconds_count") == 5
    assert value(site, "rookery_fanout_backlog") == value(site, "rookery_fanout_places_taken") == 0
    assert value(site, "rookery_sqlite_batch_sum") >= 6
    assert value(site, "rookery_memory_cache_limit_bytes") == site.settings.cache_bytes
    assert value(site, "rookery_passwords_waiting") == 0
    assert value(site, "rookery_pending_overdue") == 0


async def test_what_fails_is_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.get("/status")
    assert value(site, "rookery_ready") == 1

    async def fail(*_: object) -> None:
        raise Unavailable("store_unavailable", "away")

    monkeypatch.setattr("rookery.adapters.sqlite.SqliteStore.list_users", fail)
    ada = await site.register("ada")
    monkeypatch.setattr("rookery.adapters.sqlite.SqliteStore.tails", fail)
    assert (await site.get(f"/tweet/{ada.id}")).status_code == 503
    assert value(site, "rookery_store_failures_total", call="tails", code="store_unavailable") == 1


def documented() -> dict[str, set[str]]:
    """Each metric's labels."""
    rows = re.findall(
        r"^\| `(rookery_\w+)` \|[^|]*\|([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    return {name: set(re.findall(r"\w+", labels)) for name, labels in rows}


def in_code() -> set[str]:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    names = set(re.findall(r'Reading\(\s*f?"([a-z_{}.]+)"', source))
    parts = ("store", "ranking")
    return {f"rookery_{name.replace('{self._part}', part)}" for name in names for part in parts}


def test_every_metric_is_documented_and_no_other() -> None:
    assert documented().keys() == in_code()


async def test_what_is_shown_is_documented(site: Site) -> None:
    await site.get("/status")
    expect_documented(generate_latest(registry_of(site.parts)).decode())


def expect_documented(shown: str) -> None:
    """Each metric that a server shows has the labels that it is said to have, and no others."""
    known = documented()
    for family in text_string_to_metric_families(shown):
        if family.name.startswith("rookery_"):
            for sample in family.samples:
                name = family.name + "_total" * (family.type == "counter")
                assert sample.labels.keys() - {"le"} == known[name], sample.name


# The listener


class Part:
    def readings(self) -> list[Reading]:
        spread = Spread((1.0, 2.0))
        for number in (0.5, 1.0, 1.5, 7.0):
            spread.add(number)
        return [Reading("tried_total", "So.", 3, {"of": 'a "b"'}), Reading("spread", "So.", spread)]


def test_they_are_shown_on_a_listener_of_their_own() -> None:
    with shown_at("127.0.0.1", 0, [Part()]) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'rookery_tried_total{of="a \\"b\\""} 3.0' in lines
    assert [line for line in lines if line.startswith("rookery_spread")] == [
        'rookery_spread_bucket{le="1.0"} 2.0',
        'rookery_spread_bucket{le="2.0"} 3.0',
        'rookery_spread_bucket{le="+Inf"} 4.0',
        "rookery_spread_count 4.0",
        "rookery_spread_sum 10.0",
    ]
    assert any(line.startswith("process_open_fds ") for line in lines)
    with pytest.raises(httpx.TransportError), closing(httpx.Client()) as http:
        http.get(f"http://127.0.0.1:{port}/metrics")


def test_a_port_that_is_taken_is_told() -> None:
    with (
        shown_at("127.0.0.1", 0, []) as port,
        pytest.raises(Unavailable) as caught,
        shown_at("127.0.0.1", port, []),
    ):
        raise AssertionError
    assert caught.value.code == "address_unavailable"


# --- the listener ----------------------------------------------------------------------------------------------------


def _threads() -> int:
    return sum(thread.name.startswith("Thread-") for thread in threading.enumerate())


def _scraped(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).status_code == 200


def _read_to_the_end(client: socket.socket) -> bytes:
    client.settimeout(10)
    with suppress(ConnectionError):
        return b"".join(iter(lambda: client.recv(65_536), b""))
    return b""


def test_connections_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTION_SECONDS", 600.0)
    before = _threads()
    with shown_at("127.0.0.1", 0, []) as port, ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET /metrics HTTP/1.1\r\n")
        assert _scraped(port), "who comes now is served; the oldest are closed"
        assert _until(lambda: _threads() - before <= listener.MAX_CONNECTIONS)


def test_one_answer_is_made_at_a_time() -> None:
    """However many ask: what is collected takes the interpreter from the event loop."""
    at_once: list[int] = []
    made = 0

    class Part:
        def __init__(self) -> None:
            self.now = 0

        def readings(self) -> Iterator[Reading]:
            nonlocal made
            self.now += 1
            at_once.append(self.now)
            time.sleep(0.05)  # as long as it takes
            self.now -= 1
            made += 1
            yield Reading("made", "How often.", made)

    with shown_at("127.0.0.1", 0, [Part()]) as port, ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(60)]
        for client in clients:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answers = [_read_to_the_end(client) for client in clients]
        assert sum(answer.startswith(b"HTTP/1.0 200") for answer in answers) >= listener.MAX_CONNECTIONS
        assert set(at_once) == {1}
        assert made < len(clients), "none is made for those that were closed to make room"


def test_one_that_does_not_come_to_an_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTION_SECONDS", 0.3)
    before = _threads()
    with shown_at("127.0.0.1", 0, []) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(10)
        with suppress(OSError):
            while not select.select([client], [], [], 0.02)[0]:
                client.sendall(b"a")
        assert _read_to_the_end(client) == b""
        assert _until(lambda: _threads() == before)
        assert _scraped(port)


def test_a_head_has_a_bound() -> None:
    with shown_at("127.0.0.1", 0, []) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nA: " + b"a" * listener.MAX_HEAD_BYTES)
        assert _read_to_the_end(client).startswith(b"HTTP/1.0 431 ")


def _until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()
