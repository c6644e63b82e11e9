"""What a restart and a dead log server cost: no request fails with HAProxy's retries, and answers take as long as ever.

Two servers on one Redis and memcached behind the HAProxy that we ship are restarted, and killed, in turns under load:
as it is configured, and without retries and redispatch. A server that sends its log to a local rsyslog is asked while
the central one is up and while it is killed, in turns, for a minute each.
"""

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx

from bench.measuring import Plan, Table, millis, percentile
from bench.outside import rookery
from tests.serving import Server
from tools.certificates import Authority
from tools.servers import HAProxy, Memcached, Redis, Rsyslog
from tools.servers import haproxy as shipped_haproxy
from tools.servers import rsyslog as shipped_rsyslog

CLIENTS = 8
_RETRYING = ("option redispatch", "retry-on", "http-request disable-l7-retry")


def run(plan: Plan) -> list[Table]:
    authority = Authority(plan.scratch / "authority")
    return [_restarts(plan, authority), _log(plan, authority)]


def _restarts(plan: Plan, authority: Authority) -> Table:
    rows = []
    certificate = authority.sign("haproxy", "127.0.0.1")
    turns = plan.pick(20, 2)
    for how in ("as configured", "without retries"):
        folder = plan.scratch / how.replace(" ", "-")
        folder.mkdir()
        file = folder / "haproxy.cfg"
        file.write_text(_configured(with_retries=how == "as configured"))
        with ExitStack() as stack:
            redis, memcached = Redis(folder / "redis"), Memcached(folder / "memcached")
            for one in (redis, memcached):
                stack.enter_context(one)
            flags = (
                *("--store", "redis", "--store-servers", redis.address, "--ranking", "redis"),
                *("--ranking-servers", redis.address, "--cache", "memcached", "--cache-servers", memcached.address),
                *("--trusted-proxies", "127.0.0.1", "--drain-seconds", "3"),
            )
            servers = [Server(folder / name, *flags, measured=False) for name in ("one", "two")]
            for server in servers:
                server.start()
                stack.callback(server.stop)
            proxy = HAProxy(folder / "haproxy", [f"127.0.0.1:{one.port}" for one in servers], certificate, file=file)
            stack.enter_context(proxy)

            def restart_all(servers: list[Server] = servers, proxy: HAProxy = proxy, drained: bool = True) -> None:
                for turn in range(turns):
                    server = servers[turn % 2]
                    if drained:
                        server.stop()
                    else:
                        server.kill()
                    server.start(server.port)
                    while set(proxy.states().values()) != {"UP"}:
                        time.sleep(0.05)

            url = f"https://127.0.0.1:{proxy.tls_port}"
            for what, drained in (("restarted", True), ("killed", False)):
                asked, failed = asyncio.run(
                    _under_load(url, authority.certificate, lambda drained=drained: restart_all(drained=drained))  # type: ignore[misc]
                )
                told = ", ".join(f"{many} {kind}" for kind, many in failed.items()) or "none"
                rows.append([how, f"{turns} {what}", f"{asked:,}", str(sum(failed.values())), told])
    head = ["HAProxy", "servers", "requests", "failed", "how"]
    return Table("Servers that come and go under load (target: none fails as configured)", head, rows)


def _configured(*, with_retries: bool) -> str:
    text = shipped_haproxy.SHIPPED.read_text()
    if with_retries:
        return text
    lines = text.replace("retries 3", "retries 0").splitlines(keepends=True)
    return "".join(line for line in lines if not line.strip().startswith(_RETRYING))


async def _under_load(url: str, authority: Path, work: Callable[[], None]) -> tuple[int, Counter[str]]:
    failed: Counter[str] = Counter()
    asked, stopped = 0, False

    async def go_on(http: httpx.AsyncClient, number: int) -> None:
        nonlocal asked
        count = 0
        while not stopped:
            count += 1
            sent = {"user_name": f"user{number}", "body": f"{number} {count} {time.time_ns()}"}
            for request in (
                http.build_request("POST", "/tweet", json=sent, headers={"Idempotency-Key": f"key-{sent['body']}"}),
                http.build_request("GET", f"/tweet/@user{number}"),
            ):
                asked += 1
                try:
                    answer = await http.send(request)
                    if answer.is_error:
                        failed[f"{request.method} {answer.status_code}"] += 1
                except httpx.TransportError as error:
                    failed[f"{request.method} {type(error).__name__}"] += 1

    async with httpx.AsyncClient(base_url=url, verify=ssl.create_default_context(cafile=authority)) as http:
        tasks = [asyncio.create_task(go_on(http, number)) for number in range(CLIENTS)]
        await asyncio.to_thread(work)
        stopped = True
        await asyncio.gather(*tasks)
    return asked, failed


def _log(plan: Plan, authority: Authority) -> Table:
    turns, seconds = plan.pick(3, 1), plan.pick(20, 5)
    folder = plan.scratch / "log"
    folder.mkdir()
    own = authority.sign("log", "127.0.0.1")
    files = shipped_rsyslog.SHIPPED
    central = Rsyslog(folder / "central", files / "central.conf", authority=authority.certificate, own=own)
    local = Rsyslog(
        folder / "local", files / "rookery.conf", authority=authority.certificate, own=own, central=central.port
    )
    took: dict[str, list[list[float]]] = {"up": [], "killed": []}
    ids: dict[str, set[str]] = {"up": set(), "killed": set()}
    with ExitStack() as stack:
        for one in (central, local):
            stack.enter_context(one)
        server = stack.enter_context(rookery(folder, "--log-server", local.address))
        for _ in range(turns):
            for how, turns_of_it in took.items():
                if how == "killed":
                    central.kill()
                answered = asyncio.run(_asked(server.port, seconds))
                turns_of_it.append([seconds for seconds, _ in answered])
                ids[how].update(one for _, one in answered)
                if how == "killed":
                    central.start()
                _filed(central, ids[how])  # until all are there, so that the next turn is not burdened
        rows = []
        for how, answers in took.items():
            all_of_them = [one for turn in answers for one in turn]
            once, twice = _filed(central, ids[how])
            p99s = " ".join(millis(percentile(turn, 99)) for turn in answers)
            row = [millis(percentile(all_of_them, 50)), millis(percentile(all_of_them, 99)), p99s]
            rows.append([how, f"{len(ids[how]):,}", *row, millis(max(all_of_them)), f"{once:,}", f"{twice:,}"])
    head = ["the central log server", "requests", "p50", "p99", "p99 by turn", "max", "ids filed once", "twice"]
    title = f"{CLIENTS} clients while the central log server is up, and away, {turns} × {seconds} s each in turns"
    return Table(title, head, rows)


async def _asked(port: int, seconds: float) -> list[tuple[float, str]]:
    """How long each answer took, and its id."""
    found: list[tuple[float, str]] = []
    until = time.perf_counter() + seconds

    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begun := time.perf_counter()) < until:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
            found.append((time.perf_counter() - begun, head.partition("x-request-id: ")[2].split()[0]))
            await asyncio.sleep(0.005)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return found


def _filed(central: Rsyslog, ids: set[str]) -> tuple[int, int]:
    """How many of these requests are in its files once, and more often, when all are there."""
    deadline = time.monotonic() + 120
    while True:
        found: Counter[str] = Counter()
        for file in central.logs.rglob("*.log"):
            found.update(json.loads(line).get("request_id", "") for line in file.read_text().splitlines())
        if ids <= found.keys() or time.monotonic() > deadline:
            return sum(found[one] == 1 for one in ids), sum(found[one] > 1 for one in ids)
        time.sleep(0.2)
