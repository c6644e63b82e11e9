"""From the answer to a post until it is in a resident follower's feed: p99 under 100 ms, at 70 % of saturation.

A server in a process of its own. Its saturation with posts to 100 resident followers each is found first, 64 in flight.
Then such posts come at 70 % of that, at random moments, and beside them someone posts and looks at a follower's feed,
every millisecond, until the tweet is in it. The follower is the last one whom the fan-out comes to. What is told ends
with the answer that showed the tweet, so it holds that request's own time as well; the time of such a request alone,
before each post, stands beside it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from time import perf_counter

import msgspec
import uvloop

from bench.inside import Inside, Person, texts
from bench.measuring import IN_FLIGHT, Cost, Plan, Table, core_of, cost_of, in_turns, millis, percentile, wall_median
from bench.outside import Client, Clients, get, post, rookery

SIZES = (10, 5_000)
LOAD_AUTHORS = 64
LOAD_FOLLOWERS = 100
LOAD = 0.7
TARGET = 0.1
_LOOK_SECONDS = 0.001
_LOST_SECONDS = 20.0
_LINES = 128


@dataclass(frozen=True, slots=True)
class _Probe:
    """An author, and the follower whom the fan-out comes to last."""

    author: Person
    last: Person
    followers: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """Seconds that reading the feed took, from the post to its answer, and from the answer to the feed."""

    read: float
    answered: float
    visible: float


def run(plan: Plan) -> list[Table]:
    with Inside(plan.scratch) as inside:
        followers = inside.people("follower", SIZES[-1])
        loaders = inside.people("loader", LOAD_AUTHORS)
        chance = Random(4)
        inside.follow((each, author) for author in loaders for each in chance.sample(followers, LOAD_FOLLOWERS))
        probes = []
        for size, author in zip(SIZES, inside.people("author", len(SIZES)), strict=True):
            inside.follow((each, author) for each in followers[:size])
            probes.append(_Probe(author, followers[0], size))  # they are walked from the newest id down
    with ExitStack() as stack:
        server = stack.enter_context(rookery(plan.scratch))
        clients = stack.enter_context(Clients([server.port], IN_FLIGHT))
        clients.run(get(f"/api/v1/feed/{each.text_id}?limit=1", each.token) for each in followers)
        load = [_post(author, text) for author, text in zip(loaders * 100, texts(100 * LOAD_AUTHORS), strict=True)]
        some = load[: plan.pick(2_000, 500)]
        burst = in_turns(plan.pick(5, 2), {"posts": lambda: cost_of(lambda: clients.run(some), server.pid)})["posts"]
        saturation = len(some) / wall_median(burst)
        rows: list[list[str]] = []
        ran = waited = 0.0
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for share in (0.0, LOAD):
                before = core_of(server.pid)
                found, reached = runner.run(_observe(server.port, plan, probes, load, share * saturation))
                ran, waited = (now - then for now, then in zip(core_of(server.pid), before, strict=True))
                rows += [_row(f"{reached:,.0f} posts/s" if share else "none", probe, found[probe]) for probe in probes]
    note = (
        f"Saturation: {saturation:,.0f} posts/s with {LOAD_FOLLOWERS} resident followers each, "
        f"{_cpu(burst) / len(some) * 1e6:,.0f} µs of the server's CPU for each. "
        f"Under load its main thread ran for {ran:.1f} s and waited {waited:.1f} s for a core that others had."
    )
    head = ["load", "followers", "tweets", "read p50", "p99", "answered p50", "p99", "visible p50", "p99", "max"]
    return [Table(f"From the answer to the feed (target: p99 of {TARGET * 1000:.0f} ms)", head, rows, [note])]


def _cpu(costs: Sequence[Cost]) -> float:
    return sorted(cost.cpu for cost in costs)[len(costs) // 2]


def _post(author: Person, text: str) -> bytes:
    return post(f"/api/v1/tweet/{author.text_id}", author.token, msgspec.json.encode({"tweet": text}))


async def _observe(
    port: int, plan: Plan, probes: Sequence[_Probe], load: Sequence[bytes], rate: float
) -> tuple[dict[_Probe, list[_Seen]], float]:
    """What was seen of each probe's tweets, and how many posts a second came beside them."""
    lines = [await Client.connect(port) for _ in range(_LINES)]
    posting, looking = await Client.connect(port), await Client.connect(port)
    found: dict[_Probe, list[_Seen]] = {probe: [] for probe in probes}
    loading = asyncio.create_task(_load(lines, load, rate)) if rate else None
    began = perf_counter()
    try:
        for number in range(plan.pick(300, 50)):
            for probe in probes:
                found[probe].append(await _look(posting, looking, probe, f"Caw {number}"))
                await asyncio.sleep(0.02)
    finally:
        answered = 0
        if loading is not None:
            loading.cancel()
            answered = await loading
        for client in (*lines, posting, looking):
            await client.close()
    return found, answered / (perf_counter() - began)


async def _look(posting: Client, looking: Client, probe: _Probe, text: str) -> _Seen:
    look = get(f"/api/v1/feed/{probe.last.text_id}?limit=20", probe.last.token)
    began = perf_counter()
    await looking.ask(look)
    asked = perf_counter()
    tweet = msgspec.json.decode(await posting.ask(_post(probe.author, text)))["id"].encode()
    answered = perf_counter()
    while tweet not in await looking.ask(look):
        if perf_counter() - answered > _LOST_SECONDS:
            raise TimeoutError("A tweet never came to a follower's feed.")
        await asyncio.sleep(_LOOK_SECONDS)
    return _Seen(asked - began, answered - asked, perf_counter() - answered)


async def _load(lines: Sequence[Client], load: Sequence[bytes], rate: float) -> int:
    """Post at random moments, so many a second on average, until cancelled; how many were answered."""
    chance, free, answered = Random(5), asyncio.Queue[Client](), 0
    for line in lines:
        free.put_nowait(line)
    asking = set[asyncio.Task[None]]()

    async def ask(line: Client, request: bytes) -> None:
        nonlocal answered
        await line.ask(request)
        answered += 1
        free.put_nowait(line)

    due, number = perf_counter(), 0
    try:
        while True:
            due += chance.expovariate(rate)
            if (early := due - perf_counter()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(ask(await free.get(), load[number % len(load)]))
            asking.add(task)
            task.add_done_callback(asking.discard)
            number += 1
    except asyncio.CancelledError:
        await asyncio.gather(*asking)
        return answered


def _row(load: str, probe: _Probe, seen: Sequence[_Seen]) -> list[str]:
    cells = [
        millis(percentile(times, per_cent))
        for times, wanted in (
            ([each.read for each in seen], (50, 99)),
            ([each.answered for each in seen], (50, 99)),
            ([each.visible for each in seen], (50, 99, 100)),
        )
        for per_cent in wanted
    ]
    return [load, f"{probe.followers:,}", f"{len(seen):,}", *cells]
