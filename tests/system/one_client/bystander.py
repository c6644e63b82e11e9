"""A second client beside an attack: how long its answers take, quiet and attacked in turns, within one run.

The attacker is a process of its own, so that its work is not the bystander's. Both clients and the server share the
machine's cores; the bound therefore compares with the quiet turns of the same run, and has a named floor.
"""

import asyncio
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_PAUSE = 0.005
"""Seconds between an answer and the next request."""
_ANSWER_SECONDS = 30.0
"""The longest wait for one answer; a server that takes longer has stopped."""


@dataclass
class Measured(Generic[T]):
    """Seconds that each answer took, and the results of the attacks."""

    quiet: list[float] = field(default_factory=list)
    attacked: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    """Statuses of the bystander's answers during the attacks."""
    results: list[T] = field(default_factory=list)

    def p99(self) -> tuple[float, float]:
        """The 99th percentile in seconds: quiet, attacked."""
        return _percentile(self.quiet), _percentile(self.attacked)

    def require(self, floor: float) -> None:
        """Fail unless the attacked p99 is at most twice the quiet one, or `floor` seconds, whichever is greater."""
        quiet, attacked = self.p99()
        told = f"p99 {quiet * 1000:.1f} ms quiet, {attacked * 1000:.1f} ms attacked, of {len(self.attacked)} answers"
        assert attacked <= max(2 * quiet, floor), told


def beside(
    port: int, request: bytes, attack: Callable[..., T], *arguments: object, turns: int = 2, quiet_seconds: float = 1.0
) -> Measured[T]:
    """Measure a bystander's `request` beside `attack(*arguments)`, a module's function that runs to its own end."""
    found: Measured[T] = Measured()

    async def measure() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(turns):
            until = perf_counter() + quiet_seconds
            await _ask(port, request, found.quiet, set(), lambda until=until: perf_counter() >= until)  # type: ignore[misc]
            attacking = loop.run_in_executor(pool, attack, *arguments)
            await _ask(port, request, found.attacked, found.statuses, attacking.done)
            found.results.append(await attacking)

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(int).result()  # the attacker's process is there before anything is measured
        asyncio.run(measure())
    return found


async def _ask(port: int, request: bytes, took: list[float], statuses: set[int], is_over: Callable[[], bool]) -> None:
    """Ask again and again on one kept connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while not is_over():
            begun = perf_counter()
            writer.write(request)
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
    assert took, "nothing was measured"
    return sorted(took)[min(int(len(took) * 0.99), len(took) - 1)]
