"""Others' answers while thousands of sockets are slow: p99 at most doubled, at Rookery itself and through HAProxy.

The sockets are opened by a process of its own, fifty at once, and send a head or a body that never ends, a byte every
half second. Meanwhile somebody asks for the top list a hundred times a second.
"""

import asyncio
import resource
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from time import perf_counter

from bench.measuring import ROOT, Plan, Table, millis, percentile
from bench.outside import rookery
from tools.certificates import Authority
from tools.servers import HAProxy

SOCKETS = 5_000
_PAUSE = 0.01
_HEAD = b"GET /top HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
_BODY = b"POST /tweet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
_ASK = b"GET /top HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(plan: Plan) -> list[Table]:
    sockets = plan.pick(SOCKETS, 500)
    rows: list[list[str]] = []
    authority = Authority(plan.scratch / "authority")
    with ExitStack() as stack:
        server = stack.enter_context(rookery(plan.scratch, "--trusted-proxies", "127.0.0.1"))
        address = f"127.0.0.1:{server.port}"
        proxy = HAProxy(plan.scratch / "haproxy", [address, address], authority.sign("haproxy", "127.0.0.1"))
        stack.enter_context(proxy)
        for through, port, trusted in (("", server.port, None), ("HAProxy", proxy.tls_port, authority.certificate)):
            for sent in ("head", "body"):
                until = perf_counter() + 5
                quiet = asyncio.run(_ask(port, trusted, partial(_is_past, until)))
                slow = subprocess.Popen(
                    [sys.executable, "-m", "bench.slow", str(port), sent, str(sockets), str(trusted or "")],
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
                busy = asyncio.run(_ask(port, trusted, partial(_has_ended, slow)))
                assert slow.stdout
                rows.append(_row(through or "Rookery alone", sent, quiet, busy, slow.stdout.read()))
    head = [
        "through",
        "slow",
        "quiet p50",
        "p99",
        "beside them p50",
        "p99",
        "max",
        "p99 ratio",
        "open at once",
        "longest lived",
    ]
    return [Table(f"Others beside {sockets:,} slow sockets (target: p99 doubled at most)", head, rows)]


def _row(through: str, sent: str, quiet: Sequence[float], busy: Sequence[float], said: str) -> list[str]:
    longest, many = said.split()
    before, beside = percentile(quiet, 99), percentile(busy, 99)
    return [
        *(through, sent, millis(percentile(quiet, 50)), millis(before), millis(percentile(busy, 50)), millis(beside)),
        *(millis(max(busy)), f"{beside / before:.2f}", f"{int(many):,}", f"{float(longest):.1f} s"),
    ]


def _trusting(authority: Path | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=authority) if authority else None


def _is_past(moment: float) -> bool:
    return perf_counter() > moment


def _has_ended(process: "subprocess.Popen[str]") -> bool:
    return process.poll() is not None


async def _ask(port: int, authority: Path | None, ended: Callable[[], bool]) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_trusting(authority))
    took: list[float] = []
    while not ended():
        begun = perf_counter()
        writer.write(_ASK)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        took.append(perf_counter() - begun)
        await asyncio.sleep(_PAUSE)
    writer.close()
    return took


async def _be_slow(port: int, sent: bytes, sockets: int, authority: Path | None) -> tuple[float, int]:
    """How long the longest lived, in seconds, and how many were open at once."""
    lived: list[float] = []
    open_now = peak = 0
    gate = asyncio.Semaphore(50)
    trusting = _trusting(authority)

    async def one() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        nonlocal open_now, peak
        open_now += 1
        peak = max(peak, open_now)
        begun = perf_counter()
        trickling = asyncio.create_task(_trickle(writer, sent))
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        trickling.cancel()
        open_now -= 1
        lived.append(perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(one() for _ in range(sockets)))
    assert len(lived) == sockets
    return max(lived), peak


async def _trickle(writer: asyncio.StreamWriter, sent: bytes) -> None:
    with suppress(ConnectionError):
        while True:
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(0.5)
            sent = b"x"


def main(port: str, sent: str, sockets: str, authority: str) -> None:
    wanted = {"head": _HEAD, "body": _BODY}[sent]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(*asyncio.run(_be_slow(int(port), wanted, int(sockets), Path(authority) if authority else None)))


if __name__ == "__main__":
    main(*sys.argv[1:])
