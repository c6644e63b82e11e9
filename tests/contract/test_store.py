"""What every store promises of itself: durability, order, many writers at once, its end."""

import asyncio
import os
from pathlib import Path

import pytest

from rookery.domain.errors import Conflict
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials, Store
from tests.contract.expecting import assert_ends_when_cancelled, refused, unavailable
from tests.contract.given import MOST, NOON, Given, deleted, once
from tests.contract.places import OpenStore

LONG = os.environ.get("TEST_LONG") == "1"


async def test_a_store_that_can_be_written_is_well(store: Store) -> None:
    await store.check()
    await store.check()


async def test_the_secret_is_made_with_the_store_and_never_changes(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path / "one") as store:
        secret = await store.secret()
        assert len(secret) == 32
        await store.check()
        await store.tidy(NOON)
        assert await store.secret() == secret
    async with open_store(tmp_path / "one") as store:
        assert await store.secret() == secret
    async with open_store(tmp_path / "another") as store:
        assert await store.secret() != secret


async def test_what_was_answered_is_there_when_it_is_opened_again(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada, bob = await given.user("ada", token=b"t" * 32, password="hash"), await given.user("bob")
        tweets = await given.chain(ada, 3)
        await store.delete_tweet(tweets[1].id)
        await given.follow(ada, bob)
        await given.follow(bob, ada)
        await store.unfollow(bob.id, ada.id, NOON)
        await store.delete_user(bob.id)
    async with open_store(tmp_path) as store:
        assert await store.user_by_name("ada") == ada
        assert await store.token_owner(b"t" * 32) == ada
        assert await store.password_hash(ada.id) == "hash"
        expected = {tweet.id: deleted(tweet) if tweet is tweets[1] else tweet for tweet in tweets}
        assert await store.tweets(list(expected)) == expected
        assert await store.followees(ada.id, None, 10) == [bob.id]
        assert await store.unfollowed_since(bob.id, NOON, 10) == [ada.id]
        assert await store.users_to_purge(10) == [bob.id]


async def test_a_write_is_seen_elsewhere_as_soon_as_it_is_answered(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as here, open_store(tmp_path) as elsewhere:
        given = Given(here)
        ada = await given.user("ada")
        assert await elsewhere.user_by_name("ada") == ada
        for _ in range(25):
            tweet = await given.post(ada)
            assert await elsewhere.tweets([tweet.id]) == {tweet.id: tweet}
            await elsewhere.delete_tweet(tweet.id)
            assert await here.tweets([tweet.id]) == {tweet.id: deleted(tweet)}
        await elsewhere.add_token(ada.id, b"t" * 32)
        assert await here.token_owner(b"t" * 32) == ada
        await here.revoke_token(b"t" * 32)
        assert await elsewhere.token_owner(b"t" * 32) is None


async def test_many_writers_at_once_are_all_answered_and_all_kept(open_store: OpenStore, tmp_path: Path) -> None:
    tasks, each = 64, 8

    async def write(store: Store, given: Given, root_author: UserRecord) -> UserRecord:
        user = await given.user()
        for _ in range(each):
            await given.post(user)
        await given.follow(user, root_author)
        return user

    async with open_store(tmp_path) as store:
        given = Given(store)
        star = await given.user("star")
        users = await asyncio.gather(*(write(store, given, star) for _ in range(tasks)))
        written = await store.tails([(user.id, None) for user in users], 100)
        assert [len(tail) for tail in written] == [each] * tasks
    async with open_store(tmp_path) as store:
        assert await store.users([user.id for user in users]) == {user.id: user for user in users}
        assert await store.tails([(user.id, None) for user in users], 100) == written
        assert await store.followers(star.id, None, MOST) == sorted((user.id for user in users), reverse=True)


async def test_of_many_who_want_one_name_one_gets_it(store: Store, given: Given) -> None:
    people = [given.person("ada") for _ in range(32)]
    answers = await asyncio.gather(
        *(store.add_user(person, Credentials(None, person.id * 2)) for person in people), return_exceptions=True
    )
    (winner,) = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert all(isinstance(answer, Conflict) and answer.code == "name_taken" for answer in answers if answer != winner)
    found = await store.user_by_name("ada")
    assert found is not None
    assert found.id == winner
    owners = [await store.token_owner(person.id * 2) for person in people]
    assert [owner for owner in owners if owner] == [found]


async def test_of_racers_in_two_processes_for_each_of_many_names_one_wins(
    open_store: OpenStore, tmp_path: Path
) -> None:
    async with open_store(tmp_path) as one, open_store(tmp_path) as two:
        given = Given(one)
        for number in range(200 if LONG else 5):
            people = [given.person(f"name_{number}") for _ in range(64)]
            answers = await asyncio.gather(
                *((one, two)[at % 2].add_user(person, Credentials()) for at, person in enumerate(people)),
                return_exceptions=True,
            )
            (winner,) = [answer for answer in answers if not isinstance(answer, BaseException)]
            assert {type(answer) for answer in answers if answer != winner} == {Conflict}
            assert list(await one.users([person.id for person in people])) == [winner]


async def test_many_follows_at_once_stay_within_the_bound(store: Store, given: Given) -> None:
    ada, *others = await given.users(21)
    answers = await asyncio.gather(
        *(store.follow(ada.id, other.id, NOON, 7) for other in others), return_exceptions=True
    )
    assert answers.count(True) == 7
    assert all(isinstance(answer, Conflict) for answer in answers if answer is not True)
    assert len(await store.followees(ada.id, None, 100)) == 7


async def test_of_many_deletes_at_once_one_is_the_first(store: Store, given: Given) -> None:
    ada = await given.user()
    tweet = await given.post(ada)
    answers = await asyncio.gather(*(store.delete_tweet(tweet.id) for _ in range(16)))
    assert [answer.repeated for answer in answers].count(False) == 1
    users = await asyncio.gather(*(store.delete_user(ada.id) for _ in range(16)))
    assert users.count(True) == 1


async def test_a_refusal_among_many_writes_is_its_own_alone(store: Store, given: Given) -> None:
    ada = await given.user("ada")
    drafts = [given.draft(ada) for _ in range(20)]

    async def refuse() -> None:
        with refused(Conflict, "name_taken"):
            await store.add_user(given.person("ADA"), Credentials())

    await asyncio.gather(*(write for draft in drafts for write in (store.add_tweet(draft, MOST), refuse())))
    assert await store.tweets([draft.id for draft in drafts]) == {draft.id: draft for draft in drafts}


# Its end


@pytest.mark.parametrize("writes", [1, 100, 5_000])
async def test_closing_finishes_the_writes_that_wait(open_store: OpenStore, tmp_path: Path, writes: int) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada = await given.user()
        drafts = [given.draft(ada) for _ in range(writes)]
        tasks = [asyncio.create_task(store.add_tweet(draft, MOST)) for draft in drafts]
        await asyncio.sleep(0)  # each has begun
    done, waiting = await asyncio.wait(tasks, timeout=10)
    for task in waiting:
        task.cancel()
    assert not waiting, f"{len(waiting)} of {writes} writes were never answered"
    assert all(task.exception() is None for task in done)
    async with open_store(tmp_path) as store:
        assert len(await store.tweets([draft.id for draft in drafts])) == writes


async def test_what_is_closed_is_unavailable(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada = await given.user("ada")
    with unavailable():
        await store.add_user(given.person(), Credentials())
    with unavailable():
        await store.add_tweet(given.draft(ada), MOST, once())
    with unavailable():
        await store.follow(ada.id, ada.id, NOON, MOST)
    with unavailable():
        await store.check()
    with unavailable():
        await store.users([ada.id])
    with unavailable():
        await store.tails([(ada.id, None)], 10)
    with unavailable():
        await store.secret()
    with unavailable():
        await store.recall(once())


async def test_closing_twice_is_closing(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.check()
        await store.close()
    await store.close()


async def test_a_caller_ends_when_he_is_cancelled(store: Store, given: Given) -> None:
    ada = await given.user("ada")
    await assert_ends_when_cancelled(lambda: store.users([ada.id]))
    await assert_ends_when_cancelled(lambda: store.follow(ada.id, ada.id, NOON, MOST))
    await assert_ends_when_cancelled(store.check)


async def test_the_newest_tweets_time_is_known(store: Store) -> None:
    assert await store.latest() == 0
    await store.note_latest(NOON)
    await store.note_latest(NOON - 1)
    assert await store.latest() == NOON
    await store.note_latest(NOON + 1_000)
    assert await store.latest() == NOON + 1_000
