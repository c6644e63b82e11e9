"""Writes to a Redis Cluster whose maker dies half way, or whose notes are swept late: what is there in the end."""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rookery.adapters.redis import RedisStore
from rookery.adapters.redis.calling import Shard
from rookery.adapters.redis.writing import Operation, Writing, unavailable
from rookery.adapters.system import SystemClock
from rookery.domain.errors import NotFound
from rookery.domain.promises import Promise, Work
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from tests.contract.adapters.redis import prefix_of, redis_access
from tests.contract.expecting import refused
from tests.contract.expecting import unavailable as is_unavailable
from tests.contract.given import MOST, NOON, Given, once, purge, sweep

TOKEN = b"t" * 32


async def opened(folder: Path) -> RedisStore:
    store = RedisStore(redis_access("redis-cluster"), SystemClock(), prefix=prefix_of(folder), seconds=30)
    await store.open()
    return store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[RedisStore]:
    store = await opened(tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[RedisStore]:
    """Another process."""
    store = await opened(tmp_path)
    yield store
    await store.close()


@pytest.fixture
def given(store: RedisStore) -> Given:
    return Given(store)


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process dies when a write was decided, before anything of it was done in other shards."""

    async def die(_: Writing, __: Iterable[Operation], ___: Sequence[bytes]) -> None:
        raise unavailable()

    with monkeypatch.context() as patch:
        patch.setattr(Writing, "_follow_up", die)
        with is_unavailable():
            yield


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes are done, and their notes are not taken off."""

    def forget(_: Writing, __: Shard, ___: bytes) -> None:
        pass

    monkeypatch.setattr(Writing, "_pay", forget)


def person_apart(given: Given, store: RedisStore, name: str) -> UserRecord:
    """One who lies in another shard than the name, so that a registration takes both."""
    while True:
        person = given.person(name)
        if store._shards.of(person.id) is not store._shards.of_name(name):
            return person


async def users_together(given: Given) -> tuple[UserRecord, UserRecord]:
    """Two who lie in the same shard."""
    ada, bob = await given.users(2)
    while bob.id[-1] % 64 != ada.id[-1] % 64:
        bob = await given.user()
    return ada, bob


async def users_apart(given: Given) -> tuple[UserRecord, UserRecord]:
    """Two who lie in different shards."""
    ada, bob = await given.users(2)
    while bob.id[-1] % 64 == ada.id[-1] % 64:
        bob = await given.user()
    return ada, bob


# What its maker did not finish


async def test_a_registration_is_finished_by_whoever_sweeps(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = person_apart(given, store, "ada")
    with dying(monkeypatch):
        await store.add_user(ada, Credentials("hash", TOKEN), once("ada"))
    assert await other.user_by_name("ada") is None
    await sweep(other)
    assert await other.user_by_name("ada") == ada
    assert await other.password_hash(ada.id) == "hash"
    assert await other.token_owner(TOKEN) == ada
    assert await other.recall(once("ada")) == ada.id
    assert await other.add_user(given.person("ada"), Credentials(), once("ada")) == ada.id


async def test_a_registration_that_is_asked_for_again_is_finished_by_that(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = person_apart(given, store, "ada")
    with dying(monkeypatch):
        await store.add_user(ada, Credentials(None, TOKEN), once("ada"))
    again = given.person("ada")
    assert await other.add_user(again, Credentials(None, TOKEN), once("ada")) == ada.id
    assert await other.token_owner(TOKEN) == ada
    assert await other.users([again.id]) == {}
    await sweep(other)
    assert await other.token_owner(TOKEN) == ada


async def test_a_follow_is_seen_from_both_ends_after_a_sweep(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await users_apart(given)
    with dying(monkeypatch):
        await store.follow(ada.id, bob.id, NOON, MOST)
    assert await other.followees(ada.id, None, 10) == [bob.id]
    assert await other.followers(bob.id, None, 10) == []
    await sweep(other)
    assert await other.followers(bob.id, None, 10) == [ada.id]
    with dying(monkeypatch):
        await store.unfollow(ada.id, bob.id, NOON + 1)
    await sweep(other)
    assert await other.followers(bob.id, None, 10) == []


async def test_a_follow_that_is_asked_for_again_is_told_as_it_was_decided(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await users_apart(given)
    with dying(monkeypatch):
        await store.follow(ada.id, bob.id, NOON, MOST, once("follow"))
    assert await other.follow(ada.id, bob.id, NOON + 5, MOST, once("follow"))
    assert await other.follow(ada.id, bob.id, NOON + 6, MOST, once("follow"))
    assert not await other.follow(ada.id, bob.id, NOON + 7, MOST, once("another"))
    assert await other.followers(bob.id, None, 10) == [ada.id]


async def test_a_follow_that_was_taken_back_is_not_done_again_by_its_key(
    store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ada, bob in (await users_together(given), await users_apart(given)):
        key = once(f"follow {ada.id.hex()}")
        while key.key[0] % 64 == ada.id[-1] % 64:
            key = once(f"follow {ada.id.hex()}{key.key[0]}")
        with dying(monkeypatch):
            await store.follow(ada.id, bob.id, NOON, MOST, key)
        assert await store.unfollow(ada.id, bob.id, NOON + 1)
        assert await store.follow(ada.id, bob.id, NOON + 2, MOST, key), "as it was decided"
        await sweep(store)
        assert await store.followees(ada.id, None, 10) == []
        assert await store.followers(bob.id, None, 10) == []


async def test_a_key_is_free_although_who_was_refused_died_before_he_gave_it_up(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob, eve = await given.users(3)
    await given.follow(ada, bob)
    call = Shard.call_and_copy

    async def die(shard: Shard, function: str, *arguments: Any) -> Any:
        if function == "release":
            raise unavailable()
        return await call(shard, function, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "call_and_copy", die)
        with is_unavailable():
            await store.follow(ada.id, eve.id, NOON, 1, once("follow"))
    await other.unfollow(ada.id, bob.id, NOON)
    assert await other.follow(ada.id, eve.id, NOON, 1, once("follow"))
    assert await other.followers(eve.id, None, 10) == [ada.id]


async def test_a_tweet_that_is_asked_for_again_is_the_first_one(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await given.user()
    draft = given.draft(ada)
    key = once("tweet")
    while key.key[0] % 64 == ada.id[-1] % 64:
        key = once(f"tweet {draft.id.hex()}{key.key[0]}")
    promised = Promise(given.id(), Work.POST, draft.id)
    with dying(monkeypatch):
        await store.add_tweet(draft, MOST, key, promised)
    assert await sweep(other) == [promised]
    written = await other.add_tweet(given.draft(ada), MOST, key)
    assert (written.tweet.id, written.repeated) == (draft.id, True)
    assert [len(tail) for tail in await other.tails([(ada.id, None)], 10)] == [1]


async def test_a_retweet_of_what_is_deleted_since_is_told_as_it_was_written(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await users_apart(given)
    original = await given.post(bob)
    draft = given.draft(ada, original)
    key = once("retweet")
    while key.key[0] % 64 == ada.id[-1] % 64:
        key = once(f"retweet {draft.id.hex()}{key.key[0]}")
    with dying(monkeypatch):
        await store.add_tweet(draft, MOST, key)
    await other.delete_tweet(original.id)
    again = await other.add_tweet(given.draft(ada, original), MOST, key)
    assert again.tweet.id == draft.id
    with refused(NotFound, "deleted_tweet"):
        await other.add_tweet(given.draft(ada, original), MOST, once("a new one"))


async def test_a_token_whose_row_is_missing_is_good_after_a_sweep(
    other: RedisStore, store: RedisStore, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await given.user()
    token = bytes([*b"t" * 31, (ada.id[-1] + 1) % 64])
    with dying(monkeypatch):
        await store.add_token(ada.id, token)
    assert await other.token_owner(token) is None
    await sweep(other)
    assert await other.token_owner(token) == ada


# What is swept late: it is done already, and things have changed since


@pytest.mark.usefixtures("forgetful")
async def test_a_follow_that_was_taken_back_stays_so(store: RedisStore, given: Given) -> None:
    ada, bob = await users_apart(given)
    assert await store.follow(ada.id, bob.id, NOON, MOST)
    assert await store.unfollow(ada.id, bob.id, NOON + 1)
    for _ in range(2):
        await sweep(store)
        assert await store.followees(ada.id, None, 10) == []
        assert await store.followers(bob.id, None, 10) == []
        assert (await store.user_counts(bob.id)).followers == 0


@pytest.mark.usefixtures("forgetful")
async def test_an_unfollow_takes_back_nothing_that_was_followed_later(store: RedisStore, given: Given) -> None:
    ada, bob = await users_apart(given)
    for turn in range(3):
        assert await store.follow(ada.id, bob.id, NOON + 2 * turn, MOST)
        if turn < 2:
            assert await store.unfollow(ada.id, bob.id, NOON + 2 * turn + 1)
    await sweep(store)
    assert await store.followers(bob.id, None, 10) == [ada.id]


@pytest.mark.usefixtures("forgetful")
async def test_what_a_user_signs_in_with_does_not_come_back(store: RedisStore, given: Given) -> None:
    ada = await given.user(token=TOKEN, password="hash")
    await store.revoke_token(TOKEN)
    await sweep(store)
    assert await store.token_owner(TOKEN) is None
    bob = await given.user(token=b"b" * 32, password="hash")
    await store.delete_user(bob.id)
    await purge(store, bob)
    await sweep(store)
    assert await store.token_owner(b"b" * 32) is None
    assert await store.password_hash(bob.id) is None
    assert [user.id for user in await store.list_users("", 10)] == [ada.id]


@pytest.mark.usefixtures("forgetful")
async def test_follows_of_a_user_who_was_purged_do_not_come_back(store: RedisStore, given: Given) -> None:
    ada, bob = await users_apart(given)
    await given.follow(ada, bob)
    await given.follow(bob, ada)
    await store.delete_user(bob.id)
    await purge(store, bob)
    await sweep(store)
    for user in await store.users_to_purge(10):
        await purge(store, (await store.users([user]))[user])
    assert await store.followees(ada.id, None, 10) == []
    assert await store.followers(ada.id, None, 10) == []
    assert await store.followers(bob.id, None, 10) == []
    assert await store.users_to_purge(10) == []


async def test_what_is_fulfilled_by_another_process_is_off_the_list(
    other: RedisStore, store: RedisStore, given: Given
) -> None:
    ada = await given.user()
    promised = [Promise(given.id(), Work.POST, given.draft(ada).id) for _ in range(3)]
    for one in promised:
        await store.add_tweet(given.draft(ada), MOST, promise=one)
    await other.fulfil([promised[0].id])
    assert await sweep(store) == promised[1:]
    await other.fulfil([one.id for one in promised])
    assert await sweep(store) == []
