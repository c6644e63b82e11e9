"""A write is answered when the ranking was told of it, or when nobody vouches for the counts any more."""

import asyncio

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.tweets import TweetRecord
from rookery.services.counting import PATIENCE_SECONDS, Counting

ROOT = TweetRecord(TweetId(b"t" * 16), UserId(b"u" * 16), "", "x", None)
RETWEET = TweetRecord(TweetId(b"r" * 16), UserId(b"u" * 16), "", "", ROOT.id)


class Ranking:
    """Does not answer so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    async def count(self, _: TweetRecord) -> None:
        self.asked += 1
        if self.asked <= self.failures:
            raise Unavailable("ranking_unavailable", "gone")


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, which pass at once."""
    now, pauses, sleep = [1_000.0], list[float](), asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds
        await sleep(0)

    class Loop:
        def time(self) -> float:
            return now[0]

    monkeypatch.setattr("rookery.services.counting.asyncio.sleep", pause)
    monkeypatch.setattr("rookery.services.counting.asyncio.get_running_loop", Loop)
    return pauses


async def test_a_ranking_that_was_only_slow_is_told_before_the_answer(passing: list[float]) -> None:
    ranking = Ranking(failures=5)
    assert await Counting().tell(ranking.count, RETWEET)
    assert ranking.asked == 6
    assert sum(passing) < PATIENCE_SECONDS


async def test_writes_go_on_without_it_when_all_have_met_that_it_is_away(passing: list[float]) -> None:
    ranking, told = Ranking(failures=10_000), Counting()
    assert not await told.tell(ranking.count, RETWEET)
    assert PATIENCE_SECONDS <= sum(passing) < PATIENCE_SECONDS + 0.2
    passing.clear()
    for _ in range(10):
        assert not await told.tell(ranking.count, RETWEET)
    assert passing == [], "further ones don't wait"


async def test_another_absence_is_waited_for_anew(passing: list[float]) -> None:
    ranking, told = Ranking(failures=10_000), Counting()
    assert not await told.tell(ranking.count, RETWEET)
    passing.clear()
    await asyncio.sleep(60.0)  # which passes at once
    assert not await told.tell(ranking.count, RETWEET)
    assert sum(passing) >= 60 + PATIENCE_SECONDS


async def test_one_that_changes_no_count_waits_for_nothing(passing: list[float]) -> None:
    assert not await Counting().tell(Ranking(failures=10_000).count, ROOT)
    assert passing == []
