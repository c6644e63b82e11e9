"""Idempotency keys: the same question is known again, another is told apart, and what is stored gives nothing away."""

from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rookery.domain.errors import BrokenRule, Malformed
from rookery.domain.idempotency import KEPT_MILLIS, MAX_KEY, once, reused

few = settings(max_examples=25)
"""For what is so simple that a few examples show it."""

PRINTABLE = [chr(code) for code in range(0x20, 0x7F)]

keys = st.text(PRINTABLE, min_size=1, max_size=MAX_KEY)
actors = st.binary(max_size=32)
requests = st.binary(max_size=100)
moments = st.integers(0, 1 << 48)


class Asked(NamedTuple):
    actor: bytes
    key: str
    request: bytes


asked = st.builds(Asked, actors, keys, requests)


@few
@given(asked, moments, moments)
def test_asking_the_same_again_is_known_whenever_it_is_asked(question: Asked, at: int, later: int) -> None:
    first, again = once(*question, at), once(*question, later)
    assert (first.key, first.digest, first.seed) == (again.key, again.digest, again.seed)
    assert (first.at, again.at) == (at, later)


@given(asked, asked)
def test_a_key_is_of_one_actor_and_one_text(one: Asked, other: Asked) -> None:
    same = (one.actor, one.key) == (other.actor, other.key)
    assert (once(*one, 0).key == once(*other, 0).key) == same
    assert (once(*one, 0).seed == once(*other, 0).seed) == same


@few
@given(asked, actors)
def test_two_actors_never_share_a_key(question: Asked, other: bytes) -> None:
    assume(other != question.actor)
    mine, his = once(*question, 0), once(*question._replace(actor=other), 0)
    assert mine.key != his.key
    assert mine.seed != his.seed
    assert mine.digest == his.digest


@few
@given(st.text(PRINTABLE, min_size=1, max_size=9), st.text(PRINTABLE, min_size=1, max_size=9))
def test_the_line_between_actor_and_key_cannot_be_moved(one: str, other: str) -> None:
    """An actor's bytes may hold anything, the separator of the two included."""
    actors_and_keys = [
        (one.encode(), other + one),
        ((one + other).encode(), one),
        ((one + other + "\0").encode(), one),
        (one.encode() + b"\0" + other.encode(), one),
        (one.encode(), other),
        (one.encode() + b"\0", other),
    ]
    assert len({once(*parts, b"", 0).key for parts in actors_and_keys}) == len(actors_and_keys)


@few
@given(asked, requests)
def test_another_request_has_the_same_key_and_another_digest(question: Asked, request: bytes) -> None:
    one, other = once(*question, 0), once(*question._replace(request=request), 0)
    assert one.key == other.key
    assert (one.digest == other.digest) == (request == question.request)


@few
@given(asked)
def test_the_seed_is_in_nothing_that_is_stored(question: Asked) -> None:
    known = once(*question, 0)
    assert known.seed not in (known.key, known.digest)
    assert {len(known.key), len(known.digest), len(known.seed)} == {32}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "a" * (MAX_KEY + 1),
        "a" * 1_000_000,
        "a\n",
        "\n",
        "\t",
        "a\0b",
        "\x1f",
        "\x7f",
        "\x80",
        "\xa0",
        "é",
        "١",
        "🦜",
        "\u200d",
        "\ud800",
    ],
    ids=ascii,
)
def test_a_key_that_is_empty_long_or_unprintable_is_malformed(key: str) -> None:
    with pytest.raises(Malformed) as refused:
        once(b"ada", key, b"", 0)
    assert refused.value.code == "malformed_idempotency_key"


@given(st.text())
def test_a_key_is_taken_when_it_is_printable_ascii_and_nothing_worse_happens_otherwise(key: str) -> None:
    try:
        once(b"ada", key, b"", 0)
    except Malformed:
        taken = False
    else:
        taken = True
    assert taken == (0 < len(key) <= MAX_KEY and set(key) <= set(PRINTABLE))


def test_the_longest_key_and_every_printable_letter_are_taken() -> None:
    assert once(b"ada", "~" * MAX_KEY, b"", 0) != once(b"ada", "~" * (MAX_KEY - 1), b"", 0)
    assert once(b"ada", "".join(PRINTABLE), b"", 0).key != once(b"ada", "".join(PRINTABLE[:-1]), b"", 0).key


def test_using_a_key_for_something_else_breaks_a_rule() -> None:
    failure = reused()
    assert isinstance(failure, BrokenRule)
    assert failure.code == "idempotency_key_reused"


def test_a_key_is_kept_for_a_day() -> None:
    assert KEPT_MILLIS == 86_400_000
