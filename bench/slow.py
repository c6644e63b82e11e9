"""Others' answers while thousands of sockets are slow: p99 at most doubled, at Rookery itself and through HAProxy.

The sockets are opened by a process of its own, all within three seconds, and send a head or a body that never ends, a
byte every half second. Meanwhile somebody asks for the top list a hundred times a second. As they share two cores with
all else here, he also asks while as many are slow at another server: what is more than that is the server's own.
"""

import asyncio
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter

from bench.measuring import ROOT, Plan, Table, millis, percentile
from bench.outside import rookery
from tools.certificates import Authority
from tools.servers import HAProxy

SOCKETS = 5_000
_OPENING_SECONDS = 3.0
"""Evenly, and all before the first is cut."""
_PAUSE = 0.01
_HEAD = b"GET /top HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
_BODY = b"POST /tweet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
_ASK = b"GET /top HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(plan: Plan) -> list[Table]:
    sockets, rounds = plan.pick(SOCKETS, 500), plan.pick(3, 1)
    rows: list[list[str]] = []
    authority = Authority(plan.scratch / "authority")
    with ExitStack() as stack:
        (port, tls_port), (other, other_tls) = (_place(stack, plan.scratch / name, authority) for name in ("1", "2"))
        trusted = authority.certificate
        for through, asked, elsewhere, trust in (
            ("Rookery alone", port, other, None),
            ("HAProxy", tls_port, other_tls, trusted),
        ):
            for sent in ("head", "body"):
                taken = _Taken()
                for _ in range(rounds):
                    taken.quiet += asyncio.run(_ask(asked, trust, partial(_is_past, perf_counter() + 5)))
                    taken.elsewhere += _beside(asked, elsewhere, sent, sockets, trust)[0]
                    here, longest, many = _beside(asked, asked, sent, sockets, trust)
                    taken.here += here
                    taken.longest, taken.most = max(taken.longest, longest), max(taken.most, many)
                rows.append(taken.row(through, sent))
    return [Table(f"Others beside {sockets:,} slow sockets (target: p99 doubled at most)", _HEADS, rows)]


_HEADS = [
    *("through", "slow", "quiet p50", "p99", "beside them p50", "p99", "max", "ratio to quiet"),
    *("beside them at another server p99", "max", "ratio to that", "open at once", "longest lived"),
]


@dataclass
class _Taken:
    """How long answers took, in seconds, and what became of the slow sockets."""

    quiet: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)
    longest: float = 0.0
    most: int = 0

    def row(self, through: str, sent: str) -> list[str]:
        quiet, elsewhere, here = (percentile(taken, 99) for taken in (self.quiet, self.elsewhere, self.here))
        return [
            *(through, sent, millis(percentile(self.quiet, 50)), millis(quiet)),
            *(millis(percentile(self.here, 50)), millis(here), millis(max(self.here)), f"{here / quiet:.2f}"),
            *(millis(elsewhere), millis(max(self.elsewhere)), f"{here / elsewhere:.2f}"),
            *(f"{self.most:,}", f"{self.longest:.1f} s"),
        ]


def _place(stack: ExitStack, folder: Path, authority: Authority) -> tuple[int, int]:
    """A Rookery, and an HAProxy before it: their ports."""
    folder.mkdir()
    server = stack.enter_context(rookery(folder, "--trusted-proxies", "127.0.0.1"))
    address = f"127.0.0.1:{server.port}"
    proxy = HAProxy(folder / "haproxy", [address, address], authority.sign("haproxy", "127.0.0.1"))
    return server.port, stack.enter_context(proxy).tls_port


def _beside(asked: int, attacked: int, sent: str, sockets: int, trusted: Path | None) -> tuple[list[float], float, int]:
    """How long answers took while sockets were slow; how long the longest of those lived, and how many were open."""
    command = [sys.executable, "-m", "bench.slow", str(attacked), sent, str(sockets), str(trusted or "")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as slow:
        took = asyncio.run(_ask(asked, trusted, partial(_has_ended, slow)))
        assert slow.stdout
        longest, many = slow.stdout.read().split()
    return took, float(longest), int(many)


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
    trusting = _trusting(authority)

    async def one(number: int) -> None:
        await asyncio.sleep(number / sockets * _OPENING_SECONDS)
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

    await asyncio.gather(*(one(number) for number in range(sockets)))
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
    os.nice(19)  # they are elsewhere in life, and take no core from who is measured
    print(*asyncio.run(_be_slow(int(port), wanted, int(sockets), Path(authority) if authority else None)))


if __name__ == "__main__":
    main(*sys.argv[1:])
