"""What one store dumps any other takes: all of it, in whatever order, once or twice."""

import random
from pathlib import Path

import msgspec

from rookery.domain.copies import FollowCopy, KeyCopy, Part, TokenCopy, TweetCopy, Unfinished, UnfollowCopy, UserCopy
from rookery.domain.errors import Conflict
from rookery.ports.store import Credentials, Store
from tests.contract.expecting import refused
from tests.contract.given import MOST, NOON, Given, once
from tests.contract.lives import dumped, live_a_little
from tests.contract.places import OpenStore


async def move(source: Store, target: Store, chance: random.Random) -> None:
    for part in Part:
        copies = await dumped(source, part)
        chance.shuffle(copies)
        for start in range(0, len(copies), 4):
            await target.restore(copies[start : start + 4])


async def test_what_is_restored_is_dumped_alike(store: Store, target: Store) -> None:
    await live_a_little(store)
    await target.adopt_secret(await store.secret())
    assert await target.secret() == await store.secret()
    chance = random.Random(1)
    for _ in range(2):
        await move(store, target, chance)
        for part in Part:
            assert await dumped(target, part) == await dumped(store, part), part
    kinds = {type(copy) for part in Part for copy in await dumped(target, part)}
    assert kinds == {UserCopy, TokenCopy, FollowCopy, UnfollowCopy, TweetCopy, KeyCopy}, "else this shows less"


async def test_very_many_unfollows_of_one_user_are_restored(target: Store) -> None:
    given = Given(target)
    users = await given.users(30)
    copies = [UnfollowCopy(users[0].id, user.id, NOON + number) for number, user in enumerate(users[1:])]
    await target.restore(copies)
    assert await dumped(target, Part.UNFOLLOWS, 10) == sorted(copies, key=repr)


async def test_life_goes_on_in_the_copy(store: Store, target: Store) -> None:
    await live_a_little(store)
    await target.adopt_secret(await store.secret())
    await move(store, target, random.Random(2))
    given = Given(target)
    ada, bob = await target.user_by_name("ada"), await target.user_by_name("bob")
    assert ada is not None
    assert bob is not None
    for user in (ada, bob):
        assert await target.user_counts(user.id) == await store.user_counts(user.id)
        assert await target.tails([(user.id, None)], 10) == await store.tails([(user.id, None)], 10)
        assert await target.followers(user.id, None, 10) == await store.followers(user.id, None, 10)
        assert await target.unfollowed_since(user.id, 0, 10) == await store.unfollowed_since(user.id, 0, 10)
    assert await target.token_owner(b"t" * 32) == ada
    assert await target.token_owner(b"g" * 32) is None
    assert await target.password_hash(ada.id) == "hash"
    assert await target.users_to_purge(10) == await store.users_to_purge(10)
    assert await target.fanout_changes() == await store.fanout_changes()
    assert await target.recall(once("tweet")) == await store.recall(once("tweet"))
    assert [user.name for user in await target.list_users("", 10)] == ["Ada", "bob", "eve", "star"]
    with refused(Conflict, "name_taken"):
        await target.add_user(given.person("Purged"), Credentials())
    assert await target.unfollow(ada.id, bob.id, NOON)
    assert await target.follow(ada.id, bob.id, NOON, MOST)
    for user_id in await target.users_to_purge(10):
        while await target.purge_user(user_id, 10) is not None:
            pass
    assert await target.users_to_purge(10) == []
    assert (await given.post(ada)).depth == 0


async def test_a_store_of_others_takes_no_copies(store: Store, target: Store) -> None:
    await live_a_little(store)
    await Given(target).user("ada")
    with refused(Conflict, "not_the_same"):
        await target.adopt_secret(await store.secret())
    with refused(Conflict, "not_the_same"):
        await target.restore(await dumped(store, Part.USERS))


async def test_a_store_knows_that_a_restore_or_copy_into_it_has_not_ended(
    open_store: OpenStore, tmp_path: Path
) -> None:
    begun = Unfinished(b"w" * 32, "rookery restore 'a file' did not end: run it again")
    async with open_store(tmp_path) as store:
        assert await store.unfinished() is None
        await store.note_unfinished(None)
        await store.note_unfinished(begun)
    async with open_store(tmp_path) as store, open_store(tmp_path) as other:
        assert await other.unfinished() == begun
        await store.note_unfinished(msgspec.structs.replace(begun, is_filled=True))
        assert await other.unfinished() == Unfinished(begun.which, begun.advice, is_filled=True)
        await other.note_unfinished(None)
        assert await store.unfinished() is None
