"""Background jobs have an owner: one that ends is started again, counted, and told of."""

import asyncio
from collections.abc import Callable

import pytest

from rookery.services import jobs as jobs_module
from rookery.services.jobs import DOWN_AFTER, STEADY_SECONDS, Jobs
from tests.clocks import HandClock


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def restarts(jobs: Jobs) -> dict[str, object]:
    return {reading.labels["job"]: reading.value for reading in jobs.readings() if reading.name == "job_restarts_total"}


async def test_a_job_that_ends_is_started_again_and_holds_up_no_other() -> None:
    clock, begun, turns = HandClock(), 0, 0

    async def breaks() -> None:
        nonlocal begun
        begun += 1
        if begun < DOWN_AFTER:
            raise RuntimeError("a mistake")
        await asyncio.Event().wait()

    async def goes_on() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    jobs = Jobs(clock)
    running = asyncio.create_task(jobs.run({"breaks": breaks, "goes on": goes_on}))
    try:
        await until(lambda: begun == DOWN_AFTER)
        assert restarts(jobs) == {"breaks": DOWN_AFTER - 1, "goes on": 0}
        assert jobs.down() == []
        assert turns > 100
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_one_that_ends_again_and_again_is_down_until_it_has_run_for_a_while() -> None:
    clock, begun, is_broken = HandClock(), 0, True

    async def breaks() -> None:
        nonlocal begun
        begun += 1
        if is_broken:
            return  # one that just ends is as bad
        await asyncio.Event().wait()

    jobs = Jobs(clock)
    jobs_module.LONGEST_PAUSE, kept = 0.001, jobs_module.LONGEST_PAUSE
    running = asyncio.create_task(jobs.run({"breaks": breaks}))
    try:
        await until(lambda: jobs.down() == ["breaks"])
        is_broken = False
        before = begun
        await until(lambda: begun > before)
        assert jobs.down() == ["breaks"], "it may end again"
        clock.millis += int(STEADY_SECONDS * 1_000)
        assert jobs.down() == []
    finally:
        jobs_module.LONGEST_PAUSE = kept
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_jobs_end_when_their_owner_does() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    running = asyncio.create_task(Jobs(HandClock()).run({"one": waits, "two": waits}))
    await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ended == ["ended", "ended"]


async def test_one_that_breaks_for_days_is_still_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "LONGEST_PAUSE", 0.0)
    begun = 0

    async def breaks() -> None:
        nonlocal begun
        begun += 1
        raise RuntimeError("a mistake")

    jobs = Jobs(HandClock())
    running = asyncio.create_task(jobs.run({"breaks": breaks}))
    await until(lambda: begun > 1_100)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_one_that_is_cancelled_by_itself_is_started_again() -> None:
    begun = 0

    async def breaks() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise asyncio.CancelledError
        await asyncio.Event().wait()

    jobs = Jobs(HandClock())
    running = asyncio.create_task(jobs.run({"breaks": breaks}))
    await until(lambda: begun == 2)
    assert restarts(jobs) == {"breaks": 1}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    assert jobs.down() == ["breaks"], "when all have ended the server is not ready"
