"""Looks at the parts: one at a time, at most one a second, and none for ever."""

import asyncio
from typing import Any, cast

import pytest

from rookery.domain.errors import Unavailable
from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from rookery.services import health
from rookery.services import jobs as jobs_module
from rookery.services.fanout import Fanout
from rookery.services.health import Health
from rookery.services.jobs import Jobs
from tests.clocks import HandClock


class Part:
    """A store or ranking whose look can be held up or fail."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.looks = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault = fault

    async def check(self) -> None:
        self.looks += 1
        await self.gate.wait()
        if self.fault:
            raise self.fault


def health_of(store: Part, ranking: Part, clock: HandClock, jobs: Jobs | None = None) -> Health:
    made = Fanout(cast("Store", store), cast("Any", None), clock, cast("Any", None), None)
    return Health(cast("Store", store), cast("Ranking", ranking), made, clock, jobs or Jobs(clock))


async def test_who_asks_at_once_shares_one_look() -> None:
    store, ranking, clock = Part(), Part(), HandClock()
    asked = health_of(store, ranking, clock)
    store.gate.clear()
    looking = [asyncio.create_task(asked.look()) for _ in range(100)]
    await asyncio.sleep(0)
    store.gate.set()
    reports = await asyncio.gather(*looking)
    assert {(report.store, report.ready) for report in reports} == {("ok", True)}
    assert (store.looks, ranking.looks) == (1, 1)
    clock.millis += 1_000
    await asked.look()
    assert (store.looks, ranking.looks) == (2, 2)


async def test_a_part_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_STORE_SECONDS", 0.01)
    store, ranking = Part(), Part(Unavailable("ranking_unavailable", "gone"))
    store.gate.clear()
    report = await health_of(store, ranking, HandClock()).look()
    assert (report.store, report.ranking, report.ready) == ("no_answer", "ranking_unavailable", False)


async def test_a_look_that_meets_a_mistake_says_so() -> None:
    """Else the question whether it is ready would be answered by the mistake."""
    report = await health_of(Part(RuntimeError("a mistake")), Part(), HandClock()).look()
    assert (report.store, report.ranking, report.ready) == ("internal_error", "ok", False)


async def test_a_server_whose_jobs_end_again_and_again_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "LONGEST_PAUSE", 0.0)

    async def breaks() -> None:
        raise RuntimeError("a mistake")

    async def waits() -> None:
        await asyncio.Event().wait()

    clock = HandClock()
    jobs = Jobs(clock)
    asked = health_of(Part(), Part(), clock, jobs)
    running = asyncio.create_task(jobs.run({"fanout": breaks, "chores": waits}))
    try:
        async with asyncio.timeout(10):
            while not jobs.down():
                await asyncio.sleep(0)
        report = await asked.look()
        assert (report.jobs, report.store, report.ready) == ("fanout", "ok", False)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
