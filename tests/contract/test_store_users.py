"""What every store promises of users and of what they sign in with."""

from itertools import pairwise

import pytest

from rookery.domain.errors import Conflict, NotFound
from rookery.domain.users import FanoutState, UserCounts, UserRecord
from rookery.ports.store import Credentials, FanoutChange, Store
from tests.contract.expecting import refused
from tests.contract.given import HOUR, MOST, NOON, Given, purge, purge_steps

TOKEN, OTHER_TOKEN = b"t" * 32, b"o" * 32


async def test_a_registered_user_is_found_by_id_and_by_name(store: Store, given: Given) -> None:
    ada = UserRecord(given.unknown_user(), "Ada_L", "Ada “🏳️‍🌈” Lovelace", is_admin=True)
    assert await store.add_user(ada, Credentials()) == ada.id
    assert await store.users([ada.id]) == {ada.id: ada}
    assert await store.user_by_name("Ada_L") == ada


async def test_users_are_given_for_the_ids_that_are_known(store: Store, given: Given) -> None:
    people = await given.users(3)
    asked = [people[2].id, given.unknown_user(), people[0].id, people[2].id]
    assert await store.users(asked) == {people[0].id: people[0], people[2].id: people[2]}
    assert await store.users([]) == {}


async def test_more_users_than_one_statement_takes_are_found(store: Store, given: Given) -> None:
    people = await given.users(3)
    asked = [person.id for person in people] + [given.unknown_user() for _ in range(2_500)] + [people[0].id]
    assert await store.users(asked) == {person.id: person for person in people}


async def test_a_name_is_found_in_any_case_and_shown_as_it_was_typed(store: Store, given: Given) -> None:
    await given.user("CamelCase")
    for spelling in ("CamelCase", "camelcase", "CAMELCASE"):
        found = await store.user_by_name(spelling)
        assert found is not None
        assert found.name == "CamelCase"
    assert await store.user_by_name("camel") is None


async def test_nobody_has_an_empty_name(store: Store) -> None:
    assert await store.user_by_name("") is None


@pytest.mark.parametrize("spelling", ["ada", "ADA", "aDa"])
async def test_a_taken_name_is_refused_in_any_case(store: Store, given: Given, spelling: str) -> None:
    ada = await given.user("ada")
    second = given.person(spelling)
    with refused(Conflict, "name_taken"):
        await store.add_user(second, Credentials("hash", TOKEN))
    assert await store.users([second.id]) == {}
    assert await store.user_by_name("ada") == ada
    assert await store.token_owner(TOKEN) is None, "a refused registration left its token"


async def test_a_deleted_users_name_is_never_given_again(store: Store, given: Given) -> None:
    ada = await given.user("ada")
    await store.delete_user(ada.id)
    with refused(Conflict, "name_taken"):
        await store.add_user(given.person("Ada"), Credentials())
    await purge(store, ada)
    with refused(Conflict, "name_taken"):
        await store.add_user(given.person("ADA"), Credentials())


async def test_a_deleted_user_is_marked_so(store: Store, given: Given) -> None:
    ada, bob = await given.user("ada"), await given.user("bob")
    assert await store.delete_user(ada.id)
    found = await store.user_by_name("ada")
    assert found is not None
    assert found.deleted
    assert found.id == ada.id
    assert (await store.users([ada.id]))[ada.id].deleted
    assert await store.user_by_name("bob") == bob


async def test_deleting_a_user_twice_is_told(store: Store, given: Given) -> None:
    ada = await given.user()
    assert await store.delete_user(ada.id)
    assert not await store.delete_user(ada.id)


async def test_deleting_a_user_revokes_what_he_signs_in_with(store: Store, given: Given) -> None:
    ada = await given.user(token=TOKEN, password="hash")
    bob = await given.user(token=b"b" * 32, password="other")
    await store.add_token(ada.id, OTHER_TOKEN)
    await store.delete_user(ada.id)
    assert await store.token_owner(TOKEN) is None
    assert await store.token_owner(OTHER_TOKEN) is None
    assert await store.password_hash(ada.id) is None
    assert await store.revoke_tokens(ada.id) == 0
    assert await store.token_owner(b"b" * 32) == bob
    assert await store.password_hash(bob.id) == "other"


async def test_users_are_listed_by_handle_without_case(store: Store, given: Given) -> None:
    names = ["bob", "Alice", "_x", "ZED", "alicia", "b", "9lives", "Bobby"]
    people = {name: await given.user(name) for name in names}
    await store.delete_user(people["b"].id)
    expected = sorted((name for name in names if name != "b"), key=str.lower)

    listed: list[str] = []
    while page := await store.list_users(listed[-1] if listed else "", 3):
        assert len(page) <= 3
        listed += [user.name for user in page]
    assert listed == expected
    assert [user.name for user in await store.list_users("ALICE", 2)] == ["alicia", "bob"]


async def test_counts_are_those_of_the_rows(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    assert await store.user_counts(ada.id) == UserCounts(0, 0, 0)
    await given.follow(ada, bob, eve)
    await given.follow(eve, ada)
    tweets = await given.chain(ada, 3)
    await given.post(bob, tweets[0])
    assert await store.user_counts(ada.id) == UserCounts(followers=1, followees=2, tweets=3)
    await store.unfollow(ada.id, bob.id, NOON)
    await store.delete_tweet(tweets[1].id)
    assert await store.user_counts(ada.id) == UserCounts(followers=1, followees=1, tweets=2)
    assert await store.user_counts(bob.id) == UserCounts(followers=0, followees=0, tweets=1)
    assert await store.user_counts(given.unknown_user()) == UserCounts(0, 0, 0)


async def test_great_numbers_are_counted_too(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    await given.follow(bob, ada)
    await store.add_tweets([given.draft(ada) for _ in range(10_007)])
    assert await store.user_counts(ada.id) == UserCounts(followers=1, followees=0, tweets=10_007)


# What users sign in with


async def test_a_user_registers_with_what_he_signs_in_with(store: Store, given: Given) -> None:
    ada = await given.user(token=TOKEN, password="$argon2id$…")
    assert await store.password_hash(ada.id) == "$argon2id$…"
    assert await store.token_owner(TOKEN) == ada


async def test_without_a_password_there_is_none(store: Store, given: Given) -> None:
    ada = await given.user()
    assert await store.password_hash(ada.id) is None
    assert await store.password_hash(given.unknown_user()) is None


async def test_a_token_that_never_was_is_nobodys(store: Store, given: Given) -> None:
    await given.user(token=TOKEN)
    assert await store.token_owner(OTHER_TOKEN) is None
    assert await store.token_owner(b"") is None


async def test_a_token_is_ended_alone_and_ending_it_twice_changes_nothing(store: Store, given: Given) -> None:
    ada = await given.user(token=TOKEN)
    await store.add_token(ada.id, OTHER_TOKEN)
    await store.revoke_token(TOKEN)
    await store.revoke_token(TOKEN)
    await store.revoke_token(b"n" * 32)
    assert await store.token_owner(TOKEN) is None
    assert await store.token_owner(OTHER_TOKEN) == ada


async def test_all_tokens_of_one_user_are_ended_and_counted(store: Store, given: Given) -> None:
    ada, bob = await given.user(token=TOKEN), await given.user(token=b"b" * 32)
    await store.add_token(ada.id, OTHER_TOKEN)
    await store.add_token(ada.id, OTHER_TOKEN)
    assert await store.revoke_tokens(ada.id) == 2
    assert await store.revoke_tokens(ada.id) == 0
    assert await store.token_owner(TOKEN) is None
    assert await store.token_owner(OTHER_TOKEN) is None
    assert await store.token_owner(b"b" * 32) == bob


async def test_a_user_who_is_not_there_gets_no_token(store: Store, given: Given) -> None:
    ada = await given.user()
    await store.delete_user(ada.id)
    for user in (ada.id, given.unknown_user()):
        with refused(NotFound, "unknown_user"):
            await store.add_token(user, TOKEN)
        assert await store.token_owner(TOKEN) is None


async def test_all_tokens_but_one_are_ended(store: Store, given: Given) -> None:
    ada = await given.user(token=TOKEN)
    await store.add_token(ada.id, OTHER_TOKEN)
    await store.add_token(ada.id, b"x" * 32)
    assert await store.revoke_tokens(ada.id, OTHER_TOKEN) == 2
    assert await store.token_owner(TOKEN) is None
    assert await store.token_owner(OTHER_TOKEN) == ada
    assert await store.revoke_tokens(ada.id, b"n" * 32) == 1
    assert await store.token_owner(OTHER_TOKEN) is None
    assert await store.token_owner(b"n" * 32) is None, "one that was never given is given by nothing"


async def test_a_new_password_ends_all_tokens_but_one(store: Store, given: Given) -> None:
    ada, bob = await given.user(token=TOKEN, password="old"), await given.user(token=b"b" * 32, password="other")
    await store.add_token(ada.id, OTHER_TOKEN)
    await store.set_password(ada.id, "new", OTHER_TOKEN)
    assert await store.password_hash(ada.id) == "new"
    assert await store.token_owner(TOKEN) is None
    assert await store.token_owner(OTHER_TOKEN) == ada
    assert await store.password_hash(bob.id) == "other"
    assert await store.token_owner(b"b" * 32) == bob
    await store.set_password(ada.id, "newer")
    assert await store.token_owner(OTHER_TOKEN) is None


async def test_a_first_password_is_set_like_another(store: Store, given: Given) -> None:
    ada = await given.user(token=TOKEN)
    await store.set_password(ada.id, "first", TOKEN)
    assert await store.password_hash(ada.id) == "first"
    assert await store.token_owner(TOKEN) == ada


async def test_a_user_who_is_not_there_gets_no_password(store: Store, given: Given) -> None:
    ada = await given.user(password="old")
    await store.delete_user(ada.id)
    for user in (ada.id, given.unknown_user()):
        with refused(NotFound, "unknown_user"):
            await store.set_password(user, "new")
        assert await store.password_hash(user) is None


# On the way between push and pull


async def test_an_author_is_moved_only_from_the_state_he_is_in(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    assert await store.fanout_changes() == []
    assert not await store.set_fanout(ada.id, FanoutState.PULLED, FanoutState.FALLING, NOON)
    assert await store.fanout_changes() == []

    assert await store.set_fanout(ada.id, FanoutState.PUSHED, FanoutState.RISING, NOON)
    assert not await store.set_fanout(ada.id, FanoutState.PUSHED, FanoutState.RISING, NOON + HOUR)
    assert await store.fanout_changes() == [FanoutChange(ada.id, FanoutState.RISING, NOON)]
    assert (await store.users([ada.id]))[ada.id].fanout is FanoutState.RISING
    assert (await store.users([bob.id]))[bob.id].fanout is FanoutState.PUSHED

    assert await store.set_fanout(bob.id, FanoutState.PUSHED, FanoutState.PULLED, NOON + 1)
    assert await store.set_fanout(ada.id, FanoutState.RISING, FanoutState.PULLED, NOON + HOUR)
    changes = sorted(await store.fanout_changes(), key=lambda change: change.author)
    assert changes == [
        FanoutChange(ada.id, FanoutState.PULLED, NOON + HOUR),
        FanoutChange(bob.id, FanoutState.PULLED, NOON + 1),
    ]
    assert await store.set_fanout(ada.id, FanoutState.PULLED, FanoutState.PUSHED, NOON + 2 * HOUR)
    assert await store.fanout_changes() == [FanoutChange(bob.id, FanoutState.PULLED, NOON + 1)]


async def test_an_unknown_author_has_no_state_to_be_moved_from(store: Store, given: Given) -> None:
    assert not await store.set_fanout(given.unknown_user(), FanoutState.PUSHED, FanoutState.RISING, NOON)
    assert await store.fanout_changes() == []


# Taking a deleted user's rows away


async def test_purging_takes_everything_of_a_deleted_user_in_steps(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    hers = await given.chain(ada, 5)
    his = [await given.post(bob, hers[2]), await given.post(bob)]
    await given.follow(ada, bob, eve)
    await given.follow(bob, ada, eve)
    await given.follow(eve, ada)
    await store.delete_user(ada.id)

    taken = []
    async for step in purge_steps(store, ada, 2):
        assert len(step) <= 2
        assert all(written.tweet.deleted and written.tweet.body == "" and not written.repeated for written in step)
        taken += [written.tweet.id for written in step]
    assert sorted(taken) == sorted(tweet.id for tweet in hers), "each of hers once"
    assert await store.user_counts(ada.id) == UserCounts(0, 0, 0)
    assert await store.user_counts(bob.id) == UserCounts(followers=0, followees=1, tweets=2)
    assert await store.user_counts(eve.id) == UserCounts(followers=1, followees=0, tweets=0)
    assert await store.followers(ada.id, None, MOST) == []
    assert await store.followees(ada.id, None, MOST) == []
    left = await store.tweets([tweet.id for tweet in (*hers, *his)])
    assert all(left[tweet.id].deleted and left[tweet.id].depth == at for at, tweet in enumerate(hers))
    assert [left[tweet.id] for tweet in his] == his


async def test_one_step_takes_as_many_rows_as_it_may_and_no_more(store: Store, given: Given) -> None:
    ada, *others = await given.users(6)
    await given.follow(ada, *others)
    for other in others:
        await given.follow(other, ada)
    await given.chain(ada, 5)
    await store.delete_user(ada.id)

    async def rows() -> int:
        counts = await store.user_counts(ada.id)
        return counts.followers + counts.followees + counts.tweets

    left = [await rows()] + [await rows() async for _ in purge_steps(store, ada, 3)]
    assert (left[0], left[-1]) == (15, 0)
    assert [before - after for before, after in pairwise(left) if before - after > 3] == [], f"rows left: {left}"


async def test_a_step_takes_fewer_tweets_of_long_chains(store: Store, given: Given) -> None:
    """Each takes its 1 back from all above it, which is work as well."""
    ada = await given.user()
    await given.chain(ada, 12)
    await store.delete_user(ada.id)
    steps = [step async for step in purge_steps(store, ada, 8)]
    above = [sum(1 + written.tweet.depth for written in step) for step in steps]
    assert sum(above) == sum(range(13))
    assert all(touched <= 8 or len(step) == 1 for touched, step in zip(above, steps, strict=True))


async def test_nothing_of_a_user_who_is_there_is_purged(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    await given.chain(ada, 2)
    await given.follow(ada, bob)
    assert await store.purge_user(ada.id, 10) is None
    assert await store.user_counts(ada.id) == UserCounts(followers=0, followees=1, tweets=2)
    assert await store.purge_user(given.unknown_user(), 10) is None


async def test_purging_goes_on_where_it_stopped_and_ends(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    for user in (ada, bob, eve):
        await given.chain(user, 3)
    assert await store.users_to_purge(10) == []
    await store.delete_user(ada.id)
    await store.delete_user(bob.id)
    assert sorted(await store.users_to_purge(10)) == [ada.id, bob.id]
    assert len(await store.users_to_purge(1)) == 1

    assert await store.purge_user(ada.id, 1)
    assert ada.id in await store.users_to_purge(10), "a purge that stopped is found again"
    await purge(store, ada, 1)
    assert await store.users_to_purge(10) == [bob.id]
    assert await store.purge_user(ada.id, 1) is None, "there is nothing more to do"
    assert (await store.user_counts(eve.id)).tweets == 3


async def test_a_deleted_user_with_nothing_is_purged_too(store: Store, given: Given) -> None:
    ada = await given.user()
    await store.delete_user(ada.id)
    assert await store.users_to_purge(10) == [ada.id]
    await purge(store, ada)
    assert await store.users_to_purge(10) == []
    assert (await store.users([ada.id]))[ada.id].deleted
