"""What every store promises of bare retweets: with `single` an author has one of each tweet, while it is live."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from rookery.domain.copies import Part
from rookery.domain.errors import BrokenRule, NotFound
from rookery.domain.ids import id_at
from rookery.domain.promises import Promise, Work
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Store, Written
from tests.contract.expecting import refused
from tests.contract.given import LATER, MOST, NOON, Given, once, purge
from tests.contract.lives import dumped
from tests.contract.places import OpenStore


def bare(given: Given, author: UserRecord, of: TweetRecord) -> TweetRecord:
    return msgspec.structs.replace(given.draft(author, of, ""), title="")


async def retweet(store: Store, given: Given, author: UserRecord, of: TweetRecord) -> Written:
    return await store.add_tweet(bare(given, author, of), MOST, single=True)


async def tweets_of(store: Store, author: UserRecord) -> int:
    return (await store.user_counts(author.id)).tweets


async def test_a_bare_retweet_is_made_once(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    first = await retweet(store, given, bob, root)
    assert (first.repeated, first.had) == (False, False)
    for _ in range(2):
        again = await retweet(store, given, bob, root)
        assert (again.tweet, again.repeated, again.had, again.promise) == (first.tweet, True, True, None)
    assert await tweets_of(store, bob) == 1


async def test_others_and_of_others_are_new(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    roots = [await given.post(ada) for _ in range(2)]
    made = {(await retweet(store, given, who, root)).tweet.id for who in (ada, bob) for root in roots}
    assert len(made) == 4
    below = (await retweet(store, given, bob, (await retweet(store, given, ada, roots[0])).tweet)).tweet
    assert below.id not in made
    assert below.depth == 2


@pytest.mark.parametrize("more", [{"body": "x"}, {"title": "x"}, {"initial": 1}])
async def test_one_that_says_something_is_always_new(store: Store, given: Given, more: dict[str, object]) -> None:
    ada = await given.user()
    root = await given.post(ada)
    await retweet(store, given, ada, root)
    for _ in range(2):
        draft = msgspec.structs.replace(bare(given, ada, root), **more)
        written = await store.add_tweet(draft, MOST, single=True)
        assert (written.tweet.id, written.had) == (draft.id, False)
    assert not (await retweet(store, given, ada, (await given.post(ada)))).had
    assert (await retweet(store, given, ada, root)).had


async def test_without_single_each_is_new(store: Store, given: Given) -> None:
    ada = await given.user()
    root = await given.post(ada)
    for _ in range(3):
        draft = bare(given, ada, root)
        assert (await store.add_tweet(draft, MOST)).tweet.id == draft.id
    assert await tweets_of(store, ada) == 4


async def test_when_it_was_deleted_another_can_be_made(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    made = set()
    for _ in range(3):
        written = await retweet(store, given, bob, root)
        assert not written.had
        made.add(written.tweet.id)
        assert (await retweet(store, given, bob, root)).had
        await store.delete_tweet(written.tweet.id)
    assert len(made) == 3


async def test_of_many_at_once_one_is_made(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    for _ in range(2):
        written = await asyncio.gather(*(retweet(store, given, bob, root) for _ in range(12)))
        made = {one.tweet.id for one in written}
        assert len(made) == 1
        assert sum(not one.had for one in written) == 1
        assert await tweets_of(store, bob) == 1
        await store.delete_tweet(made.pop())


async def test_a_key_belongs_to_the_one_that_was_there(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    first = await store.add_tweet(bare(given, bob, root), MOST, once("one"), single=True)
    second = await store.add_tweet(bare(given, bob, root), MOST, once("two"), single=True)
    assert (second.tweet, second.had) == (first.tweet, True)
    await store.delete_tweet(first.tweet.id)
    for key, had in (("one", False), ("two", True)):
        again = await store.add_tweet(bare(given, bob, root), MOST, once(key), single=True)
        assert (again.tweet.id, again.repeated, again.had) == (first.tweet.id, True, had), "as it was answered first"
    with refused(BrokenRule, "idempotency_key_reused"):
        await store.add_tweet(bare(given, bob, root), MOST, once("two", "another request"), single=True)
    third = await store.add_tweet(bare(given, bob, root), MOST, once("three"), single=True)
    assert (third.tweet.id != first.tweet.id, third.had) == (True, False)


async def test_many_at_once_with_keys_make_one(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    keys = [str(at % 4) for at in range(12)]
    written = await asyncio.gather(
        *(store.add_tweet(bare(given, bob, root), MOST, once(key), single=True) for key in keys)
    )
    assert len({one.tweet.id for one in written}) == 1
    assert await tweets_of(store, bob) == 1


async def test_nothing_is_promised_for_one_that_was_there(store: Store, given: Given) -> None:
    ada = await given.user()
    root = await given.post(ada)
    for key in (None, once("key")):
        await retweet(store, given, ada, root)
        draft = bare(given, ada, root)
        promise = Promise(id_at(NOON, draft.id[6:]), Work.POST, draft.id)
        assert (await store.add_tweet(draft, MOST, key, promise, single=True)).promise is None
        assert await store.promises(LATER, b"", 10) == []


async def test_what_can_not_be_retweeted_is_refused_all_the_same(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(ada)
    await retweet(store, given, bob, root)
    await store.delete_tweet(root.id)
    with refused(NotFound, "deleted_tweet"):
        await retweet(store, given, bob, root)
    await store.delete_user(bob.id)
    with refused(NotFound, "unknown_user"):
        await retweet(store, given, bob, await given.post(ada))


async def test_a_purged_author_leaves_nothing_in_the_way(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    root = await given.post(ada)
    for who in (bob, eve):
        await retweet(store, given, who, root)
    await store.delete_user(bob.id)
    await purge(store, bob)
    assert (await retweet(store, given, eve, root)).had
    assert not (await retweet(store, given, ada, root)).had


async def test_it_is_there_when_the_store_is_opened_again(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada = await given.user()
        root = await given.post(ada)
        first = await retweet(store, given, ada, root)
    async with open_store(tmp_path) as store:
        assert (await retweet(store, Given(store), ada, root)).tweet == first.tweet


async def test_it_is_there_in_a_copy(store: Store, target: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root, other = await given.post(ada), await given.post(ada)
    first = await store.add_tweet(bare(given, bob, root), MOST, once("one"), single=True)
    await store.add_tweet(bare(given, bob, root), MOST, once("two"), single=True)
    gone = await retweet(store, given, bob, other)
    await store.delete_tweet(gone.tweet.id)
    for _ in range(2):
        for part in Part:
            await target.restore(await dumped(store, part))
    again = await retweet(target, given, bob, root)
    assert (again.tweet, again.had) == (first.tweet, True)
    second = await target.add_tweet(bare(given, bob, root), MOST, once("two"), single=True)
    assert (second.tweet, second.had) == (first.tweet, True)
    assert not (await retweet(target, given, bob, other)).had
