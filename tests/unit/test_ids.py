"""Ids: UUIDv7 made from a date, read from the one canonical text, and in the order of time as bytes and as text."""

import re
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID, uuid1, uuid3, uuid4, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rookery.domain.errors import Malformed
from rookery.domain.ids import ID_BYTES, ZERO, format_id, id_at, millis_of, parse_id, time_of

few = settings(max_examples=25)
"""For what is so simple that a few examples show it."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_9999 = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)

CANONICAL = "01890a5d-ac96-774b-bcce-b302099a8057"

any_id = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
any_millis = st.integers(0, (1 << 48) - 1)
entropy = st.binary(min_size=10, max_size=10)


def is_refused(text: str) -> bool:
    try:
        parse_id(text)
    except Malformed as refused:
        return refused.code == "malformed_id"
    return False


# Made from a date


@given(any_millis, entropy)
def test_an_id_has_the_layout_of_version_7(millis: int, chance: bytes) -> None:
    raw = id_at(millis, chance)
    made = UUID(bytes=raw)
    assert len(raw) == ID_BYTES
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == millis
    given_bits = int.from_bytes(chance, "big")
    assert (made.int >> 64) & 0xFFF == (given_bits >> 64) & 0xFFF, "rand_a is as given"
    assert made.int & ((1 << 62) - 1) == given_bits & ((1 << 62) - 1), "rand_b is as given"


def test_the_example_of_rfc_9562_is_made_and_read() -> None:
    raw = id_at(0x017F22E279B0, bytes.fromhex("0cc318c4dc0c0c07398f"))
    assert format_id(raw) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert time_of(raw) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


@few
@given(any_millis, entropy)
def test_the_millisecond_of_an_id_is_the_one_it_was_made_for(millis: int, chance: bytes) -> None:
    assert millis_of(id_at(millis, chance)) == millis


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)), entropy)  # noqa: DTZ001  hypothesis wants bare bounds
def test_the_time_of_an_id_is_its_date_to_the_millisecond(when: datetime, chance: bytes) -> None:
    when = when.replace(tzinfo=UTC)
    millis = (when - EPOCH) // timedelta(milliseconds=1)
    assert time_of(id_at(millis, chance)) == when.replace(microsecond=when.microsecond // 1000 * 1000)


@pytest.mark.parametrize("millis", [-1, 1 << 48, 1 << 64])
def test_a_date_that_no_id_can_hold_is_refused(millis: int) -> None:
    with pytest.raises(Malformed) as refused:
        id_at(millis, bytes(10))
    assert refused.value.code == "malformed_date"


@few
@given(any_id)
def test_every_id_has_some_time_whatever_its_version(raw: bytes) -> None:
    assert EPOCH <= time_of(raw) < datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("millis", [END_OF_9999 + 24 * 60 * 60 * 1000, (1 << 48) - 1])
def test_an_id_past_the_year_9999_shows_its_last_day(millis: int) -> None:
    assert time_of(id_at(millis, bytes(10))).date().isoformat() == "9999-12-31"


# Order


@few
@given(st.lists(st.tuples(any_millis, entropy), max_size=20))
def test_ids_sort_by_time_as_bytes_and_as_text(parts: list[tuple[int, bytes]]) -> None:
    ids = sorted(id_at(millis, chance) for millis, chance in parts)
    assert [millis_of(raw) for raw in ids] == sorted(millis for millis, _ in parts)
    texts = [format_id(raw) for raw in ids]
    assert texts == sorted(texts)


@given(any_id, any_id)
def test_any_two_ids_compare_alike_as_bytes_and_as_text(one: bytes, other: bytes) -> None:
    assert (one < other) == (format_id(one) < format_id(other))
    assert (one == other) == (format_id(one) == format_id(other))
    assert min(one, other) >= ZERO


# Text


@given(any_id)
def test_an_id_survives_being_written_and_read(raw: bytes) -> None:
    text = format_id(raw)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    assert parse_id(text) == raw
    assert parse_id(text.upper()) == raw
    assert UUID(text).bytes == raw


@pytest.mark.parametrize(
    "made",
    [
        UUID(int=0),
        UUID(int=(1 << 128) - 1),
        uuid1(),
        uuid3(UUID(int=0), "ada"),
        uuid4(),
        uuid5(UUID(int=0), "ada"),
        UUID("1ec9414c-232a-6b00-b3c8-9e6bdeced846"),
        UUID("2489e9ad-2ee2-8e00-8ec9-32d5f69181c0"),
    ],
    ids=lambda made: f"v{made.version}" if made.version else f"{made.int & 1:d}s",
)
def test_a_uuid_of_any_version_is_well_formed(made: UUID) -> None:
    assert parse_id(str(made)) == made.bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "{" + CANONICAL + "}",
        "urn:uuid:" + CANONICAL,
        CANONICAL.replace("-", ""),
        CANONICAL.replace("-", "", 1),
        CANONICAL.replace("-", "_"),
        CANONICAL.replace("-", "–"),
        CANONICAL[:-1],
        CANONICAL + "0",
        "0" + CANONICAL,
        CANONICAL + "\n",
        "\n" + CANONICAL,
        " " + CANONICAL,
        CANONICAL + " ",
        CANONICAL + "\0",
        CANONICAL[:-1] + "g",
        CANONICAL[:-1] + "٣",  # an Arabic digit: str.isdigit and int() take it
        CANONICAL[:-1] + "３",  # a wide one
        CANONICAL[:-1] + "\ud800",
        "0189-0a5dac96-774b-bcce-b302099a8057",
        "01890a5dac-96-774b-bcce-b302099a8057",
        "0x890a5d-ac96-774b-bcce-b302099a8057",
        "+1890a5d-ac96-774b-bcce-b302099a8057",
        "-1890a5d-ac96-774b-bcce-b302099a8057",
        "0_890a5d-ac96-774b-bcce-b302099a8057",
        " 1890a5d-ac96-774b-bcce-b302099a8057",
        CANONICAL + "," + CANONICAL,
        CANONICAL + "\n" + CANONICAL,
    ],
)
def test_anything_but_the_canonical_form_is_malformed(text: str) -> None:
    assert is_refused(text)


@given(st.one_of(st.text(), st.text("0123456789abcdef-", min_size=36, max_size=36)))
def test_no_text_is_worse_than_malformed(text: str) -> None:
    assert is_refused(text) or format_id(parse_id(text)) == text


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Malformed) as refused:
        parse_id("<script>")
    assert "<script>" not in refused.value.message


@given(any_id, st.integers(0, 35), st.characters())
def test_an_id_with_a_letter_changed_is_another_id_or_malformed(raw: bytes, at: int, letter: str) -> None:
    text = format_id(raw)
    text = text[:at] + letter + text[at + 1 :]
    expected = bool(re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text))
    assert is_refused(text) != expected
    if expected:
        assert format_id(parse_id(text)) == text.lower()


@given(any_id, st.integers(0, 35), st.text(min_size=1, max_size=2))
def test_an_id_with_a_letter_more_or_less_is_malformed(raw: bytes, at: int, more: str) -> None:
    text = format_id(raw)
    assert is_refused(text[:at] + text[at + 1 :])
    assert is_refused(text[:at] + more + text[at:])
