"""What only a store in Redis can meet: rows that a failover lost, very many tokens, a Redis that is full."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from rookery.adapters.redis import Access, RedisStore
from rookery.adapters.redis.calling import Shard
from rookery.adapters.system import SystemClock
from rookery.ports.store import Credentials
from tests.contract.adapters.redis import cluster, prefix_of, redis_access
from tests.contract.expecting import unavailable
from tests.contract.given import MOST, NOON, Given, once, purge
from tests.servers import started
from tools.servers import Redis


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisStore]:
    """On the cluster."""
    store = RedisStore(redis_access("redis-cluster"), SystemClock(), prefix=prefix_of(tmp_path), seconds=30)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def given(store: RedisStore) -> Given:
    return Given(store)


@pytest.fixture
def by_hand() -> Iterator[Any]:
    with redis.RedisCluster(host="127.0.0.1", port=cluster().nodes[0].port) as connection:
        yield connection


def home_of(store: RedisStore, key: bytes) -> Shard:
    return store._shards.of(key)


async def test_a_tweet_is_found_where_it_lies_although_it_is_not_noted(
    store: RedisStore, given: Given, by_hand: Any
) -> None:
    ada = await given.user()
    tweets = [await given.post(ada) for _ in range(3)]
    for tweet in tweets:
        assert by_hand.hdel(home_of(store, tweet.id).base + b"homes", tweet.id) == 1
    assert await store.tweets([tweet.id for tweet in tweets]) == {tweet.id: tweet for tweet in tweets}
    assert (await store.delete_tweet(tweets[0].id)).tweet.deleted
    await store.delete_user(ada.id)
    await purge(store, ada)
    assert all(tweet.deleted for tweet in (await store.tweets([tweet.id for tweet in tweets])).values())


async def test_a_follow_is_seen_from_both_ends_although_a_failover_lost_some_before(
    store: RedisStore, given: Given, by_hand: Any
) -> None:
    ada, bob = await given.users(2)
    home = home_of(store, ada.id).base
    for turn in range(3):
        await store.follow(ada.id, bob.id, NOON + turn, MOST)
        await store.unfollow(ada.id, bob.id, NOON + turn)
    by_hand.hdel(home + b"user:" + ada.id, "v")
    await store.follow(ada.id, bob.id, NOON + 9, MOST)
    assert await store.followers(bob.id, None, 10) == [ada.id]
    by_hand.hdel(home + b"user:" + ada.id, "v")
    await store.unfollow(ada.id, bob.id, NOON + 10)
    assert await store.followers(bob.id, None, 10) == []


async def test_a_user_with_very_many_tokens_loses_all_of_them(store: RedisStore, given: Given, by_hand: Any) -> None:
    ada, bob = await given.users(2)
    for user in (ada, bob):
        tokens = [user.id + number.to_bytes(16, "big") for number in range(9_000)]
        by_hand.sadd(home_of(store, user.id).base + b"tokens:" + user.id, *tokens)
    assert await store.revoke_tokens(ada.id) == 9_000
    assert await store.revoke_tokens(ada.id) == 0
    assert await store.delete_user(bob.id)
    assert not await store.delete_user(bob.id)


async def test_an_unfollow_of_nobodys_leaves_nothing(store: RedisStore, given: Given) -> None:
    ada, bob = given.person(), await given.user()
    assert not await store.unfollow(ada.id, bob.id, NOON)
    assert await store.users([ada.id]) == {}
    await store.add_user(ada, Credentials())
    assert await store.users([ada.id]) == {ada.id: ada}


@contextmanager
def full(server: Redis) -> Iterator[None]:
    with redis.Redis(port=server.port) as connection:
        connection.config_set("maxmemory", 1)
        yield
        connection.config_set("maxmemory", 0)


async def test_a_redis_that_is_full_is_read_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with started(Redis(tmp_path / "redis")) as server:
        store = RedisStore(Access([server.address]), SystemClock())
        await store.open()
        given = Given(store)
        ada = await given.user()
        tweet = await given.post(ada)
        with full(server):
            for _ in range(3):
                with unavailable():
                    await store.add_tweet(given.draft(ada), MOST, once("late"))
                assert await store.tweets([tweet.id]) == {tweet.id: tweet}
        assert "refused by Redis: command not allowed when used memory" in caplog.text
        late = await store.add_tweet(given.draft(ada), MOST, once("late"))
        assert [len(tail) for tail in await store.tails([(ada.id, None)], 10)] == [2]
        assert (await store.tweets([late.tweet.id]))[late.tweet.id] == late.tweet
        await store.close()


async def test_how_it_is_kept_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with started(Redis(tmp_path / "redis")) as server:
        store = RedisStore(Access([server.address]), SystemClock())
        await store.open()
        assert caplog.text == ""
        with redis.Redis(port=server.port) as connection:
            connection.config_set("appendonly", "no")
            connection.config_set("maxmemory", 1 << 30)
            connection.config_set("maxmemory-policy", "allkeys-lru")
        await store.open()
        assert "no append-only file" in caplog.text
        assert "takes keys away" in caplog.text
        await store.close()


def test_a_password_is_not_in_what_is_printed() -> None:
    assert "sesame" not in repr(Access(["127.0.0.1:6379"], password="open sesame"))
