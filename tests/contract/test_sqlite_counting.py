"""Store and ranking in one SQLite file: a tweet and its count are one write, unless the ranking is elsewhere."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.domain.errors import Conflict, NotFound
from rookery.domain.tweets import link_of
from rookery.ports.ranking import Ranked
from rookery.ports.store import Store
from tests.contract.adapters.sqlite import file_in, opened
from tests.contract.chains import Chains, counts_of, recount
from tests.contract.expecting import refused
from tests.contract.given import MOST, Given, once, purge_steps


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(file_in(tmp_path)) as database:
        yield database


@pytest.fixture
def store(database: Database) -> SqliteStore:
    return SqliteStore(database, counts=True)


@pytest.fixture
def ranking(database: Database) -> SqliteRanking:
    return SqliteRanking(database)


async def drift(store: Store, ranking: SqliteRanking) -> int:
    """How many counts are not those that the store's tweets make."""

    tweets = {tweet.id: link_of(tweet) for tweet in (await store.walk_tweets(b"", 100_000))[0]}
    chains = Chains()
    chains.links = tweets
    return (await recount(ranking, chains))[0].drifted


async def test_a_tweet_is_counted_when_it_is_answered(store: SqliteStore, ranking: SqliteRanking) -> None:
    given = Given(store)
    ada = await given.user()
    root = await given.written(ada)
    assert not root.owes_count
    assert await ranking.top(10) == [Ranked(root.tweet.id, 0)]
    retweet = await given.post(ada, root.tweet)
    again = await given.post(ada, retweet)
    assert await counts_of(ranking, [root.tweet, retweet, again]) == [2, 1, 0]

    written = await store.delete_tweet(again.id)
    assert not written.owes_count
    assert await counts_of(ranking, [root.tweet, retweet]) == [1, 0]
    await store.delete_tweet(again.id)
    assert await counts_of(ranking, [root.tweet, retweet]) == [1, 0]
    await store.delete_tweet(root.tweet.id)
    assert await ranking.top(10) == [Ranked(retweet.id, 0)]
    assert await drift(store, ranking) == 0


async def test_a_replay_counts_nothing(store: SqliteStore, ranking: SqliteRanking) -> None:
    given = Given(store)
    ada = await given.user()
    root = await given.post(ada)
    for _ in range(3):
        await store.add_tweet(given.draft(ada, root), MOST, once())
    assert await counts_of(ranking, [root]) == [1]
    assert await drift(store, ranking) == 0


async def test_what_is_refused_counts_nothing(store: SqliteStore, ranking: SqliteRanking) -> None:
    given = Given(store)
    ada, gone = await given.users(2)
    root = await given.post(ada)
    await store.delete_user(gone.id)
    with refused(Conflict, "chain_too_long"):
        await store.add_tweet(given.draft(ada, root), 0)
    with refused(NotFound, "unknown_user"):
        await store.add_tweet(given.draft(gone, root), MOST)
    assert await counts_of(ranking, [root]) == [0]
    assert await ranking.top(10) == [Ranked(root.id, 0)]


async def test_imported_tweets_are_counted(store: SqliteStore, ranking: SqliteRanking) -> None:
    given = Given(store)
    ada = await given.user()
    tweets = [given.draft(ada) for _ in range(5)]
    written = [*await store.add_tweets(tweets), *await store.add_tweets(tweets)]
    assert not any(one.owes_count for one in written)
    assert [item.tweet for item in await ranking.top(10)] == [tweet.id for tweet in reversed(tweets)]
    assert await drift(store, ranking) == 0


async def test_purging_takes_back_what_a_user_counted(store: SqliteStore, ranking: SqliteRanking) -> None:
    given = Given(store)
    ada, bob = await given.users(2)
    root = await given.post(bob)
    hers = await given.post(ada, root)
    his = await given.post(bob, hers)
    await given.post(ada, his)
    await store.delete_user(ada.id)
    async for step in purge_steps(store, ada, 1):
        assert not any(written.owes_count for written in step)
    assert await counts_of(ranking, [root, his]) == [1, 0]
    assert [item.tweet for item in await ranking.top(10)] == [root.id, his.id]
    assert await drift(store, ranking) == 0


async def test_counts_are_owed_to_a_ranking_elsewhere(database: Database, ranking: SqliteRanking) -> None:
    store = SqliteStore(database, counts=False)
    given = Given(store)
    ada = await given.user()
    root = await given.written(ada)
    retweet = await given.written(ada, root.tweet)
    replay = await store.add_tweet(given.draft(ada, root.tweet), MOST, once())
    replay = await store.add_tweet(given.draft(ada, root.tweet), MOST, once())
    imported = await store.add_tweets([given.draft(ada)])
    gone = await store.delete_tweet(retweet.tweet.id)
    await store.delete_user(ada.id)
    purged = await store.purge_user(ada.id, 10)
    assert all(written.owes_count for written in (root, retweet, replay, *imported, gone, *(purged or [])))
    assert await ranking.top(10) == []


async def test_a_retweet_of_what_was_counted_elsewhere_is_not_forgotten(database: Database) -> None:
    """The ranking was Redis and is this file from now on: a retweet is counted, or owed while its chain is missing."""
    elsewhere = SqliteStore(database, counts=False)
    given = Given(elsewhere)
    ada = await given.user()
    root, middle = await given.chain(ada, 2)

    store, ranking = SqliteStore(database, counts=True), SqliteRanking(database)
    written = await store.add_tweet(given.draft(ada, middle), MOST)
    if written.owes_count:
        for tweet in (root, middle, written.tweet):
            assert await ranking.add(link_of(tweet))
    assert await counts_of(ranking, [root, middle, written.tweet]) == [2, 1, 0]
    assert not (await store.add_tweet(given.draft(ada, written.tweet), MOST)).owes_count
    assert await counts_of(ranking, [root, middle, written.tweet]) == [3, 2, 1]
    assert await drift(store, ranking) == 0


async def test_a_delete_of_what_was_counted_elsewhere_is_not_forgotten(database: Database) -> None:
    elsewhere = SqliteStore(database, counts=False)
    given = Given(elsewhere)
    ada = await given.user()
    root, end = await given.chain(ada, 2)

    store, ranking = SqliteStore(database, counts=True), SqliteRanking(database)
    deletion = await store.delete_tweet(end.id)
    if deletion.owes_count:
        assert await ranking.add(link_of(root))
        assert await ranking.remove(link_of(deletion.tweet))
    assert await ranking.add(link_of(root))
    assert await ranking.add(link_of(end)), "a late add of what is gone"
    assert await counts_of(ranking, [root]) == [0]
    assert await drift(store, ranking) == 0
