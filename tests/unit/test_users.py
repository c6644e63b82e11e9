"""People: which handles and passwords are taken, and what everyone sees."""

import re
import string
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rookery.domain.errors import BrokenRule
from rookery.domain.ids import UserId, id_at
from rookery.domain.users import (
    NAME_PATTERN,
    User,
    UserCounts,
    UserRecord,
    check_name,
    check_password,
    name_key,
    show_user,
)

few = settings(max_examples=25)
"""For what is so simple that a few examples show it."""

LETTERS = string.ascii_letters + string.digits + "_"

names = st.text(LETTERS, min_size=1, max_size=30)


def is_name(text: str) -> bool:
    try:
        typed = check_name(text)
    except BrokenRule as refused:
        return refused.code != "name_invalid"
    assert typed == text, "a name is kept as it was typed"
    return True


# Handles


@few
@given(names)
def test_up_to_thirty_letters_digits_and_underscores_are_a_name(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["a", "A", "0", "_", "a" * 30, "_" * 30, LETTERS[:30], LETTERS[30:60], "null", "me"])
def test_names_at_the_edges_of_the_rule_are_taken(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 31,
        "a" * 1_000_000,
        "ada ",
        " ada",
        "ada\n",
        "\nada",
        "ada\0",
        "ada-b",
        "ada.b",
        "@ada",
        "ada/b",
        "ada%20",
        "åda",
        "a\u0308da",
        "ada١",  # digits and letters that \d and \w take in Unicode
        "ａｄａ",
        "аda",  # the Cyrillic one
        "\u212aate",  # the Kelvin sign, whose lower case is k
        "\u0131da",
        "\u017fam",  # the long s, which matches s when case is ignored in Unicode
        "ada\u200d",
        "\u202eada",
        "🦜",
        "\ud800",
    ],
    ids=ascii,
)
def test_anything_else_is_no_name(name: str) -> None:
    assert not is_name(name)


@given(st.one_of(st.text(max_size=40), st.text(LETTERS + "-é\n", max_size=40)))
def test_the_pattern_that_is_published_is_the_one_that_is_checked(text: str) -> None:
    pattern = NAME_PATTERN.removeprefix("^").removesuffix("$")
    assert is_name(text) == bool(re.fullmatch(pattern, text))
    assert is_name(text) == (1 <= len(text) <= 30 and set(text) <= set(LETTERS))


@given(names, names)
def test_names_are_one_when_they_differ_by_case_only(one: str, other: str) -> None:
    assert name_key(one.upper()) == name_key(one.lower()) == name_key(one.swapcase()) == name_key(one)
    assert (name_key(one) == name_key(other)) == (one.casefold() == other.casefold())


@few
@given(names)
def test_the_key_of_a_name_is_a_name_and_its_own_key(name: str) -> None:
    assert is_name(name_key(name))
    assert name_key(name_key(name)) == name_key(name)


# Passwords


@pytest.mark.parametrize("length", [8, 9, 199, 200])
def test_a_password_of_8_to_200_characters_is_taken_as_it_is(length: int) -> None:
    assert check_password("ü" * length) == "ü" * length


@pytest.mark.parametrize("length", [0, 1, 7, 201, 1_000_000])
def test_a_password_that_is_short_or_very_long_is_refused(length: int) -> None:
    with pytest.raises(BrokenRule) as refused:
        check_password("x" * length)
    assert refused.value.code == "password_length"


@few
@given(st.text(min_size=8, max_size=200))
def test_a_password_may_hold_anything_and_is_not_changed(password: str) -> None:
    assert check_password(password) == password


@few
@given(st.text(min_size=1, max_size=7))
def test_a_refusal_does_not_repeat_the_password(password: str) -> None:
    secret = f"<{password}"[:7]
    with pytest.raises(BrokenRule) as refused:
        check_password(secret)
    assert secret not in refused.value.message


# What everyone sees


@few
@given(
    st.integers(0, 253_402_300_799_999),
    st.binary(min_size=10, max_size=10),
    names,
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=50),
    st.tuples(*[st.integers(0, 1 << 53)] * 3),
)
def test_everyone_sees_a_user_with_his_counts_and_no_more(
    millis: int, chance: bytes, name: str, display_name: str, counted: tuple[int, ...]
) -> None:
    record = UserRecord(UserId(id_at(millis, chance)), name, display_name, is_admin=True)
    shown = show_user(record, UserCounts(*counted))
    assert shown == User(
        user_id=UUID(bytes=record.id),
        name=name,
        display_name=display_name,
        created_at=shown.created_at,
        count_followers=counted[0],
        count_followees=counted[1],
        count_tweets=counted[2],
    )
    assert round(shown.created_at.timestamp() * 1000) == millis
    assert msgspec.json.decode(msgspec.json.encode(shown), type=User) == shown


def test_a_user_was_made_at_the_millisecond_of_his_id() -> None:
    record = UserRecord(UserId(bytes.fromhex("01890a5dac96774bbcceb302099a8057")), "ada", "Ada Lovelace")
    shown = show_user(record, UserCounts(followers=3, followees=2, tweets=1))
    assert shown.created_at == datetime(2023, 6, 30, 3, 34, 18, 518_000, tzinfo=UTC)
    assert (shown.count_followers, shown.count_followees, shown.count_tweets) == (3, 2, 1)
