"""Measuring: CPU time of this and of other processes, sides that take turns, and tables of what was found.

The machine is never quiet. So what is compared is measured in one run, in turns, and the median is taken; and what is
counted, where it can be, is CPU time (user and system, all threads), which a neighbour's work touches little.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parent.parent
IN_FLIGHT = 64

Operation = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How thorough a run is, and where things are."""

    quick: bool
    scratch: Path
    """A folder on a disk, for databases."""
    shared: Path
    """Where the real graphs and tweets are, if they are."""

    def pick(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Table:
    """What a benchmark found. `notes` are printed under it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        lines = [f"**{self.title}**", ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in (self.head, ["---"] * len(self.head), *self.rows)]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines)


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, user and system, all threads.

    The kernel's own clock of that process, which clock_getcpuclockid(3) would name: to the nanosecond, where
    /proc/PID/stat counts hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmRSS")


def core_of(pid: int) -> tuple[float, float]:
    """Seconds that a process's main thread had a core, and that it waited for one while others had them."""
    ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()
    return int(ran) / 1e9, int(waited) / 1e9


@dataclass(frozen=True, slots=True)
class Cost:
    """What one turn took."""

    cpu: float
    wall: float


def cost_of(run: Callable[[], object], pid: int | None = None) -> Cost:
    """CPU seconds of this process, or of another, and wall seconds, while something runs here."""
    read = time.process_time if pid is None else lambda: cpu_of(pid)
    cpu, wall = read(), time.perf_counter()
    run()
    return Cost(read() - cpu, time.perf_counter() - wall)


async def many(operation: Operation, count: int) -> None:
    """Do it so many times, 64 in flight."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await operation()

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


def in_turns(rounds: int, sides: Mapping[str, Callable[[], Cost]]) -> dict[str, list[Cost]]:
    """Measure sides A B C A B C …; the first turn of each warms up and does not count."""
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, measure in sides.items():
            cost = measure()
            if turn:
                found[name].append(cost)
    return found


def of_operations(
    title: str, runner: asyncio.Runner, operations: Mapping[str, Operation], count: int, rounds: int
) -> Table:
    """What each of these costs its client, so many of it in each round, 64 in flight."""

    def side(operation: Operation) -> Callable[[], Cost]:
        return lambda: cost_of(lambda: runner.run(many(operation, count)))

    found = in_turns(rounds, {name: side(operation) for name, operation in operations.items()})
    rows = [
        [
            name,
            micros(cpu_median(costs) / count),
            spread([cost.cpu for cost in costs]),
            f"{count / wall_median(costs):,.0f}",
        ]
        for name, costs in found.items()
    ]
    return Table(title, ["what", "client CPU", "quartiles", "operations/s"], rows)


def cpu_median(costs: Sequence[Cost]) -> float:
    return median(cost.cpu for cost in costs)


def wall_median(costs: Sequence[Cost]) -> float:
    return median(cost.wall for cost in costs)


def spread(values: Sequence[float]) -> str:
    """The quartiles around a median, in per cent of it: how noisy the run was."""
    if len(values) < 2:
        return "–"
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"-{100 * (1 - low / middle):.0f} +{100 * (high / middle - 1):.0f} %"


def percentile(values: Sequence[float], per_cent: int) -> float:
    """The least value that so many per cent are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * per_cent // 100) - 1))]


def micros(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} µs" if seconds < 1e-4 else f"{seconds * 1e6:,.0f} µs"


def millis(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms" if seconds < 0.1 else f"{seconds * 1e3:,.0f} ms"
