"""A write is answered when the ranking was told of it, or when nobody vouches for the counts any more."""

import asyncio

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId
from rookery.domain.tweets import TweetRecord
from rookery.services.counting import MET_SECONDS, PATIENCE_SECONDS, Counting

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


class Passing:
    """Time that passes at once."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    made, sleep = Passing(), asyncio.sleep

    async def pause(seconds: float) -> None:
        made.now += seconds
        await sleep(0)

    monkeypatch.setattr("rookery.services.counting.asyncio.sleep", pause)
    monkeypatch.setattr("rookery.services.counting.asyncio.get_running_loop", lambda: made)
    return made


@pytest.fixture
def counting(passing: Passing) -> Counting:
    """For a ranking that answered a moment ago."""
    made = Counting()
    made.answered()
    return made


async def test_a_ranking_that_was_only_slow_is_told_before_the_answer(passing: Passing, counting: Counting) -> None:
    ranking, begun = Ranking(failures=5), passing.now
    assert not await counting.tell(ranking.count, RETWEET)
    assert ranking.asked == 1
    assert await counting.tell_late(ranking.count, RETWEET)
    assert ranking.asked == 6
    assert passing.now - begun < PATIENCE_SECONDS


async def test_each_write_has_a_bound_of_its_own(passing: Passing, counting: Counting) -> None:
    """Also where a part of a cluster is away, and others are told all the time."""
    begun = passing.now
    dead = asyncio.create_task(counting.tell_late(Ranking(failures=10_000).count, RETWEET))
    while not dead.done():
        counting.answered()
        assert await counting.tell(Ranking(failures=0).count, RETWEET)
        await asyncio.sleep(0)
    assert not await dead
    assert PATIENCE_SECONDS <= passing.now - begun < PATIENCE_SECONDS + 0.2


async def test_when_all_have_met_that_it_is_away_writes_wait_no_more(passing: Passing, counting: Counting) -> None:
    passing.now += MET_SECONDS
    before = passing.now
    assert not await counting.tell_late(Ranking(failures=10_000).count, RETWEET)
    assert passing.now == before
    counting.answered()
    assert not await counting.tell_late(Ranking(failures=10_000).count, RETWEET)
    assert passing.now - before >= PATIENCE_SECONDS, "another absence"


async def test_one_that_changes_no_count_waits_for_nothing(passing: Passing, counting: Counting) -> None:
    before = passing.now
    assert not await counting.tell_late(Ranking(failures=10_000).count, ROOT)
    assert passing.now == before
