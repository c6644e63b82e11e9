"""What every store promises of tweets and their chains."""

from pathlib import Path

import msgspec
import pytest

from rookery.domain.errors import Conflict, NotFound
from rookery.domain.ids import TweetId, UserId
from rookery.domain.timeline import entry
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Store
from tests.contract.expecting import in_pages, refused
from tests.contract.given import MOST, Given, deleted
from tests.contract.places import OpenStore


def entries_of(tweets: list[TweetRecord]) -> list[bytes]:
    """Newest first."""
    return sorted((entry(tweet.id, tweet.author) for tweet in tweets), reverse=True)


async def test_a_tweet_is_found_as_it_was_written(store: Store, given: Given) -> None:
    ada = await given.user()
    text = "Zero \u200d width, e\u0301, 🏳️‍🌈, \u202ebidi\u202c, 'quoted' \"twice\"\n\ttabbed; -- \\ % _ ?"
    draft = TweetRecord(given.unknown_tweet(), ada.id, "‹title›", text, initial=10**12)
    written = await store.add_tweet(draft, MOST)
    assert written.tweet == draft
    assert not written.repeated
    assert await store.tweets([draft.id]) == {draft.id: draft}


async def test_tweets_are_given_for_the_ids_that_are_known(store: Store, given: Given) -> None:
    ada = await given.user()
    tweets = [await given.post(ada) for _ in range(3)]
    asked = [tweets[2].id, given.unknown_tweet(), tweets[0].id, tweets[2].id]
    assert await store.tweets(asked) == {tweets[0].id: tweets[0], tweets[2].id: tweets[2]}
    assert await store.tweets([]) == {}
    many = [given.unknown_tweet() for _ in range(2_500)] + [tweets[1].id]
    assert await store.tweets(many) == {tweets[1].id: tweets[1]}


async def test_nobody_posts_who_is_not_there(store: Store, given: Given) -> None:
    gone = await given.user()
    await store.delete_user(gone.id)
    for author in (gone, given.person()):
        draft = given.draft(author)
        with refused(NotFound, "unknown_user"):
            await store.add_tweet(draft, MOST)
        assert await store.tweets([draft.id]) == {}


# Chains


async def test_a_retweet_gets_the_root_and_depth_of_its_chain(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    first = await given.post(bob, root)
    second = await given.post(ada, first)
    beside = await given.post(ada, root)
    found = await store.tweets([root.id, first.id, second.id, beside.id])
    assert [(found[tweet.id].root, found[tweet.id].depth) for tweet in (root, first, second, beside)] == [
        (None, 0),
        (root.id, 1),
        (root.id, 2),
        (root.id, 1),
    ]
    assert all(found[tweet.id] == tweet for tweet in (root, first, second, beside))


async def test_root_and_depth_are_the_stores_to_say(store: Store, given: Given) -> None:
    ada = await given.user()
    root = await given.post(ada)
    wrong = given.unknown_tweet()
    for draft, expected in ((given.draft(ada, root), (root.id, 1)), (given.draft(ada), (None, 0))):
        claimed = msgspec.structs.replace(draft, root=wrong, depth=7)
        written = await store.add_tweet(claimed, MOST)
        assert (written.tweet.root, written.tweet.depth) == expected
        assert await store.tweets([draft.id]) == {draft.id: written.tweet}


async def test_what_never_was_is_not_retweeted(store: Store, given: Given) -> None:
    ada = await given.user()
    draft = given.draft(ada, given.unknown_tweet())
    with refused(NotFound, "unknown_tweet"):
        await store.add_tweet(draft, MOST)
    with refused(NotFound, "unknown_tweet"):
        await store.add_tweet(msgspec.structs.replace(draft, retweet=draft.id), MOST)
    assert await store.tweets([draft.id]) == {}


async def test_what_was_deleted_is_not_retweeted(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    tweet, beside = await given.post(ada), await given.post(ada)
    await store.delete_tweet(tweet.id)
    with refused(NotFound, "deleted_tweet"):
        await store.add_tweet(given.draft(bob, tweet), MOST)
    assert (await given.post(bob, beside)).depth == 1


async def test_what_a_deleted_user_wrote_is_not_retweeted(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    tweet = await given.post(ada)
    retweet = await given.post(bob, tweet)
    await store.delete_user(ada.id)
    with refused(NotFound, "deleted_tweet"):
        await store.add_tweet(given.draft(bob, tweet), MOST)
    assert (await given.post(bob, retweet)).depth == 2, "the chain below goes on"


async def test_a_chain_goes_on_below_what_was_deleted(store: Store, given: Given) -> None:
    ada = await given.user()
    root, middle, end = await given.chain(ada, 3)
    await store.delete_tweet(root.id)
    await store.delete_tweet(middle.id)
    more = await given.post(ada, end)
    assert (more.root, more.depth) == (root.id, 3)


@pytest.mark.parametrize("most", [1, 3])
async def test_a_chain_has_so_many_retweets_and_not_one_more(store: Store, given: Given, most: int) -> None:
    ada = await given.user()
    last = (await store.add_tweet(given.draft(ada), most)).tweet
    for depth in range(1, most + 1):
        last = (await store.add_tweet(given.draft(ada, last), most)).tweet
        assert last.depth == depth
    refused_one = given.draft(ada, last)
    with refused(Conflict, "chain_too_long"):
        await store.add_tweet(refused_one, most)
    assert await store.tweets([refused_one.id]) == {}
    assert (await store.user_counts(ada.id)).tweets == most + 1


# Deleting


async def test_deleting_forgets_the_text_and_keeps_the_place(store: Store, given: Given) -> None:
    ada = await given.user()
    root, middle, end = await given.chain(ada, 3)
    written = await store.delete_tweet(middle.id)
    assert written.tweet == deleted(middle)
    assert not written.repeated
    assert await store.tweets([root.id, middle.id, end.id]) == {
        root.id: root,
        middle.id: deleted(middle),
        end.id: end,
    }


async def test_deleting_twice_is_told_and_changes_nothing(store: Store, given: Given) -> None:
    ada = await given.user()
    tweet = await given.post(ada)
    first = await store.delete_tweet(tweet.id)
    second = await store.delete_tweet(tweet.id)
    assert (first.repeated, second.repeated) == (False, True)
    assert second.tweet == first.tweet == deleted(tweet)


async def test_what_never_was_is_not_deleted(store: Store, given: Given) -> None:
    with refused(NotFound, "unknown_tweet"):
        await store.delete_tweet(given.unknown_tweet())


async def test_what_a_write_owes_is_told_alike_by_all(store: Store, given: Given) -> None:
    ada = await given.user()
    posted = await given.written(ada)
    imported = await store.add_tweets([given.draft(ada)])
    removed = await store.delete_tweet(posted.tweet.id)
    await store.delete_user(ada.id)
    purged = await store.purge_user(ada.id, 10)
    assert purged
    assert len({written.owes_count for written in (posted, *imported, removed, *purged)}) == 1


# Tails


async def test_a_tail_is_the_newest_live_tweets_of_an_author(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    hers, his = [], []
    for turn in range(8):
        hers.append(await given.post(ada))
        if turn % 3 == 0:
            his.append(await given.post(bob, hers[-1]))
    await store.delete_tweet(hers[7].id)
    await store.delete_tweet(hers[5].id)
    live = [tweet for at, tweet in enumerate(hers) if at not in {5, 7}]
    assert list(await store.tails([(ada.id, None)], 3)) == [entries_of(live)[:3]]
    assert list(await store.tails([(ada.id, None)], 100)) == [entries_of(live)]


async def test_tails_come_in_the_order_asked(store: Store, given: Given) -> None:
    ada, bob, silent = await given.users(3)
    hers = [await given.post(ada) for _ in range(3)]
    his = [await given.post(bob) for _ in range(3)]
    unknown = given.unknown_user()
    wanted = [(bob.id, None), (silent.id, None), (ada.id, hers[2].id), (unknown, None), (bob.id, his[1].id)]
    assert list(await store.tails(wanted, 10)) == [
        entries_of(his),
        [],
        entries_of(hers[:2]),
        [],
        entries_of(his[:1]),
    ]
    assert list(await store.tails(wanted, 1)) == [
        entries_of(his)[:1],
        [],
        entries_of(hers[1:2]),
        [],
        entries_of(his[:1]),
    ]
    assert list(await store.tails([], 10)) == []
    assert list(await store.tails([], 1)) == []


async def test_a_tail_goes_on_below_an_id_that_is_not_in_it(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    old = await given.post(ada)
    gone = await given.post(ada)
    foreign = await given.post(bob)
    new = await given.post(ada)
    await store.delete_tweet(gone.id)
    for below in (gone.id, foreign.id, new.id):
        assert list(await store.tails([(ada.id, below)], 10)) == [entries_of([old])]
    assert list(await store.tails([(ada.id, old.id)], 10)) == [[]]


async def test_an_authors_tweets_in_pages_are_each_given_once(store: Store, given: Given) -> None:
    ada = await given.user()
    tweets = [await given.post(ada) for _ in range(11)]
    for limit in (1, 3, 11, 100):

        async def read(below: bytes | None, limit: int) -> list[bytes]:
            return list((await store.tails([(ada.id, TweetId(below[:16]) if below else None)], limit))[0])

        assert await in_pages(read, limit) == entries_of(tweets)


async def test_tails_of_thousands_of_authors_are_read_at_once(store: Store, given: Given) -> None:
    ada = await given.user()
    tweet = await given.post(ada)
    wanted: list[tuple[UserId, TweetId | None]] = [(given.unknown_user(), None) for _ in range(3_000)]
    wanted.insert(1_234, (ada.id, None))
    for limit in (1, 10):
        found = await store.tails(wanted, limit)
        assert [(at, tail) for at, tail in enumerate(found) if tail] == [(1_234, entries_of([tweet]))]
        assert len(found) == 3_001


# Walking


async def test_a_walk_gives_all_tweets_each_once(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    tweets = [*await given.chain(ada, 4), *await given.chain(bob, 3)]
    await store.delete_tweet(tweets[1].id)
    expected = [deleted(tweet) if tweet is tweets[1] else tweet for tweet in tweets]

    for limit in (1, 3, 100):
        walked: list[TweetRecord] = []
        position: bytes | None = b""
        while position is not None:
            page, position = await store.walk_tweets(position, limit)
            assert len(page) <= limit
            walked += page
        assert sorted(walked, key=lambda tweet: tweet.id) == expected


async def test_a_walk_goes_on_from_its_position_in_another_process(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        tweets = await given.chain(await given.user(), 7)
        first, position = await store.walk_tweets(b"", 3)
        assert position is not None
    async with open_store(tmp_path) as store:
        rest, _ = await store.walk_tweets(position, 100)
        assert sorted(tweet.id for tweet in (*first, *rest)) == [tweet.id for tweet in tweets]


# Imports


def at_once(given: Given, author: UserRecord, many: int) -> list[TweetRecord]:
    return [given.draft(author, body=f"Number {number}") for number in range(many)]


async def test_many_tweets_are_written_at_once(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    tweets = [*at_once(given, ada, 5), *at_once(given, bob, 5)]
    written = await store.add_tweets(tweets)
    assert [one.tweet for one in written] == tweets
    assert not any(one.repeated for one in written)
    assert await store.tweets([tweet.id for tweet in tweets]) == {tweet.id: tweet for tweet in tweets}
    assert list(await store.tails([(ada.id, None)], 10)) == [entries_of(tweets[:5])]
    assert list(await store.add_tweets([])) == []


async def test_an_import_leaves_what_is_there_as_it_is(store: Store, given: Given) -> None:
    ada = await given.user()
    first, second, third = at_once(given, ada, 3)
    await store.add_tweets([first, second])
    await store.delete_tweet(second.id)
    other = [msgspec.structs.replace(tweet, body="Another text") for tweet in (first, second, third)]
    written = await store.add_tweets(other)
    assert await store.tweets([first.id, second.id, third.id]) == {
        first.id: first,
        second.id: deleted(second),
        third.id: other[2],
    }
    assert [one.repeated for one in written] == [True, True, False]
    assert [one.tweet for one in written] == [first, deleted(second), other[2]], "not as they stand now"
