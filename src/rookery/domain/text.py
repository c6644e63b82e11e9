"""What a text may be. Lengths count grapheme clusters (UAX #29), which is what a reader sees as characters."""

import unicodedata
from itertools import islice

import regex

from rookery.domain.errors import BrokenRule

MAX_BODY = 280
MAX_BODY_CODE_POINTS = 2_000
MAX_TITLE = 140
MAX_TITLE_CODE_POINTS = 1_000
MAX_DISPLAY_NAME = 50
MAX_DISPLAY_NAME_CODE_POINTS = 200

# A code point of NFC stands for at most four of its source (U+1FA7 is omega and three marks), so a text longer than
# this can't come within its limit, and need not be normalised to know it.
_MOST_COMPOSED = 4
_CLUSTER = regex.compile(r"\X")
# Runs of combining marks; the three last are none themselves but decompose into some.
_MARKS = regex.compile(r"[[^\p{ccc=0}]\u0f73\u0f75\u0f81]{16,}", regex.V1)
_REFUSED = regex.compile(r"[\p{Cs}[\p{Cc}--[\n\t]]]", regex.V1)
_REFUSED_IN_LINE = regex.compile(r"[\p{Cs}\p{Cc}]", regex.V1)


def clean_body(text: str, *, may_be_empty: bool) -> str:
    """The body of a tweet, normalised.

    Raises:
        BrokenRule: `body_empty`, `body_too_long`, `body_characters`.
    """
    clean = _clean("body", text, MAX_BODY, MAX_BODY_CODE_POINTS, _REFUSED)
    if not clean and not may_be_empty:
        raise BrokenRule("body_empty", "A tweet needs a body.")
    return clean


def clean_title(text: str) -> str:
    """The title of a tweet, normalised; it may be empty.

    Raises:
        BrokenRule: `title_too_long`, `title_characters`.
    """
    return _clean("title", text, MAX_TITLE, MAX_TITLE_CODE_POINTS, _REFUSED)


def clean_display_name(text: str) -> str:
    """A person's name as shown, on one line.

    Raises:
        BrokenRule: `display_name_too_long`, `display_name_characters`.
    """
    return _clean("display_name", text, MAX_DISPLAY_NAME, MAX_DISPLAY_NAME_CODE_POINTS, _REFUSED_IN_LINE)


def _clean(field: str, text: str, limit: int, code_points: int, refused: "regex.Pattern[str]") -> str:
    """Newlines become one kind, then NFC, then the limits: the order matters, as NFC may shorten."""
    if not text:
        return text
    if len(text) > _MOST_COMPOSED * code_points:
        raise _too_long(field, limit, code_points)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if refused.search(text):
        raise BrokenRule(f"{field}_characters", f"The {field} holds a control character.")
    text = unicodedata.normalize("NFC", _MARKS.sub(_in_order, text))
    if len(text) > code_points or (len(text) > limit and _has_more_clusters(text, limit)):
        raise _too_long(field, limit, code_points)
    return text


def _too_long(field: str, limit: int, code_points: int) -> BrokenRule:
    return BrokenRule(f"{field}_too_long", f"The {field} has at most {limit} characters and {code_points} code points.")


def _in_order(run: "regex.Match[str]") -> str:
    """A run of marks in canonical order. NFC does it too, but by insertion: a quarter of a second for a bad body."""
    starters, keyed = 0, []
    for mark in run[0]:
        for part in unicodedata.normalize("NFD", mark):
            order = unicodedata.combining(part)
            starters += order == 0  # marks don't move across one that Python's own tables don't know as a mark
            keyed.append((starters, order, part))
    keyed.sort(key=lambda entry: entry[:2])
    return "".join(part for _, _, part in keyed)


def _has_more_clusters(text: str, limit: int) -> bool:
    return sum(1 for _ in islice(_CLUSTER.finditer(text), limit + 1)) > limit
