"""Tweets: what is put together from a cached part is the JSON of the whole."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rookery.domain.ids import ID_BYTES, ZERO, TweetId, UserId, id_at
from rookery.domain.tweets import (
    ChainedTweet,
    Link,
    Tweet,
    TweetRecord,
    complete,
    fragment_of,
    in_chain,
    link_of,
    place_of,
)

few = settings(max_examples=25)
"""For what is so simple that a few examples show it."""

MILLIS_OF_9999 = 253_402_300_799_999
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

raw_ids = st.binary(min_size=ID_BYTES, max_size=ID_BYTES)
tweet_ids = st.builds(id_at, st.integers(0, MILLIS_OF_9999), st.binary(min_size=10, max_size=10)).map(TweetId)
texts = st.text(
    st.one_of(
        st.sampled_from('"\\/\n\t{}[]:,%b%s&<>\u2028\u2029\u200d\u202e\ufeff🦜é'),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    max_size=60,
)
handles = st.from_regex(r"[A-Za-z0-9_]{1,30}", fullmatch=True)
counts = st.one_of(st.none(), st.integers(0, (1 << 63) - 1))


@st.composite
def records(draw: Callable[[st.SearchStrategy[Any]], Any]) -> TweetRecord:
    parent = draw(st.one_of(st.none(), raw_ids))
    return TweetRecord(
        id=draw(tweet_ids),
        author=UserId(draw(raw_ids)),
        title=draw(texts),
        body=draw(texts),
        retweet=parent,
        root=None if parent is None else draw(raw_ids),
        depth=0 if parent is None else draw(st.integers(1, 1000)),
        initial=draw(st.integers(0, 1 << 53)),
        deleted=draw(st.booleans()),
    )


def date_in(raw: bytes) -> datetime:
    return EPOCH + timedelta(milliseconds=UUID(bytes=raw).int >> 80)


def shown(record: TweetRecord, name: str, count: int | None) -> Tweet:
    return Tweet(
        id=UUID(bytes=record.id),
        user_id=UUID(bytes=record.author),
        title=record.title,
        body=record.body,
        retweet=None if record.retweet is None else UUID(bytes=record.retweet),
        created_at=date_in(record.id),
        user_name=name,
        count_retweet=count,
    )


def record_of(title: str, body: str) -> TweetRecord:
    return TweetRecord(TweetId(id_at(1_700_000_000_123, bytes(10))), UserId(b"\1" * ID_BYTES), title, body)


# Put together


@given(records(), handles, counts)
def test_a_completed_fragment_is_the_json_of_the_tweet(record: TweetRecord, name: str, count: int | None) -> None:
    made = complete(fragment_of(record), name, count)
    assert msgspec.json.decode(made, type=Tweet) == shown(record, name, count)
    assert made == msgspec.json.encode(shown(record, name, count)), "byte for byte, in the order of its fields"


@few
@given(records(), handles, counts)
def test_a_tweet_reads_the_same_to_another_json_parser(record: TweetRecord, name: str, count: int | None) -> None:
    read = json.loads(complete(fragment_of(record), name, count))
    assert tuple(read) == Tweet.__struct_fields__
    assert (read["title"], read["body"]) == (record.title, record.body)
    assert (read["user_name"], read["count_retweet"]) == (name, count)
    assert read["id"] == str(UUID(bytes=record.id))


@pytest.mark.parametrize(
    "text",
    [
        "",
        'she said "no"',
        '","user_name":"eve","x":"',
        "\\",
        '\\"',
        "\\u0000",
        "one\ntwo\n",
        "a\tb",
        "</script><script>",
        "%b %s %(name)s %%",
        "👨‍👩‍👧‍👦 🇩🇪 👍🏽",
        "ه\u0651\u0650 \u202bعربي\u202c",
        "\u2028\u2029\ufeff",
        "\U0010fffd\ue000",
    ],
    ids=ascii,
)
def test_quotes_newlines_emoji_and_marks_survive(text: str) -> None:
    record = record_of(text, text)
    read = json.loads(complete(fragment_of(record), "ada", 3))
    assert (read["title"], read["body"], read["user_name"]) == (text, text, "ada")


def test_a_fragment_knows_neither_name_nor_count() -> None:
    """So it never has to be dropped when they change."""
    fragment = json.loads(fragment_of(record_of("title", "body")) + b"}")
    assert set(Tweet.__struct_fields__) - set(fragment) == {"user_name", "count_retweet"}


def test_a_count_that_is_not_known_is_null_and_nought_is_nought() -> None:
    fragment = fragment_of(record_of("", "body"))
    assert json.loads(complete(fragment, "ada", None))["count_retweet"] is None
    assert json.loads(complete(fragment, "ada", 0))["count_retweet"] == 0


def test_the_date_of_a_tweet_is_its_ids_own_millisecond() -> None:
    read = json.loads(complete(fragment_of(record_of("", "body")), "ada", 0))
    assert datetime.fromisoformat(read["created_at"]) == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


def test_a_tweet_of_a_foreign_version_of_id_has_some_date() -> None:
    record = TweetRecord(TweetId(b"\xff" * ID_BYTES), UserId(ZERO), "", "body")
    assert msgspec.json.decode(complete(fragment_of(record), "ada", 0), type=Tweet).created_at.year == 9999


# In a chain


@few
@given(records(), handles, counts)
def test_a_live_tweet_in_its_chain_is_the_tweet_and_not_deleted(
    record: TweetRecord, name: str, count: int | None
) -> None:
    tweet = shown(record, name, count)
    chained = in_chain(complete(fragment_of(record), name, count))
    assert msgspec.json.decode(chained, type=ChainedTweet) == ChainedTweet(
        **{field: getattr(tweet, field) for field in Tweet.__struct_fields__}, deleted=False
    )
    assert set(json.loads(chained)) == set(ChainedTweet.__struct_fields__)


@few
@given(records())
def test_of_a_deleted_tweet_only_its_place_in_the_chain_is_left(record: TweetRecord) -> None:
    assert msgspec.json.decode(place_of(record), type=ChainedTweet) == ChainedTweet(
        id=UUID(bytes=record.id),
        user_id=None,
        title="",
        body="",
        retweet=None if record.retweet is None else UUID(bytes=record.retweet),
        created_at=date_in(record.id),
        user_name=None,
        count_retweet=None,
        deleted=True,
    )
    assert set(json.loads(place_of(record))) == set(ChainedTweet.__struct_fields__)


@few
@given(records())
def test_a_link_is_the_place_of_a_tweet_in_its_chain(record: TweetRecord) -> None:
    root = record.id if record.retweet is None else record.root
    assert root is not None
    assert link_of(record) == Link(
        id=record.id,
        parent=record.retweet,
        root=root,
        depth=record.depth,
        initial=record.initial,
        live=not record.deleted,
    )


def test_a_tweet_that_retweets_nothing_is_its_own_root() -> None:
    record = record_of("", "body")
    assert link_of(record).root == record.id
    assert link_of(record).parent is None
    assert link_of(record).depth == 0
