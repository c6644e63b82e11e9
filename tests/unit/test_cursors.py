"""Cursors: a list goes on where it was left, and nothing but its own cursors is taken."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rookery.domain.cursors import DEFAULT_LIMIT, MAX_LIMIT, read_cursor, write_cursor
from rookery.domain.errors import Malformed
from rookery.domain.ids import ID_BYTES

few = settings(max_examples=25)
"""For what is so simple that a few examples show it."""

BASE64 = string.ascii_letters + string.digits + "-_"
POSITION = bytes.fromhex("01890a5dac96774bbcceb302099a8057")

positions = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
kinds = st.sampled_from(string.ascii_lowercase)


def is_refused(kind: str, text: str) -> bool:
    """Whether a cursor is malformed. One that is read must be the one that is written of what was read."""
    try:
        position = read_cursor(kind, text)
    except Malformed as refused:
        return refused.code == "malformed_cursor"
    assert write_cursor(kind, position) == text
    return False


@few
@given(kinds, positions)
def test_a_cursor_gives_back_its_position(kind: str, position: bytes) -> None:
    assert read_cursor(kind, write_cursor(kind, position)) == position


@few
@given(kinds, positions)
def test_a_cursor_needs_no_escaping_in_a_url(kind: str, position: bytes) -> None:
    assert set(write_cursor(kind, position)) <= set(BASE64)


@few
@given(kinds, kinds, positions)
def test_a_cursor_of_another_list_is_malformed(one: str, other: str, position: bytes) -> None:
    assert is_refused(other, write_cursor(one, position)) == (one != other)


@given(kinds, positions, st.data())
def test_a_truncated_cursor_is_malformed(kind: str, position: bytes, data: st.DataObject) -> None:
    text = write_cursor(kind, position)
    assert is_refused(kind, text[: data.draw(st.integers(0, len(text) - 1))])
    assert is_refused(kind, text[data.draw(st.integers(1, len(text))) :])


@given(kinds, positions, st.data())
def test_a_cursor_with_anything_more_in_it_is_malformed(kind: str, position: bytes, data: st.DataObject) -> None:
    text = write_cursor(kind, position)
    at = data.draw(st.integers(0, len(text)))
    # Base64 decoders pass over letters that are not theirs, white space and what follows padding.
    more = data.draw(st.sampled_from(["=", "==", "\n", " ", "\0", "A", "%3D", "é", "=A==", "\ud800"]))
    assert is_refused(kind, text[:at] + more + text[at:])


@given(kinds, positions, st.integers(0, 22), st.characters())
def test_an_altered_cursor_is_malformed_or_of_another_position(
    kind: str, position: bytes, at: int, letter: str
) -> None:
    text = write_cursor(kind, position)
    altered = text[:at] + letter + text[at + 1 :]
    if not is_refused(kind, altered) and altered != text:
        assert read_cursor(kind, altered) != position


def test_every_position_has_one_cursor_only() -> None:
    text = write_cursor("f", POSITION)
    read = {text[:-1] + letter for letter in BASE64 if not is_refused("f", text[:-1] + letter)}
    assert len(read) == 16, "of the last letter's six bits four are the position's, and the spare two are nought"
    assert is_refused("f", text.replace(text[5], "+"))
    slashes = write_cursor("f", b"\xff" * ID_BYTES)
    assert "_" in slashes
    assert is_refused("f", slashes.replace("_", "/")), "the other base64 alphabet"


@pytest.mark.parametrize("size", [0, 1, 15, 17, 32, 10_000])
def test_a_position_of_another_length_is_malformed(size: int) -> None:
    assert is_refused("f", write_cursor("f", bytes(size)))


@given(kinds, st.one_of(st.text(), st.text(BASE64, max_size=30), st.text(BASE64, min_size=23, max_size=23)))
def test_no_text_is_worse_than_malformed(kind: str, text: str) -> None:
    assert is_refused(kind, text) or len(read_cursor(kind, text)) == ID_BYTES


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(Malformed) as refused:
        read_cursor("f", "<script>")
    assert "<script>" not in refused.value.message


@pytest.mark.parametrize("text", ["", "=", "====", "é", "٣" * 23, "\ud800" * 23, "a" * 100_000, "🦜" * 23, "\0" * 23])
def test_what_is_no_cursor_at_all_is_malformed(text: str) -> None:
    assert is_refused("f", text)


def test_a_page_is_ten_by_default_and_a_hundred_at_most() -> None:
    assert (DEFAULT_LIMIT, MAX_LIMIT) == (10, 100)
