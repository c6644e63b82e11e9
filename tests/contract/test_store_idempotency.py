"""What every store promises of writes that are asked for twice with the same key."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rookery.domain.errors import BrokenRule, Conflict, NotFound
from rookery.domain.idempotency import Once
from rookery.domain.users import UserCounts, UserRecord
from rookery.ports.store import Credentials, Store
from tests.contract.expecting import refused
from tests.contract.given import DAY, MOST, NOON, Given, deleted, once
from tests.contract.places import OpenStore

TOKEN, OTHER_TOKEN = b"t" * 32, b"o" * 32

Write = Callable[[Store, Given, UserRecord, UserRecord, Once], Awaitable[object]]


async def _add_user(store: Store, given: Given, ada: UserRecord, bob: UserRecord, key: Once) -> object:
    return await store.add_user(given.person(), Credentials(None, given.id() * 2), key)


async def _add_token(store: Store, given: Given, ada: UserRecord, bob: UserRecord, key: Once) -> object:
    await store.add_token(ada.id, given.id() * 2, key)
    return ada.id


async def _follow(store: Store, given: Given, ada: UserRecord, bob: UserRecord, key: Once) -> object:
    return await store.follow(ada.id, bob.id, NOON, MOST, key)


async def _add_tweet(store: Store, given: Given, ada: UserRecord, bob: UserRecord, key: Once) -> object:
    return (await store.add_tweet(given.draft(ada), MOST, key)).tweet


WRITES = {"add_user": _add_user, "add_token": _add_token, "follow": _follow, "add_tweet": _add_tweet}


@pytest.fixture(params=WRITES.values(), ids=list(WRITES))
def write(request: pytest.FixtureRequest) -> Write:
    """Each write that takes a key, new in all but the key whenever it is asked for."""
    asked: Write = request.param
    return asked


async def test_a_replay_is_answered_as_the_first(store: Store, given: Given, write: Write) -> None:
    ada, bob = await given.users(2)
    first = await write(store, given, ada, bob, once())
    assert await write(store, given, ada, bob, once(at=NOON + 5)) == first


async def test_the_key_of_another_request_is_refused(store: Store, given: Given, write: Write) -> None:
    ada, bob = await given.users(2)
    await write(store, given, ada, bob, once())
    with refused(BrokenRule, "idempotency_key_reused"):
        await write(store, given, ada, bob, once(request="another"))
    made = await store.recall(once())
    assert made is not None
    assert len(made) == 16


async def test_keys_are_apart(store: Store, given: Given, write: Write) -> None:
    ada, bob = await given.users(2)
    await write(store, given, ada, bob, once("one"))
    made = await store.recall(once("one"))
    await write(store, given, ada, bob, once("two", request="another"))
    assert await store.recall(once("one")) == made
    assert await store.recall(once("three")) is None


async def test_a_key_is_good_for_a_day(store: Store, given: Given, write: Write) -> None:
    ada, bob = await given.users(2)
    await write(store, given, ada, bob, once())
    await store.tidy(NOON + DAY - 1)
    made = await store.recall(once(at=NOON + DAY - 1))
    assert made is not None
    with refused(BrokenRule, "idempotency_key_reused"):
        await write(store, given, ada, bob, once(request="another", at=NOON + DAY - 1))

    assert await store.recall(once(at=NOON + DAY + 1)) is None
    await write(store, given, ada, bob, once(request="another", at=NOON + DAY + 1))
    await write(store, given, ada, bob, once(request="another", at=NOON + 2 * DAY - 1))
    with refused(BrokenRule, "idempotency_key_reused"):
        await write(store, given, ada, bob, once(at=NOON + 2 * DAY - 1))


async def test_a_key_that_was_forgotten_is_as_new(store: Store, given: Given, write: Write) -> None:
    ada, bob = await given.users(2)
    await write(store, given, ada, bob, once())
    await store.tidy(NOON + DAY + 1)
    assert await store.recall(once()) is None
    await write(store, given, ada, bob, once(request="another", at=NOON + DAY + 1))


async def test_all_old_keys_are_forgotten_however_many(store: Store, given: Given) -> None:
    ada = await given.user()
    keys = [once(f"key {number}") for number in range(1_100)]
    for start in range(0, len(keys), 100):
        some = keys[start : start + 100]
        await asyncio.gather(*(store.add_token(ada.id, key.key, key) for key in some))
    assert await store.recall(keys[0]) is not None
    await store.tidy(NOON + DAY + 1)
    assert [await store.recall(key) for key in keys] == [None] * len(keys)


async def test_a_key_outlives_the_process(open_store: OpenStore, tmp_path: Path, write: Write) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada, bob = await given.users(2)
        first = await write(store, given, ada, bob, once())
        made = await store.recall(once())
    async with open_store(tmp_path) as store:
        assert await store.recall(once()) == made
        assert await write(store, given, ada, bob, once()) == first


async def test_many_at_once_with_one_key_are_one(store: Store, given: Given, write: Write) -> None:
    ada, bob = await given.users(2)
    answers = await asyncio.gather(*(write(store, given, ada, bob, once()) for _ in range(16)))
    assert all(answer == answers[0] for answer in answers)


# What each write is kept from doing twice, and what of it is recorded


async def test_a_user_is_registered_once(store: Store, given: Given) -> None:
    first, second = given.person("ada"), given.person("ada")
    assert await store.add_user(first, Credentials("hash", TOKEN), once()) == first.id
    assert await store.add_user(second, Credentials("other", OTHER_TOKEN), once()) == first.id
    assert await store.recall(once()) == first.id
    assert await store.users([first.id, second.id]) == {first.id: first}
    assert await store.token_owner(TOKEN) == first
    assert await store.token_owner(OTHER_TOKEN) is None
    assert await store.password_hash(first.id) == "hash"


async def test_a_token_is_made_once_and_stays_revoked(store: Store, given: Given) -> None:
    ada = await given.user()
    await store.add_token(ada.id, TOKEN, once())
    await store.add_token(ada.id, OTHER_TOKEN, once())
    assert await store.token_owner(OTHER_TOKEN) is None
    await store.revoke_token(TOKEN)
    await store.add_token(ada.id, TOKEN, once())
    assert await store.token_owner(TOKEN) is None, "a replay brought a revoked token back"


def hash_of(made: bytes) -> bytes:
    """What a token's hash may follow from."""
    return made + b"h" * 16


async def test_a_token_follows_from_the_id_of_its_record(store: Store, given: Given) -> None:
    ada = await given.user()
    first, second, third = given.id(), given.id(), given.id()
    assert await store.add_token(ada.id, hash_of, once(), first) == first
    assert await store.add_token(ada.id, hash_of, once(), second) == first
    assert await store.recall(once()) == first
    assert await store.token_owner(hash_of(first)) == ada
    assert await store.token_owner(hash_of(second)) is None
    assert await store.add_token(ada.id, hash_of, once(at=NOON + DAY + 1), third) == third
    assert await store.token_owner(hash_of(third)) == ada


async def test_a_key_that_is_used_again_after_its_day_brings_no_revoked_token_back(store: Store, given: Given) -> None:
    ada = await given.user()
    first, again = given.id(), given.id()
    await store.add_token(ada.id, hash_of, once(), first)
    await store.revoke_tokens(ada.id)
    assert await store.add_token(ada.id, hash_of, once(), again) == first, "a replay"
    assert await store.token_owner(hash_of(first)) is None
    await store.add_token(ada.id, hash_of, once(at=NOON + DAY + 1), again)
    assert await store.token_owner(hash_of(first)) is None
    assert await store.token_owner(hash_of(again)) == ada


async def test_many_at_once_with_one_key_have_one_token(store: Store, given: Given) -> None:
    ada = await given.user()
    made = await asyncio.gather(*(store.add_token(ada.id, hash_of, once(), given.id()) for _ in range(16)))
    assert len(set(made)) == 1
    assert await store.token_owner(hash_of(made[0])) == ada
    assert await store.revoke_tokens(ada.id) == 1


async def test_a_registrations_token_follows_from_the_users_id(store: Store, given: Given) -> None:
    first, second = given.person("ada"), given.person("ada")
    assert await store.add_user(first, Credentials(None, hash_of), once()) == first.id
    assert await store.add_user(second, Credentials(None, hash_of), once()) == first.id
    assert await store.token_owner(hash_of(first.id)) == first
    assert await store.token_owner(hash_of(second.id)) is None


async def test_a_password_is_set_once(store: Store, given: Given) -> None:
    ada = await given.user(password="old")
    await store.set_password(ada.id, "new", None, once())
    await store.add_token(ada.id, TOKEN)
    await store.set_password(ada.id, "other", None, once())
    assert await store.password_hash(ada.id) == "new"
    assert await store.token_owner(TOKEN) is not None, "a replay ended what came since"
    with refused(BrokenRule, "idempotency_key_reused"):
        await store.set_password(ada.id, "other", None, once(request="another"))


async def test_a_key_alone_is_noted_for_a_day(store: Store, given: Given) -> None:
    first, second = given.id(), given.id()
    assert await store.recall(once()) is None
    await store.note_once(once(), first)
    await store.note_once(once(at=NOON + 5), second)
    assert await store.recall(once(at=NOON + DAY - 1)) == first
    with refused(BrokenRule, "idempotency_key_reused"):
        await store.note_once(once(request="another"), second)
    assert await store.recall(once(at=NOON + DAY + 1)) is None
    await store.note_once(once(at=NOON + DAY + 1), second)
    assert await store.recall(once(at=NOON + DAY + 1)) == second


async def test_a_replayed_follow_does_not_undo_an_unfollow(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    assert await store.follow(ada.id, bob.id, NOON, MOST, once())
    await store.unfollow(ada.id, bob.id, NOON)
    assert await store.follow(ada.id, bob.id, NOON + 1, MOST, once())
    assert await store.followees(ada.id, None, 10) == []
    assert await store.unfollowed_since(ada.id, NOON, 10) == [bob.id]


async def test_a_replayed_follow_that_changed_nothing_is_told_so_again(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    await given.follow(ada, bob)
    assert not await store.follow(ada.id, bob.id, NOON, MOST, once())
    assert not await store.follow(ada.id, bob.id, NOON, MOST, once())


async def test_a_tweet_is_posted_once(store: Store, given: Given) -> None:
    ada = await given.user()
    root = await given.post(ada)
    first = await store.add_tweet(given.draft(ada, root), MOST, once())
    again = await store.add_tweet(given.draft(ada, root, body="Another"), MOST, once())
    assert (first.repeated, again.repeated) == (False, True)
    assert again.tweet == first.tweet
    assert again.owes_count == first.owes_count
    assert await store.recall(once()) == first.tweet.id
    assert await store.user_counts(ada.id) == UserCounts(followers=0, followees=0, tweets=2)


async def test_a_replayed_tweet_that_was_deleted_stays_deleted(store: Store, given: Given) -> None:
    ada = await given.user()
    first = await store.add_tweet(given.draft(ada), MOST, once())
    await store.delete_tweet(first.tweet.id)
    again = await store.add_tweet(given.draft(ada), MOST, once())
    assert again.repeated
    assert again.tweet == deleted(first.tweet), "as it stands now"
    assert (await store.user_counts(ada.id)).tweets == 0


async def test_a_replay_is_answered_whatever_happened_since(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    root = await given.post(bob)
    retweet = given.draft(ada, root)
    await store.add_tweet(retweet, 1, once("tweet"))
    await store.follow(ada.id, bob.id, NOON, 1, once("follow"))
    await store.delete_tweet(root.id)
    await store.delete_user(bob.id)
    await store.delete_user(ada.id)
    assert (await store.add_tweet(given.draft(ada, root), 1, once("tweet"))).tweet.id == retweet.id
    assert await store.follow(ada.id, bob.id, NOON, 1, once("follow"))


async def test_what_is_refused_is_refused_however_many_ask_at_once(store: Store, given: Given) -> None:
    ada = await given.user()
    original = await given.post(ada)
    await store.delete_tweet(original.id)
    for turn in range(5):
        asked = [store.add_tweet(given.draft(ada, original), MOST, once(f"retweet {turn}")) for _ in range(4)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(answer, "code", answer) for answer in answers] == ["deleted_tweet"] * 4
    assert (await store.user_counts(ada.id)).tweets == 0
    written = await store.add_tweet(given.draft(ada), MOST, once("retweet 0"))
    assert not written.repeated, "the key is free"


async def test_a_refused_write_records_nothing(store: Store, given: Given) -> None:
    ada, bob, gone = await given.user("ada"), await given.user("bob"), await given.user("gone")
    await given.follow(ada, bob)
    tweet = await given.post(ada)
    await store.delete_tweet(tweet.id)
    await store.delete_user(gone.id)
    with refused(Conflict, "name_taken"):
        await store.add_user(given.person("Ada"), Credentials(None, TOKEN), once())
    assert await store.recall(once()) is None
    with refused(Conflict, "too_many_followees"):
        await store.follow(ada.id, (await given.user()).id, NOON, 1, once())
    assert await store.recall(once()) is None
    with refused(NotFound, "unknown_user"):
        await store.add_token(gone.id, TOKEN, once())
    assert await store.recall(once()) is None
    with refused(NotFound, "deleted_tweet"):
        await store.add_tweet(given.draft(ada, tweet), MOST, once())
    assert await store.recall(once()) is None
    # The key is still free for what can be done.
    written = await store.add_tweet(given.draft(ada), MOST, once(request="another"))
    assert await store.recall(once(request="another")) == written.tweet.id
