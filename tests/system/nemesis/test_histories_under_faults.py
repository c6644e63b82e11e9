"""Random histories while servers, memcached and Redis are killed and paused, the clock is set and memory runs out.

Each write is retried under its key until it is answered. Every answer meanwhile is one that the model allows, and when
all is back, both servers show what was acknowledged: each tweet once, each feed whole, each count right.
"""

import asyncio
import logging
import os
import random
from pathlib import Path

import httpx
import pytest

from rookery.config import load
from rookery.wiring import Sharing, open_backends
from tests.system.commands import rookery
from tests.system.nemesis.people import ANSWER_SECONDS, People
from tests.system.nemesis.place import Place, now, opened

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

_log = logging.getLogger(__name__)

LONG = os.environ.get("TEST_LONG") == "1"
FIRST_SEED = int(os.environ.get("SEED", "1"))
SEEDS = int(os.environ.get("SEEDS", "50" if LONG else "1"))
"""Histories on each store."""
FAULTS = int(os.environ.get("FAULTS", "12" if LONG else "6"))
SETTLED_SECONDS = 30.0
"""Until all is shown after the last fault: ten until a promise is overdue, and what a busy machine needs besides."""
NAMES = [f"user{number}" for number in range(5)]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_every_answer_is_allowed_whatever_fails(tmp_path: Path, store: str, seed: int) -> None:
    chance = random.Random(seed)
    with opened(tmp_path, store) as place:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as http:
            people = People(place, http, NAMES)
            await people.found()
            await go_through(place, people, chance)
            await settle(place, people)
        _log.info("seed %d: %s; judged %s, refused %s", seed, place.told, people.community.checked, people.refused)
        data = str(place.servers[0].data)
        assert " 0 were wrong" in rookery("recount", "--data", data, *place.servers[0].flags).stdout


async def go_through(place: Place, people: People, chance: random.Random) -> None:
    """Let people act and read while one fault follows another."""
    acting = [people.act(name, random.Random(chance.random())) for name in NAMES]
    looking = [people.look(random.Random(chance.random())) for _ in range(3)]

    async def fail() -> None:
        for _ in range(FAULTS):
            await asyncio.sleep(chance.uniform(0.2, 0.8))
            await place.befall(chance)
        await place.heal()
        people.stopped = True

    try:
        async with asyncio.TaskGroup() as group:
            for each in (*acting, *looking, fail()):
                group.create_task(each)
    except BaseExceptionGroup as failed:
        pytest.fail(f"after {place.told}: {failed.exceptions[0]!r}")


async def settle(place: Place, people: People) -> None:
    """Both servers come to show all that was acknowledged, and nothing else."""
    community = people.community
    counts = community.counts()
    for at in range(len(place.servers)):
        for name in NAMES:
            await people.until(at, f"/feed/@{name}", community.feed(name), SETTLED_SECONDS)
            await people.until(at, f"/tweet/@{name}", community.authored(name), SETTLED_SECONDS)
        await people.until_counted(at, counts, SETTLED_SECONDS)
    await until_nothing_is_promised(place)


async def until_nothing_is_promised(place: Place) -> None:
    """Counts of deleted tweets, which nobody is shown, may be owed yet."""
    server = place.servers[0]
    flags = dict(zip(server.flags[::2], server.flags[1::2], strict=True))
    given = {name.removeprefix("--").replace("-", ".", 1): value for name, value in flags.items()}
    settings = load(flags={**given, "data": str(server.data)}, environ={}).settings
    async with open_backends(settings, Sharing.ANYONE) as backends:
        until = now() + SETTLED_SECONDS
        while owed := await backends.store.promises(2**47, b"", 10):
            assert now() < until, f"after {place.told}: {owed}"
            await asyncio.sleep(0.05)
