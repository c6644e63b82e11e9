"""A run that grew too long or too disordered is tidied, and every page stays what it was. A page reads a page."""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rookery.domain.ids import ZERO
from rookery.domain.timeline import (
    ENTRY_BYTES,
    FILL,
    FRESH,
    TRIM_ABOVE,
    TRIM_TO,
    Held,
    descending,
    newest,
    open_value,
    seal,
    source_of,
    tidied,
    unpack,
)
from tests.unit.runs import (
    Run,
    below_id,
    item,
    items,
    newest_first,
    tweet,
)


def long_run(seed: int, fresh: int, ordered: int, most: int, floor: int) -> Run:
    """A run of given sizes with numbers by chance from one to `most`; the fewer there are, the more are twice."""
    chance = Random(seed)
    some = range(1, 1 + most)
    return Run(
        fresh=[chance.choice(some) for _ in range(fresh)],
        ordered=newest_first(chance.sample(some, min(ordered, most))),
        floor=floor,
    )


long_runs = st.builds(
    long_run,
    seed=st.integers(0, 2**32),
    fresh=st.one_of(st.integers(0, 2 * FRESH), st.integers(0, TRIM_ABOVE + FRESH)),
    ordered=st.one_of(st.integers(0, TRIM_ABOVE + FRESH), st.integers(TRIM_ABOVE - FRESH, TRIM_ABOVE + 2)),
    most=st.sampled_from([1, TRIM_TO - 1, TRIM_TO, TRIM_TO + 1, 500, 5_000]),
    floor=st.one_of(st.just(0), st.integers(0, 5_000)),
)


def tidy(run: Run) -> tuple[Held, Held] | None:
    """A run and what is put in its place, if anything is."""
    held = run.held
    result = tidied(held)
    if result is None:
        return None
    kept, floor = result
    return held, open_value(seal(b"".join(kept), held.nonce, held.filled_at, floor=floor, ordered=len(kept)))


@given(long_runs)
def test_tidying_keeps_just_what_a_reader_may_be_served_from_the_new_floor_up(run: Run) -> None:
    both = tidy(run)
    if both is not None:
        held, after = both
        served = list(descending(held))
        assert served == items(run.served())
        assert unpack(after.body) == [one for one in served if one >= after.floor]
        assert list(descending(after)) == unpack(after.body)


@given(long_runs)
def test_tidying_never_lowers_a_floor_and_raises_it_only_to_trim(run: Run) -> None:
    both = tidy(run)
    if both is not None:
        held, after = both
        assert after.floor >= held.floor
        if after.floor != held.floor:
            assert len(unpack(held.body)) > TRIM_ABOVE
            assert len(unpack(after.body)) == TRIM_TO


@given(long_runs)
def test_a_run_is_tidied_when_it_is_too_long_or_too_disordered_and_then_it_is_fine(run: Run) -> None:
    both = tidy(run)
    untidy = len(run.fresh) + len(run.ordered) > TRIM_ABOVE or len(run.fresh) > FRESH
    assert (both is not None) == untidy
    if both is not None:
        assert tidied(both[1]) is None
        assert both[1].ordered * ENTRY_BYTES == len(both[1].body)


@given(long_runs, st.lists(st.integers(1, 5_100), max_size=10), st.integers(1, 5_100), st.integers(1, FILL))
def test_a_page_from_a_tidied_run_is_the_page_from_before_or_names_the_run(
    run: Run, later: list[int], below: int, want: int
) -> None:
    both = tidy(run)
    if both is not None:
        (before, after), more = both, b"".join(items(later))
        old, new = (
            source_of(Held(more + held.body, held.floor, held.nonce, held.filled_at, held.ordered), tweet(below), want)
            for held in (before, after)
        )
        page, short = newest([new], want)
        if not short:
            assert page == newest([old], want)[0]


@pytest.mark.parametrize(
    ("fresh", "ordered", "tidy_after"),
    [
        (0, 0, None),
        (FRESH, 0, None),
        (FRESH + 1, 0, FRESH + 1),
        (FRESH, TRIM_ABOVE - FRESH, None),
        (FRESH + 1, TRIM_ABOVE - FRESH - 1, TRIM_ABOVE),
        (1, TRIM_ABOVE, TRIM_TO),
        (0, TRIM_ABOVE + 1, TRIM_TO),
    ],
)
def test_forty_fresh_entries_and_four_hundred_in_all_are_let_be(
    fresh: int, ordered: int, tidy_after: int | None
) -> None:
    count = fresh + ordered
    all_numbers = range(1_000, 1_000 - count, -1)
    both = tidy(Run(all_numbers[:fresh][::-1], all_numbers[fresh:], 0))
    assert (None if both is None else len(unpack(both[1].body))) == tidy_after
    if both is not None:
        assert unpack(both[1].body) == items(all_numbers[:tidy_after])
        assert both[1].floor == (ZERO if tidy_after == count else tweet(all_numbers[TRIM_TO - 1]))


def test_a_long_run_of_duplicates_keeps_its_floor() -> None:
    both = tidy(Run([7, 9, 3] * 150, [9, 8, 7], 5))
    assert both is not None
    assert unpack(both[1].body) == items([9, 8, 7])
    assert both[1].floor == tweet(5)


def test_a_run_that_lies_wholly_below_its_floor_becomes_empty_and_keeps_the_floor() -> None:
    both = tidy(Run([1, 2, 3] * 150, [], 50))
    assert both is not None
    assert both[1].body == b""
    assert both[1].floor == tweet(50)


# Long


class Counted(bytes):
    """Bytes that count how many slices are taken of them."""

    def __new__(cls, of: bytes) -> "Counted":
        made = super().__new__(cls, of)
        made.slices = 0
        return made

    slices: int

    def __getitem__(self, at: object) -> bytes:  # type: ignore[override]
        self.slices += 1
        return super().__getitem__(at)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("below", [None, 30_000, 1_000, 11])
def test_a_page_from_a_long_run_reads_a_page_and_not_the_run(below: int | None) -> None:
    ordered = range(50_000, 0, -1)
    held = Run([50_001, 50_003, 50_002], ordered, 0).held
    body = Counted(held.body)
    source = source_of(Held(body, held.floor, held.nonce, held.filled_at, held.ordered), below_id(below), 10)
    start = 50_003 if below is None else below - 1
    assert list(source.entries) == items(range(start, start - 10, -1))
    assert body.slices < 50


def test_a_reader_who_stops_early_leaves_the_rest_unread() -> None:
    held = Run([], range(5_000, 0, -1), 0).held
    served: Iterator[bytes] = descending(held)
    assert next(served) == item(5_000)
    assert next(served) == item(4_999)
