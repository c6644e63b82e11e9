"""Timelines and tails: what is served of a cached run, and of several merged, is what brute force gives.

Tweets are numbers here, the greater the newer, and each has the author that its number says. The model of a run is the
list of the numbers in it; that of a page is sorting all there is.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rookery.domain.ids import ZERO, TweetId, UserId
from rookery.domain.timeline import (
    ENTRY_BYTES,
    FOOTER_BYTES,
    NONCE_BYTES,
    TAIL,
    Held,
    Source,
    author_of,
    body_of,
    claim,
    descending,
    entry,
    is_claimed_by,
    is_filled,
    join_fill,
    newest,
    open_value,
    seal,
    source_of,
    source_of_chunk,
    stamp_of,
    tweet_of,
    unpack,
    unpack_ids,
)
from tests.unit.runs import (
    AUTHORS,
    MOST,
    NONCE,
    NOW,
    Run,
    author,
    below_id,
    bounds,
    few,
    hiding,
    in_any_order,
    in_order,
    item,
    items,
    newest_first,
    numbers,
    runs,
    tweet,
)

# Values


@few
@given(st.binary(max_size=200), st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES), st.integers(0, 2**32 - 1))
def test_a_claim_is_a_miss_with_the_nonce_and_time_of_its_filler(prepended: bytes, nonce: bytes, now: int) -> None:
    value = claim(nonce, now, prepended)
    assert len(value) == len(prepended) + FOOTER_BYTES
    assert not is_filled(value)
    assert is_claimed_by(value, nonce)
    assert stamp_of(value) == now
    assert body_of(value) == prepended
    assert value == prepended + claim(nonce, now), "as if a cache had prepended it"


@few
@given(
    st.binary(max_size=200),
    st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
    st.integers(0, 2**32 - 1),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**32 - 2),
)
def test_a_sealed_value_opens_to_what_was_sealed(
    body: bytes, nonce: bytes, filled_at: int, floor: bytes, ordered: int
) -> None:
    value = seal(body, nonce, filled_at, floor=floor, ordered=ordered)
    assert is_filled(value)
    assert open_value(value) == Held(body, floor, nonce, filled_at, ordered)
    assert body_of(value) == body
    assert stamp_of(value) == filled_at
    assert is_claimed_by(value, nonce)


def test_a_value_sealed_with_no_more_said_is_complete_and_has_nothing_in_order() -> None:
    held = open_value(seal(b"anything", NONCE, NOW))
    assert (held.floor, held.ordered) == (ZERO, 0)


@few
@given(runs, numbers)
def test_what_is_prepended_to_a_sealed_value_is_in_front_and_changes_nothing_else(run: Run, number: int) -> None:
    held = run.held
    value = seal(held.body, held.nonce, held.filled_at, floor=held.floor, ordered=held.ordered)
    assert open_value(item(number) + value) == Run([number, *run.fresh], run.ordered, run.floor).held


@few
@given(st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES), st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_a_value_is_claimed_by_its_own_nonce_only(mine: bytes, other: bytes) -> None:
    assert is_claimed_by(claim(mine, NOW), other) == (mine == other)
    assert is_claimed_by(seal(other * 4, mine, NOW, floor=other * 2), other) == (mine == other)


def test_no_value_is_a_miss() -> None:
    assert not is_filled(None)


@pytest.mark.parametrize("size", [0, 1, 4, 16, FOOTER_BYTES - 1])
def test_a_value_too_short_for_a_footer_is_a_miss(size: int) -> None:
    assert not is_filled(seal(b"", NONCE, NOW)[FOOTER_BYTES - size :])


@few
@given(in_any_order)
def test_a_run_unpacks_to_its_entries(some: list[int]) -> None:
    entries = unpack(b"".join(items(some)))
    assert entries == items(some)
    assert [tweet_of(one) for one in entries] == [tweet(number) for number in some]
    assert [author_of(one) for one in entries] == [author(number) for number in some]
    assert {len(one) for one in entries} <= {ENTRY_BYTES}


@few
@given(st.lists(st.sampled_from(AUTHORS)))
def test_a_packed_list_of_ids_unpacks_to_them(ids: list[UserId]) -> None:
    assert unpack_ids(b"".join(ids)) == ids


@few
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_an_entry_compares_with_an_id_as_its_own_id_does(one: bytes, other: bytes, by: bytes) -> None:
    made = entry(TweetId(one), UserId(by))
    assert (made < other) == (one < other)
    assert (made >= other) == (one >= other)
    assert not made < one


# One run


@given(runs, bounds)
def test_a_run_serves_each_entry_once_newest_first_between_its_bounds(run: Run, below: int | None) -> None:
    assert list(descending(run.held, below_id(below))) == items(run.served(below))


@given(runs, bounds, st.integers(1, MOST))
def test_a_run_serves_as_much_as_is_taken(run: Run, below: int | None, taken: int) -> None:
    assert list(islice(descending(run.held, below_id(below)), taken)) == items(run.served(below)[:taken])


@few
@given(runs)
def test_turning_pages_gives_every_entry_once(run: Run) -> None:
    pages, below = [], None
    while page := list(islice(descending(run.held, below), 3)):
        pages += page
        below = tweet_of(page[-1])
    assert pages == items(run.served())


@pytest.mark.parametrize("number", [1, 255, 65_535])
def test_the_floor_is_served_and_the_id_to_stay_below_is_not(number: int) -> None:
    for run in (Run([number], [], number), Run([], [number], number)):
        assert list(descending(run.held)) == [item(number)]
        assert list(descending(run.held, tweet(number))) == []


def test_an_empty_run_serves_nothing() -> None:
    assert list(descending(Run([], [], 0).held)) == []
    assert list(descending(Run([], [], 5).held, tweet(9))) == []


@given(runs, bounds, st.integers(1, 12), hiding)
def test_a_source_is_what_a_run_may_show_of_a_page(run: Run, below: int | None, want: int, hidden: set[UserId]) -> None:
    source = source_of(run.held, below_id(below), want, hidden)
    assert list(source.entries) == items(run.served(below, hidden)[:want])
    assert source.floor == tweet(run.floor)


@few
@given(in_order, st.integers(1, 20))
def test_a_full_chunk_may_have_more_below_and_a_short_one_has_not(chunk: list[int], asked: int) -> None:
    given_back = chunk[:asked]
    source = source_of_chunk(items(given_back), asked)
    assert list(source.entries) == items(given_back)
    assert source.floor == (tweet(given_back[-1]) if len(given_back) == asked else ZERO)


# Several


@dataclass
class Shelf:
    """What a source stands for: all that its author wrote, of which the newest are shown and the rest is hidden."""

    everything: list[int]
    source: Source

    @classmethod
    def of_run(cls, run: Run, below: int | None, want: int, hidden: Collection[bytes]) -> "Shelf":
        """A cached run: complete from its floor up. What was cut off below it is only in the store."""
        everything = [
            number
            for number in newest_first([*run.fresh, *run.ordered])
            if (below is None or number < below) and author(number) not in hidden
        ]
        return cls(everything, source_of(run.held, below_id(below), want, hidden))

    def read_on(self, below: int | None, asked: int) -> None:
        """Go on under the floor from the store, as the feed does."""
        under = self.source.floor if below is None else min(self.source.floor, tweet(below))
        chunk = [number for number in self.everything if tweet(number) < under][:asked]
        more = source_of_chunk(items(chunk), asked)
        self.source = Source([*self.source.entries, *more.entries], more.floor)


@st.composite
def shelves(draw: st.DrawFn, below: int | None, want: int) -> list[Shelf]:
    """Timelines, tails and celebrities with overlapping entries and floors of all kinds."""
    hidden = draw(hiding)
    return [Shelf.of_run(run, below, want, hidden) for run in draw(st.lists(runs, max_size=5))]


def brute_force(shelves: Iterable[Shelf], want: int) -> list[int]:
    return newest_first(number for shelf in shelves for number in shelf.everything)[:want]


@given(st.data(), bounds, st.integers(1, 15), st.integers(1, 12))
def test_reading_on_until_no_source_is_named_gives_the_newest_of_all(
    data: st.DataObject, below: int | None, want: int, asked: int
) -> None:
    several = data.draw(shelves(below, want))
    expected = brute_force(several, want)
    for _ in range(MOST * len(several) + 1):
        page, short = newest([shelf.source for shelf in several], want)
        if not short:
            break
        for at in short:
            several[at].read_on(below, asked)
    else:
        pytest.fail("each round reads on, so it ends")
    assert page == items(expected)


@given(st.data(), bounds, st.integers(1, 15))
def test_a_source_that_is_not_named_holds_nothing_more_that_belongs_to_the_page(
    data: st.DataObject, below: int | None, want: int
) -> None:
    several = data.draw(shelves(below, want))
    page, short = newest([shelf.source for shelf in several], want)
    quiet = [shelf for at, shelf in enumerate(several) if at not in short]
    known = newest_first([number for shelf in quiet for number in shelf.everything])
    candidates = sorted({*items(known), *page}, reverse=True)[:want]
    assert page == candidates


@given(st.data(), st.integers(1, 15))
def test_a_source_is_named_only_when_an_entry_right_under_its_floor_would_belong(
    data: st.DataObject, want: int
) -> None:
    """Naming too many costs a read of the store for nothing."""
    several = data.draw(shelves(None, want))
    page, short = newest([shelf.source for shelf in several], want)
    for at in short:
        assert len(page) < want or several[at].source.floor > tweet_of(page[-1])


@few
@given(st.data(), st.integers(1, 15))
def test_the_order_of_the_sources_does_not_matter(data: st.DataObject, want: int) -> None:
    sources = [shelf.source for shelf in data.draw(shelves(None, want))]
    page, short = newest(sources[::-1], want)
    assert (page, sorted(len(sources) - 1 - at for at in short)) == newest(sources, want)


def test_no_sources_make_an_empty_page_that_is_exact() -> None:
    assert newest([], 10) == ([], [])


def test_ten_per_tail_are_exact_for_a_page_of_ten_and_no_more() -> None:
    tail = source_of_chunk(items(range(30, 30 - TAIL, -1)), TAIL)
    page, short = newest([tail, Source(items([25, 24]))], TAIL)
    assert (page, short) == (items(range(30, 20, -1)), [])
    assert newest([tail], TAIL + 1)[1] == [0]


def test_a_page_ending_exactly_at_a_floor_needs_no_more() -> None:
    source = Source(items([9, 8]), tweet(8))
    assert newest([source], 2) == (items([9, 8]), [])
    assert newest([source, Source([], tweet(8))], 2) == (items([9, 8]), [])
    assert newest([source, Source([], tweet(9))], 2) == (items([9, 8]), [1])


def test_a_tweet_in_two_sources_takes_one_place() -> None:
    both = Source(items([9, 8, 7]))
    assert newest([both, both], 3) == (items([9, 8, 7]), [])


# Filling


@given(in_any_order, in_order, st.integers(0, MOST + 1))
def test_what_came_during_a_fill_joins_it_in_order_and_once(
    prepended: list[int], filled: list[int], floor: int
) -> None:
    joined = join_fill(b"".join(items(prepended)), items(filled), tweet(floor))
    assert joined == items(number for number in newest_first([*prepended, *filled]) if number >= floor)


@few
@given(in_any_order, in_order, st.integers(0, MOST))
def test_a_joined_fill_is_a_run_wholly_in_order(prepended: list[int], filled: list[int], floor: int) -> None:
    claimed = claim(NONCE, NOW, b"".join(items(prepended)))
    joined = join_fill(body_of(claimed), items(filled), tweet(floor))
    held = open_value(seal(b"".join(joined), NONCE, NOW, floor=tweet(floor), ordered=len(joined)))
    assert list(descending(held)) == joined
