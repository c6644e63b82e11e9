"""What a text may be, counted as a reader counts it, and brought to one form whatever keyboard it came from."""

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from rookery.domain.errors import BrokenRule
from rookery.domain.text import clean_body, clean_display_name, clean_title

FAMILY = "👨‍👩‍👧‍👦"
FLAG = "🇩🇪"
ACUTE = "\u0301"
DECOMPOSED = "\u03c9\u0314\u0342\u0345"
"""U+1FA7 in the four code points that it stands for: none stands for more."""

ONE_CLUSTER = [
    "a",
    " ",
    "\t",
    "\n",
    "\r\n",
    "é",
    "e" + ACUTE,
    "q" + ACUTE * 5,
    DECOMPOSED,
    "\ufb2c",  # a Hebrew letter that NFC takes apart
    FAMILY,
    FLAG,
    "👍🏽",
    "❤\ufe0f",
    "1\ufe0f\u20e3",
    "🏴\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "ه\u0651\u0650",
    "ب\u064e",
    "한",
    "\u1112\u1161\u11ab",
    "षि",
    "\u200f",
    "\u202b",
    "\u2028",
    "\U0010fffd",
]
"""Each is one character to a reader, and none joins its neighbours."""

Clean = Callable[[str], str]


def body(text: str) -> str:
    return clean_body(text, may_be_empty=False)


FIELDS: dict[str, tuple[Clean, int, int]] = {
    "body": (body, 280, 2_000),
    "title": (clean_title, 140, 1_000),
    "display_name": (clean_display_name, 50, 200),
}
fields = pytest.mark.parametrize("field", FIELDS)
blocks = pytest.mark.parametrize("field", ["body", "title"])


def refusal(clean: Clean, text: str) -> str | None:
    """The code of the refusal, or None for a text that is taken. Nothing else may happen."""
    try:
        clean(text)
    except BrokenRule as refused:
        return refused.code
    return None


def one_form(text: str) -> str:
    """What a text is to become, said as plainly as can be."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


def fits(text: str, limit: int, code_points: int) -> bool:
    clean = one_form(text)
    return len(clean) <= code_points and len(regex.findall(r"\X", clean)) <= limit


# Length


@blocks
@pytest.mark.parametrize("cluster", ONE_CLUSTER, ids=ascii)
def test_what_a_reader_sees_as_one_character_counts_as_one(field: str, cluster: str) -> None:
    clean, limit, code_points = FIELDS[field]
    size = len(one_form(cluster))
    most = min(limit, code_points // size)
    assert refusal(clean, cluster * most) is None
    assert refusal(clean, cluster * (most + 1)) == f"{field}_too_long"


@given(st.lists(st.sampled_from(ONE_CLUSTER), min_size=1, max_size=8), st.integers(270, 290))
def test_a_body_has_280_characters_of_any_mixture(clusters: list[str], count: int) -> None:
    text = "".join(islice(cycle(clusters), count))
    fitting = count <= 280 and len(one_form(text)) <= 2_000
    assert refusal(body, text) == (None if fitting else "body_too_long")


@given(
    st.text(
        st.one_of(
            st.sampled_from(
                "ae\u0301\u0308\u200d\u200c\ufe0f🇩🇪👩👍🏽ـه\u0651\u0650क\u094dष\u1100\u1161\u11a8각\r\n\t\u200f"
            ),
            st.characters(exclude_categories=("Cs", "Cc")),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 600),
)
def test_the_limits_agree_with_counting_every_cluster(piece: str, length: int) -> None:
    text = "".join(islice(cycle(piece), length))
    assert (refusal(body, text) is None) == fits(text, 280, 2_000)
    assert (refusal(clean_title, text) is None) == fits(text, 140, 1_000)


@fields
def test_a_text_at_its_limit_is_taken_and_one_character_more_is_not(field: str) -> None:
    clean, limit, _ = FIELDS[field]
    assert clean("x" * limit) == "x" * limit
    assert refusal(clean, "x" * (limit + 1)) == f"{field}_too_long"


@fields
def test_code_points_have_a_limit_of_their_own(field: str) -> None:
    clean, _, code_points = FIELDS[field]
    text = "x" + ACUTE * (code_points - 1)
    assert clean(text) == text
    assert refusal(clean, text + ACUTE) == f"{field}_too_long"


def test_families_of_emoji_fill_a_body() -> None:
    assert body(FAMILY * 280) == FAMILY * 280
    assert len(FAMILY * 280) == 1_960
    assert refusal(body, FAMILY * 281) == "body_too_long"


def test_flags_count_in_pairs() -> None:
    assert body(FLAG * 280) == FLAG * 280
    assert refusal(body, FLAG * 280 + "🇩") == "body_too_long"
    assert body(FLAG * 279 + "🇩") == FLAG * 279 + "🇩"


# One form


def test_a_text_that_fits_only_when_composed_is_taken() -> None:
    text = ("e" + ACUTE * 8) * 250
    assert len(text) == 2_250
    assert body(text) == ("é" + ACUTE * 7) * 250
    assert refusal(body, text + ACUTE) == "body_too_long"


@fields
def test_the_most_composed_text_is_taken_at_its_limit(field: str) -> None:
    clean, limit, _ = FIELDS[field]
    assert clean(DECOMPOSED * limit) == "\u1fa7" * limit
    assert refusal(clean, DECOMPOSED * (limit + 1)) == f"{field}_too_long"


def test_a_body_may_come_to_a_third_of_its_length() -> None:
    """The most there is: four code points become one at the head of each character, and three become one behind it."""
    text = (DECOMPOSED + "\u0dd9\u0dcf\u0dca" * 6) * 280
    assert len(text) == 6_160
    assert body(text) == ("\u1fa7" + "\u0ddd" * 6) * 280
    assert len(body(text)) == 1_960


def test_a_text_that_composing_makes_longer_is_measured_afterwards() -> None:
    text = "\u0958" * 280  # one code point that NFC always takes apart into two
    assert len(body(text)) == 560
    text = ("\ufb2c" + "\u05b0" * 5) * 280
    assert len(text) == 1_680
    assert refusal(body, text) == "body_too_long"


def test_no_code_point_stands_for_more_than_four() -> None:
    """The bound that saves normalising what can't fit. A later Unicode must not break it unseen."""
    longest = max(len(unicodedata.normalize("NFD", chr(code))) for code in range(sys.maxunicode + 1))
    assert longest == len(DECOMPOSED) == 4


@blocks
@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\nb", "a\nb"),
        ("\r\r\n\n\r", "\n\n\n\n"),
        ("\n\r", "\n\n"),
        ("\t", "\t"),
        ("e" + ACUTE, "é"),
        ("\u212b", "Å"),
        (" a ", " a "),
    ],
    ids=ascii,
)
def test_line_ends_and_accents_come_to_one_form(field: str, text: str, cleaned: str) -> None:
    assert FIELDS[field][0](text) == cleaned


def test_a_line_end_counts_once_however_it_came() -> None:
    assert body("\r\n" * 280) == body("\r" * 280) == body("\n" * 280) == "\n" * 280
    assert refusal(body, "\r\n" * 281) == refusal(body, "\r" * 281) == "body_too_long"


@fields
@given(text=st.text())
def test_a_cleaned_text_is_not_changed_by_cleaning_it(field: str, text: str) -> None:
    clean = FIELDS[field][0]
    if refusal(clean, text) is None:
        cleaned = clean(text)
        assert clean(cleaned) == cleaned
        assert cleaned == one_form(text)
        assert unicodedata.is_normalized("NFC", cleaned)
        assert "\r" not in cleaned


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40))
def test_texts_that_mean_the_same_become_the_same(text: str) -> None:
    composed, taken_apart = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert clean_title(text) == clean_title(composed) == clean_title(taken_apart)


# Characters


ALLOWED_CONTROLS = "\n\t\r"  # the last becomes the first
REFUSED_CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in ALLOWED_CONTROLS]


@fields
@pytest.mark.parametrize("control", REFUSED_CONTROLS, ids=ascii)
def test_a_control_character_is_refused_wherever_it_stands(field: str, control: str) -> None:
    clean = FIELDS[field][0]
    for text in (control, control + "a", "a" + control, f"a{control}b", f"e{control}{ACUTE}"):
        assert refusal(clean, text) == f"{field}_characters"


@fields
@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC00, 0xDFFF], ids=hex)
def test_a_surrogate_is_refused_and_not_met_by_an_encoding_error(field: str, code: int) -> None:
    clean, surrogate = FIELDS[field][0], chr(code)
    for text in (surrogate, surrogate + "a", "a" + surrogate + ACUTE, "\ud83d\ude00" + surrogate):
        assert refusal(clean, text) == f"{field}_characters"


@blocks
def test_newline_and_tab_may_stand_in_a_body_and_a_title(field: str) -> None:
    assert FIELDS[field][0]("a\n\tb\n") == "a\n\tb\n"


@pytest.mark.parametrize("control", ["\n", "\t", "\r", "\r\n"], ids=ascii)
def test_a_display_name_is_one_line(control: str) -> None:
    assert refusal(clean_display_name, f"Ada{control}Lovelace") == "display_name_characters"


@fields
@pytest.mark.parametrize(
    "mark",
    [
        "\u200d",
        "\u200c",
        "\u200e",
        "\u200f",
        "\u061c",
        *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
        "\u00ad",
    ],
    ids=ascii,
)
def test_joiners_and_marks_of_direction_are_allowed(field: str, mark: str) -> None:
    clean = FIELDS[field][0]
    assert clean(mark) == mark
    assert clean(f"שלום{mark}world") == f"שלום{mark}world"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=50))
def test_nothing_but_controls_and_surrogates_is_refused(text: str) -> None:
    assert refusal(body, text) is None
    assert refusal(clean_title, text) is None


@given(st.text(st.characters(), min_size=1, max_size=50))
def test_a_text_is_refused_for_its_characters_by_their_category(text: str) -> None:
    bad = any(unicodedata.category(letter) in {"Cs", "Cc"} and letter not in ALLOWED_CONTROLS for letter in text)
    assert refusal(body, text) == ("body_characters" if bad else None)


# Nothing and very much


def test_a_body_may_be_empty_only_where_that_is_said() -> None:
    assert clean_body("", may_be_empty=True) == ""
    assert refusal(body, "") == "body_empty"
    assert clean_title("") == ""


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_what_may_be_empty_changes_nothing_else(may_be_empty: bool) -> None:
    assert clean_body("e" + ACUTE, may_be_empty=may_be_empty) == "é"
    for text, code in (("x" * 281, "body_too_long"), ("\0", "body_characters")):
        with pytest.raises(BrokenRule) as refused:
            clean_body(text, may_be_empty=may_be_empty)
        assert refused.value.code == code


@pytest.fixture
def normalised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that is given to the normaliser, which still does its work."""
    seen = []
    normalize = unicodedata.normalize

    def watched(form: str, text: str) -> str:
        seen.append(text)
        return normalize(form, text)  # type: ignore[arg-type]  # the form is passed on as it came

    monkeypatch.setattr(unicodedata, "normalize", watched)
    return seen


@fields
@pytest.mark.parametrize(
    "text", ["a" + ACUTE * 100_000, "a" + "\u0301\u0323" * 50_000, "x" * 10_000_000, FLAG * 50_000]
)
def test_a_huge_text_is_refused_without_normalising_it(field: str, text: str, normalised: list[str]) -> None:
    clean, _, code_points = FIELDS[field]
    assert refusal(clean, text) == refusal(clean, text[: 4 * code_points + 1]) == f"{field}_too_long"
    assert not normalised
    clean("e" + ACUTE)
    assert normalised, "else nothing was watched"


def swaps(text: str) -> int:
    """How often the normaliser, which sorts marks by insertion, swaps two in a text: the pairs in the wrong order."""
    total, before = 0, Counter[int]()
    parts = {letter: unicodedata.normalize("NFD", letter) for letter in set(text)}
    for letter in "".join(parts[letter] for letter in text):
        order = unicodedata.combining(letter)
        if order == 0:
            before.clear()
        else:
            total += sum(count for other, count in before.items() if other > order)
            before[order] += 1
    return total


@fields
@pytest.mark.parametrize("marks", ["\u0345\u0334", "\u0315\u0301\u0323\u0334", "\u0f73"], ids=ascii)
def test_marks_in_the_wrong_order_cost_no_more_than_a_text_that_fits(
    field: str, marks: str, normalised: list[str]
) -> None:
    """CPython sorts them by insertion: 8,000 of them took it 127 ms, in which the server answered nobody."""
    clean, _, code_points = FIELDS[field]
    text = "a" + "".join(mark * (4 * code_points // len(marks) - 1) for mark in marks)
    assert refusal(clean, text) == f"{field}_too_long"
    allowed = (code_points + 4) ** 2 // 2
    assert sum(map(swaps, list(normalised))) <= allowed


@given(st.permutations("\u0345\u0334\u0301\u0323\u0f73\u0897\U0001e4ec" * 5))
def test_marks_in_any_order_are_put_in_theirs(marks: list[str]) -> None:
    """Also those that one Unicode version orders and another does not know yet."""
    text = "q" + "".join(marks)
    assert body(text) == one_form(text)
