"""What HAProxy passes on, what it refuses, and whom it limits."""

import asyncio
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.servers import started
from tests.serving import Server
from tests.system.haproxy.asking import StandIn, addresses, before, client_of, trusting, wait_until_all_are_up
from tools.certificates import Authority
from tools.servers import HAProxy
from tools.servers.installing import require


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


def test_its_statistics_are_for_this_machine_alone(certificate: Path, tmp_path: Path) -> None:
    class AsShipped(HAProxy):
        def environment(self) -> Mapping[str, str]:
            told = dict(super().environment())
            del told["ROOKERY_STATS"]
            return told

    proxy = AsShipped(tmp_path, ["127.0.0.1:1", "127.0.0.1:2"], certificate)
    proxy.statistics_port = 8404
    with started(proxy):
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    assert re.findall(rf"(\S+):{proxy.statistics_port:04X} 0+:0000 0A", listening) == ["0100007F"]


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


async def test_a_body_and_a_head_that_are_too_long_reach_no_server(
    certificate: Path, authority: Authority, tmp_path: Path
) -> None:
    async with (
        StandIn().listening() as server,
        before(tmp_path, [server] * 2, certificate) as proxy,
        client_of(proxy, authority) as http,
    ):
        assert (await http.post("/longest", content=b"x" * 65_536)).status_code == 200
        assert (await http.post("/too-long", content=b"x" * 65_537)).status_code == 413
        assert (await http.get("/long-head", headers={"X-Long": "x" * 17_000})).status_code in (400, 431)
        assert (await http.get("/good")).status_code == 200
    assert server.sent.keys() - {"/readyz", "/livez"} == {"/longest", "/good"}


async def test_what_rookery_refuses_comes_through(http: httpx.AsyncClient) -> None:
    assert (await http.post("/tweet", content=b"x" * 65_537)).status_code == 413
    assert (await http.post("/tweet", content=b"{")).status_code == 415


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
            transport = httpx.AsyncHTTPTransport(local_address=address, verify=trusting(authority))
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
    tls = trusting(authority)
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


async def is_taken(proxy: HAProxy) -> bool:
    """Whether a new connection is."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = await reader.readline()
        writer.close()
    except ConnectionError:
        return False
    return told.startswith(b"HTTP/1.1 308 ")


async def test_one_address_has_a_hundred_new_connections_a_second(strict: HAProxy) -> None:
    taken = [await is_taken(strict) for _ in range(100)]
    taken += await asyncio.gather(*(is_taken(strict) for _ in range(100)))
    assert all(taken[:100])
    assert not all(taken[100:])


async def test_one_address_has_500_connections(strict: HAProxy) -> None:
    begun = time.monotonic()
    with ExitStack() as stack:
        held: list[socket.socket] = []
        while len(held) < 500:
            held.append(stack.enter_context(socket.create_connection(("127.0.0.1", strict.tls_port))))
            due = begun + len(held) * 0.011  # less than a hundred a second, and all within the nine that each has
            await asyncio.sleep(due - time.monotonic())
        assert not await is_taken(strict)
        for one in held:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):  # nor is one of them closed
                one.recv(1)
