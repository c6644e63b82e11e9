"""What every clock promises of time, of ids and of chance."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import pytest

from rookery.adapters.system import SystemClock
from rookery.domain.ids import millis_of
from rookery.ports.clock import Clock

HOUR = 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class ClockPlace:
    """How to make a clock, and how to set the wall clock of its ids (milliseconds since 1970)."""

    make: Callable[[], Clock]
    set_wall_clock: Callable[[pytest.MonkeyPatch, int], None]


def _set_system(monkeypatch: pytest.MonkeyPatch, now: int) -> None:
    """Nobody sets a machine's clock back for a test: what it reads stands still at that time instead."""
    monkeypatch.setattr(time, "time_ns", lambda: now * 1_000_000)


CLOCKS = {"system": ClockPlace(SystemClock, _set_system)}


@pytest.fixture(params=CLOCKS.values(), ids=list(CLOCKS))
def place(request: pytest.FixtureRequest) -> ClockPlace:
    place: ClockPlace = request.param
    return place


@pytest.fixture
def clock(place: ClockPlace) -> Clock:
    return place.make()


def test_now_is_wall_time_in_milliseconds(clock: Clock) -> None:
    before = time.time_ns() // 1_000_000
    now = clock.now()
    assert before <= now <= time.time_ns() // 1_000_000


def test_monotonic_seconds_never_go_back(clock: Clock) -> None:
    begun = time.monotonic()
    seen = [clock.monotonic() for _ in range(1_000)]
    assert seen == sorted(seen)
    assert begun <= seen[0] <= seen[-1] <= time.monotonic()


@pytest.mark.parametrize("what", ["user", "tweet"])
def test_an_id_is_a_uuid_of_version_7_of_this_moment(clock: Clock, what: str) -> None:
    before = clock.now()
    raw = clock.new_user_id() if what == "user" else clock.new_tweet_id()
    assert len(raw) == 16
    assert (UUID(bytes=raw).version, UUID(bytes=raw).variant) == (7, "specified in RFC 4122")
    assert before <= millis_of(raw) <= clock.now()


def test_ids_ascend_also_within_a_millisecond(clock: Clock) -> None:
    ids: list[bytes] = []
    for _ in range(20_000):
        ids += [clock.new_user_id(), clock.new_tweet_id()]
    assert all(first < second for first, second in pairwise(ids))
    assert len({millis_of(raw) for raw in ids}) < len(ids), "there were several in one millisecond"


def test_ids_ascend_also_when_the_clock_is_set_back(place: ClockPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = place.make()
    ids: list[bytes] = [clock.new_tweet_id()]
    for set_back in (HOUR, 2 * HOUR, 0):
        place.set_wall_clock(monkeypatch, millis_of(ids[0]) - set_back)
        for _ in range(100):
            ids += [clock.new_tweet_id(), clock.new_user_id()]
    assert all(first < second for first, second in pairwise(ids))
    assert {UUID(bytes=raw).version for raw in ids} == {7}
    assert {UUID(bytes=raw).variant for raw in ids} == {"specified in RFC 4122"}
    place.set_wall_clock(monkeypatch, millis_of(ids[0]) + HOUR)
    assert millis_of(clock.new_tweet_id()) == millis_of(ids[0]) + HOUR, "it goes on with the time when that is ahead"


def test_ids_drawn_after_the_clock_was_set_back_have_times_of_their_own(
    place: ClockPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their time goes on at half its speed until the clock has caught up."""
    clock = place.make()
    first = millis_of(clock.new_tweet_id())
    begun = time.monotonic()
    times = []
    for second in range(0, 3 * 3_600 + 1, 600):
        place.set_wall_clock(monkeypatch, first - HOUR + second * 1_000)
        monkeypatch.setattr(time, "monotonic", lambda second=second: begun + second)
        times.append(millis_of(clock.new_tweet_id()) - first)
    assert all(1 <= later - earlier <= 600_000 for earlier, later in pairwise(times))
    assert times[6] == pytest.approx(HOUR / 2, abs=1_000)
    assert times[12] == pytest.approx(HOUR, abs=1_000), "it has caught up after two hours"
    assert times[18] == pytest.approx(2 * HOUR, abs=1_000), "and goes by the clock from then on"


def test_ids_can_begin_above_a_time(clock: Clock) -> None:
    assert clock.latest() == 0
    ahead = clock.now() + HOUR
    clock.begin_above(ahead)
    ids = [clock.new_tweet_id() for _ in range(1_000)]
    assert all(first < second for first, second in pairwise(ids))
    assert ahead < millis_of(ids[0]) <= millis_of(ids[-1]) < ahead + 60_000
    assert clock.latest() == millis_of(ids[-1])
    clock.begin_above(ahead - HOUR)
    assert clock.new_tweet_id() > ids[-1], "never below what was drawn"


@pytest.mark.parametrize("size", [0, 1, 8, 32])
def test_chance_gives_as_many_bytes_as_asked(clock: Clock, size: int) -> None:
    assert len(clock.random(size)) == size


def test_chance_does_not_repeat(clock: Clock) -> None:
    assert len({clock.random(16) for _ in range(1_000)}) == 1_000
