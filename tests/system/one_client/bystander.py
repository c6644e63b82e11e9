"""A second client beside an attack: how long its answers take, quiet and attacked in turns, within one run.

The attacker is a process of its own, so that its work is not the bystander's. All share the machine's cores, with other
work besides. So the bystander also asks another server that nobody attacks, in the same moments: what its answers take
longer is the machine's. And the attacked server tells for how much of its own CPU time its event loop was held.
"""

import asyncio
import logging
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Generic, TypeVar

import httpx

from tests.serving import Server, running_server
from tools.servers.process import free_port

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LIVEZ = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_TOP = b"GET /top HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ASKED = (*9 * (_LIVEZ,), _TOP)
"""What a bystander asks in turns. Health checks have no limit, so they measure well; but no bound refuses them."""
_DOCUMENT = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ASKED_BESIDE_THE_TOP = (*9 * (_LIVEZ,), _DOCUMENT)
"""The same where the top list itself is attacked, which may then take the time of a search."""
_ADDRESS = "127.0.0.2"
"""The bystander's, which is not the attacker's: it has limits of its own."""
HELD_SECONDS = 0.05
"""CPU seconds for which no attack may hold the event loop. Time that a virtual machine loses is among them, so it is
more than the 20 ms of `tests/web/test_holds.py`, where the least of several counts."""
_PAUSE = 0.005
"""Seconds between an answer and the next request."""
_ANSWER_SECONDS = 30.0
"""The longest wait for one answer; a server that takes longer has stopped."""


@dataclass
class Measured(Generic[T]):
    """Seconds that each answer took, and the results of the attacks."""

    quiet: list[float] = field(default_factory=list)
    attacked: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=list)
    """Of the server that nobody attacked, during the attacks."""
    holds: int = 0
    """How often the attacked server's event loop was held for more than `HELD_SECONDS`."""
    statuses: set[int] = field(default_factory=set)
    """Statuses of the bystander's answers during the attacks."""
    results: list[T] = field(default_factory=list)

    def require(self, floor: float, bursts: int = 0, status: int = 200, before: int = 2) -> None:
        """Fail if an answer had another status, the loop was held for 50 ms of CPU, or the attack doubled the p99.

        Doubled against the quiet turns or the server elsewhere, whichever was slower; `floor` in seconds is always
        allowed. Requests that come together, by hundreds, are begun in one turn of the loop: so often, in `bursts`, it
        may be held by them, and as many of them as are `before` another's are waited for, each as long as that one.
        """
        quiet, attacked, elsewhere = (_percentile(took) for took in (self.quiet, self.attacked, self.elsewhere))
        told = (
            f"p99 {quiet * 1000:.1f} ms quiet, {attacked * 1000:.1f} ms attacked, {elsewhere * 1000:.1f} ms elsewhere;"
            f" held {self.holds} times; {len(self.attacked)} answers of {self.statuses}"
        )
        _log.info(told)
        assert self.attacked, "nothing was measured"
        assert self.statuses == {status}, told
        assert self.holds <= bursts, told
        assert attacked <= max(2 * quiet, before * elsewhere, floor), told


class Place:
    """The server to be attacked, which shows metrics, and another one beside it."""

    def __init__(self, attacked: Server, elsewhere: Server, metrics: int) -> None:
        self.attacked = attacked
        self.elsewhere = elsewhere
        self.metrics = metrics

    @property
    def port(self) -> int:
        """Of the server to be attacked."""
        return self.attacked.port

    def holds(self) -> int:
        """How often the event loop of the attacked server was held for more than `HELD_SECONDS` so far."""
        told = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics").text
        name = "rookery_event_loop_held_seconds"
        shorter = re.search(rf'{name}_bucket{{le="{HELD_SECONDS}"}} (\S+)', told)
        every = re.search(rf"{name}_count (\S+)", told)
        assert shorter, told
        assert every, told
        return int(float(every[1]) - float(shorter[1]))


@contextmanager
def place(folder: Path, *flags: str) -> Iterator[Place]:
    """Two servers with these flags. Data that is in `folder / "data"` already is the attacked one's."""
    metrics = free_port()
    (folder / "elsewhere").mkdir()
    with (
        running_server(folder, *flags, "--metrics-port", str(metrics), measured=False) as attacked,
        running_server(folder / "elsewhere", *flags, measured=False) as elsewhere,
    ):
        yield Place(attacked, elsewhere, metrics)


def beside(
    at: Place,
    asked: Sequence[bytes],
    attack: Callable[..., T],
    *arguments: object,
    turns: int = 2,
    quiet_seconds: float = 1.0,
) -> Measured[T]:
    """Measure a bystander's answers beside `attack(port, *arguments)`, a module's function that ends by itself.

    What is `asked` it asks in turns.
    """
    found: Measured[T] = Measured()

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(turns):
            until = perf_counter() + quiet_seconds
            await _ask(at.port, asked, found.quiet, set(), lambda until=until: perf_counter() >= until)  # type: ignore[misc]
            attacking = loop.run_in_executor(pool, attack, at.port, *arguments)
            await asyncio.gather(
                _ask(at.port, asked, found.attacked, found.statuses, attacking.done),
                _ask(at.elsewhere.port, asked, found.elsewhere, set(), attacking.done),
            )
            found.results.append(await attacking)

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(int).result()  # the attacker's process is there before anything is measured
        before = at.holds()
        asyncio.run(measure())
        found.holds = at.holds() - before
    return found


async def _ask(
    port: int, asked: Sequence[bytes], took: list[float], statuses: set[int], is_over: Callable[[], bool]
) -> None:
    """Ask again and again on one kept connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(_ADDRESS, 0))
    turns = cycle(asked)
    try:
        while not is_over():
            begun = perf_counter()
            writer.write(next(turns))
            async with asyncio.timeout(_ANSWER_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].split()
                await reader.readexactly(int(length[0]) if length else 0)
            took.append(perf_counter() - begun)
            statuses.add(int(head.split()[1]))
            await asyncio.sleep(_PAUSE)
    finally:
        writer.close()


def _percentile(took: list[float]) -> float:
    return sorted(took)[min(int(len(took) * 0.99), len(took) - 1)] if took else 0.0
