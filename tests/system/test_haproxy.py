"""Two servers behind the HAProxy that we ship: who asks it sees one server, whatever becomes of the two."""

import asyncio
import json
import os
import random
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.servers import running, started
from tests.serving import Server
from tools.certificates import Authority
from tools.servers import HAProxy, Memcached, Redis
from tools.servers.haproxy import SHIPPED
from tools.servers.installing import require

LONG = os.environ.get("TEST_LONG") == "1"
RESTARTS = 20 if LONG else 3
SLOW_SOCKETS = 5_000 if LONG else 100
CUT_SECONDS = 10.0
CLIENTS = 8


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.sign("haproxy", "127.0.0.1")


@pytest.fixture(scope="module")
def flags() -> Sequence[str]:
    keeping, caching = running(Redis), running(Memcached)
    return (
        *("--store", "redis", "--store-servers", keeping.address),
        *("--ranking", "redis", "--ranking-servers", keeping.address),
        *("--cache", "memcached", "--cache-servers", caching.address),
        *("--trusted-proxies", "127.0.0.1", "--drain-seconds", "3"),
    )


@pytest.fixture(scope="module")
def servers(flags: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("servers")
    made = [Server(folder / name, *flags, measured=False) for name in ("one", "two")]
    with ExitStack() as stack:
        for server in made:
            server.start()
            stack.callback(server.stop)
        yield made


@pytest.fixture
def proxy(servers: list[Server], certificate: Path, tmp_path: Path) -> Iterator[HAProxy]:
    with started(HAProxy(tmp_path / "haproxy", addresses(servers), certificate)) as proxy:
        wait_until_all_are_up(proxy)
        yield proxy


@pytest.fixture
async def http(proxy: HAProxy, authority: Authority) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(proxy, authority) as http:
        yield http


def addresses(servers: list[Server]) -> list[str]:
    return [f"127.0.0.1:{server.port}" for server in servers]


def client_of(proxy: HAProxy, authority: Authority) -> httpx.AsyncClient:
    believing = ssl.create_default_context(cafile=authority.certificate)
    return httpx.AsyncClient(base_url=f"https://127.0.0.1:{proxy.tls_port}", verify=believing, timeout=20)


def wait_until_all_are_up(proxy: HAProxy, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while set(proxy.states().values()) != {"UP"}:
        assert time.monotonic() < limit, proxy.states()
        time.sleep(0.05)


def logged(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.out().splitlines() if line.startswith("{")]


# What it passes on


def test_the_configuration_is_valid_and_gives_no_warning(certificate: Path, tmp_path: Path) -> None:
    proxy = HAProxy(tmp_path, ["127.0.0.1:1", "127.0.0.1:2"], certificate)
    command = [*proxy.command(), "-c"]
    done = subprocess.run(
        command, check=False, env={**os.environ, **proxy.environment()}, capture_output=True, text=True
    )
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


async def test_its_statistics_are_for_this_machine_alone() -> None:
    assert "presetenv ROOKERY_STATS   127.0.0.1:" in SHIPPED.read_text()


async def test_a_request_keeps_the_id_that_it_gets_here(http: httpx.AsyncClient, servers: list[Server]) -> None:
    answers = [await http.get("/top", headers={"X-Request-Id": "forged"}) for _ in range(4)]
    given = {answer.headers["x-request-id"] for answer in answers}
    assert len(given) == 4
    assert "forged" not in given
    async with asyncio.timeout(5):
        while given - {line.get("request_id") for server in servers for line in logged(server)}:
            await asyncio.sleep(0.05)


async def test_who_speaks_without_tls_is_told_where_to_go(proxy: HAProxy) -> None:
    async with httpx.AsyncClient() as plain:
        answer = await plain.get(f"http://127.0.0.1:{proxy.port}/top")
    assert (answer.status_code, answer.headers["location"]) == (308, f"https://127.0.0.1:{proxy.port}/top")


def curl(proxy: HAProxy, authority: Authority, *options: str) -> subprocess.CompletedProcess[str]:
    command = [require("curl", "curl"), "--silent", "--show-error", "--cacert", str(authority.certificate), *options]
    command += ["--write-out", "%{http_version} %{http_code}", "--output", "/dev/null"]
    url = f"https://127.0.0.1:{proxy.tls_port}/top"
    return subprocess.run([*command, url], capture_output=True, text=True, check=False)


def test_http_2_is_spoken(proxy: HAProxy, authority: Authority) -> None:
    assert curl(proxy, authority, "--http2").stdout == "2 200"


def test_old_tls_is_refused(proxy: HAProxy, authority: Authority) -> None:
    assert curl(proxy, authority, "--tlsv1.0", "--tls-max", "1.1").returncode == 35  # the handshake failed
    assert curl(proxy, authority, "--tls-max", "1.2").stdout.endswith(" 200")


async def test_a_body_that_is_too_long_and_a_head_that_is_too_long_are_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post("/tweet", content=b"x" * 70_000)).status_code == 413
    assert (await http.get("/top", headers={"X-Long": "x" * 40_000})).status_code in (400, 431)
    assert (await http.get("/top")).status_code == 200


async def test_the_servers_know_who_asks_whatever_he_says(
    flags: Sequence[str], certificate: Path, authority: Authority, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        limited = Server(tmp_path / "data", *flags, "--rate-limit", "on", "--rate-limit-address", "3", measured=False)
        limited.start()
        stack.callback(limited.stop)
        proxy = stack.enter_context(started(HAProxy(tmp_path / "proxy", addresses([limited]) * 2, certificate)))
        wait_until_all_are_up(proxy)
        found: dict[str, list[int]] = {}
        for address in ("127.0.0.5", "127.0.0.6"):
            believing = ssl.create_default_context(cafile=authority.certificate)
            transport = httpx.AsyncHTTPTransport(local_address=address, verify=believing)
            async with httpx.AsyncClient(transport=transport) as http:
                url = f"https://127.0.0.1:{proxy.tls_port}/top"
                answers = [await http.get(url, headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(5)]
            found[address] = [answer.status_code for answer in answers]
    assert found == {address: [200, 200, 200, 429, 429] for address in found}


# Who asks too much


@pytest.fixture
def strict(servers: list[Server], certificate: Path, tmp_path: Path) -> Iterator[HAProxy]:
    """One that limits this machine as it does others."""
    with started(HAProxy(tmp_path / "strict", addresses(servers), certificate, unlimited="192.0.2.0/24")) as proxy:
        wait_until_all_are_up(proxy)
        yield proxy


async def test_one_address_has_a_thousand_requests_in_ten_seconds(strict: HAProxy, authority: Authority) -> None:
    tls = ssl.create_default_context(cafile=authority.certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.tls_port, ssl=tls)
    statuses: list[int] = []
    head = ""
    while len(statuses) < 1_500 and statuses[-1:] != [429]:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
        statuses.append(int(head.split()[1]))
    writer.close()
    assert statuses[:1_000] == [200] * 1_000
    assert statuses[-1] == 429
    assert "retry-after: 10" in head


async def test_one_address_has_a_hundred_new_connections_a_second(strict: HAProxy) -> None:
    async def connect() -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            told = await reader.readline()
            writer.close()
        except ConnectionError:
            return False
        return told.startswith(b"HTTP/1.1 308 ")

    taken = [await connect() for _ in range(100)]
    taken += await asyncio.gather(*(connect() for _ in range(100)))
    assert all(taken[:100])
    assert not all(taken[100:])


async def test_one_address_has_500_connections(strict: HAProxy) -> None:
    held: list[asyncio.StreamWriter] = []
    answers: list[bool] = []

    async def connect() -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
            held.append(writer)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answers.append((await reader.readline()).startswith(b"HTTP/1.1 308 "))  # and is kept for nine seconds
        except ConnectionError:
            answers.append(False)

    async with asyncio.TaskGroup() as tasks:
        while all(answers) and len(answers) < 700:
            tasks.create_task(connect())
            await asyncio.sleep(0.012)  # less than a hundred a second
    for writer in held:
        writer.transport.abort()
    assert answers.index(False) >= 500


# Who takes his time


@pytest.mark.parametrize("through", ["haproxy", "rookery"])
@pytest.mark.parametrize(
    "sent",
    [
        b"GET /top HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /tweet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{",
        b"POST /tweet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
        + b" " * 20_000,  # more than HAProxy waits for before it sends it on
    ],
    ids=["head", "body", "rest of a body"],
)
async def test_slow_sockets_are_cut_and_others_go_on(
    proxy: HAProxy, authority: Authority, servers: list[Server], sent: bytes, through: str
) -> None:
    port = proxy.tls_port if through == "haproxy" else servers[0].port
    tls = ssl.create_default_context(cafile=authority.certificate) if through == "haproxy" else None
    lived: list[float] = []
    gate = asyncio.Semaphore(200)

    async def be_slow() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        begun = time.monotonic()
        with suppress(ConnectionError):
            writer.write(sent)
            trickling = asyncio.create_task(trickle(writer))
            while await reader.read(65_536):
                pass
            trickling.cancel()
        lived.append(time.monotonic() - begun)
        writer.close()

    async def trickle(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.5)
                writer.write(b"x")
                await writer.drain()

    slow = [asyncio.create_task(be_slow()) for _ in range(SLOW_SOCKETS)]
    answered = 0
    async with client_of(proxy, authority) as http:
        while any(not task.done() for task in slow):
            assert (await http.get("/top")).status_code == 200
            answered += 1
            await asyncio.sleep(0.01)
    await asyncio.gather(*slow)
    assert len(lived) == SLOW_SOCKETS
    assert max(lived) < CUT_SECONDS
    assert answered > 10


# Servers that break off


class Breaking:
    """A stand-in for two servers that are ready and end each POST without an answer. It counts what it was sent."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                method, path, *_ = head.split()
                self.sent[path] += 1
                if method == "post":
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()


async def test_only_what_may_be_done_twice_is_sent_again(
    certificate: Path, authority: Authority, tmp_path: Path
) -> None:
    breaking = Breaking()
    async with await asyncio.start_server(breaking.answer, "127.0.0.1", 0) as listening:
        address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        proxy = HAProxy(tmp_path / "haproxy", [address, address], certificate)
        await asyncio.to_thread(proxy.start)
        try:
            await asyncio.to_thread(wait_until_all_are_up, proxy)
            for path, headers in (("/once", {}), ("/again", {"Idempotency-Key": "key"})):
                async with client_of(proxy, authority) as http:
                    assert (await http.post(path, json={}, headers=headers)).status_code in (502, 503)
            async with client_of(proxy, authority) as http:
                assert (await http.get("/")).status_code == 200
                with pytest.raises(httpx.RemoteProtocolError):  # behind another request there is no answer
                    await http.post("/behind", json={})
        finally:
            await asyncio.to_thread(proxy.stop)
    assert breaking.sent["/once"] == breaking.sent["/behind"] == 1
    assert breaking.sent["/again"] == 4, "and three more"


# Servers that come and go


@dataclass
class Load:
    """Clients that post and read; a post has a key, so it may be sent again."""

    http: httpx.AsyncClient
    failed: Counter[str] = field(default_factory=Counter)
    posted: set[str] = field(default_factory=set)
    asked: int = 0
    stopped: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def stop(self) -> None:
        self.stopped = True
        await asyncio.gather(*self.tasks)

    async def go_on(self, number: int) -> None:
        count = 0
        while not self.stopped:
            count += 1
            body = f"{number}: {count}"
            sent = {"user_name": f"user{number}", "body": body}
            await self._ask("POST", "/tweet", 201, json=sent, headers={"Idempotency-Key": body})
            await self._ask("GET", f"/tweet/@user{number}", 200)

    async def _ask(self, method: str, path: str, status: int, **sent: object) -> None:
        self.asked += 1
        try:
            answer = await self.http.request(method, path, **sent)  # type: ignore[arg-type]
        except httpx.TransportError as error:
            self.failed[f"{method} {type(error).__name__}: {error}"] += 1
            return
        if answer.status_code != status:
            self.failed[f"{method} {answer.status_code} {answer.text[:80]}"] += 1
        elif method == "POST":
            self.posted.add(answer.json()["body"])

    async def expect_each_once(self) -> None:
        found: Counter[str] = Counter()
        for number in range(CLIENTS):
            path = f"/tweet/@user{number}?limit=100"
            while path:
                answer = await self.http.get(path)
                found.update(tweet["body"] for tweet in answer.json())
                path = answer.links.get("next", {}).get("url", "")
        assert self.posted <= found.keys(), "nothing is lost"
        assert {body for body in self.posted if found[body] > 1} == set(), "nothing is there twice"


@pytest.fixture
async def load(http: httpx.AsyncClient) -> AsyncIterator[Load]:
    load = Load(http)
    load.tasks = [asyncio.create_task(load.go_on(number)) for number in range(CLIENTS)]
    while load.asked < 10 * CLIENTS:
        await asyncio.sleep(0.01)
    yield load
    await load.stop()


async def restart(server: Server, proxy: HAProxy) -> None:
    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start, server.port)
    await asyncio.to_thread(wait_until_all_are_up, proxy)


async def finish(load: Load) -> None:
    await load.stop()
    await load.expect_each_once()


async def test_rolling_restarts_fail_nobody(load: Load, proxy: HAProxy, servers: list[Server]) -> None:
    for turn in range(RESTARTS):
        await restart(servers[turn % 2], proxy)
    await finish(load)
    assert load.failed == Counter()


async def test_a_reload_of_haproxy_fails_nobody(load: Load, proxy: HAProxy) -> None:
    for _ in range(3):
        before, asked = children(proxy), load.asked
        proxy.reload()
        async with asyncio.timeout(30):
            while children(proxy) & before or load.asked < asked + 100:  # the old process answers its own, and ends
                await asyncio.sleep(0.05)
    await finish(load)
    assert load.failed == Counter()


def children(proxy: HAProxy) -> set[str]:
    """The processes that answer."""
    return set(Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split())


async def test_a_server_that_is_killed_fails_nobody_who_may_be_answered_by_another(
    load: Load, proxy: HAProxy, servers: list[Server]
) -> None:
    chance = random.Random(7)
    for turn in range(RESTARTS):
        before = load.asked
        while load.asked < before + chance.randint(20, 100):
            await asyncio.sleep(0.01)
        server = servers[turn % 2]
        server.kill()
        await asyncio.to_thread(server.start, server.port)
        await asyncio.to_thread(wait_until_all_are_up, proxy)
    await finish(load)
    assert load.failed == Counter()
