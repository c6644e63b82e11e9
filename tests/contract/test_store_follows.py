"""What every store promises of who follows whom."""

from rookery.domain.errors import Conflict, NotFound
from rookery.domain.ids import UserId
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials, Store
from tests.contract.expecting import in_pages, refused
from tests.contract.given import DAY, HOUR, MOST, NOON, Given


async def test_following_is_seen_from_both_ends(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    assert await store.follow(ada.id, bob.id, NOON, MOST)
    assert await store.followees(ada.id, None, 10) == [bob.id]
    assert await store.followers(bob.id, None, 10) == [ada.id]
    assert await store.followees(bob.id, None, 10) == []
    assert await store.followers(ada.id, None, 10) == []


async def test_following_twice_changes_nothing_and_is_told(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    assert await store.follow(ada.id, bob.id, NOON, MOST)
    assert not await store.follow(ada.id, bob.id, NOON + HOUR, MOST)
    assert await store.followees(ada.id, None, 10) == [bob.id]


async def test_unfollowing_twice_changes_nothing_and_is_told(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    assert not await store.unfollow(ada.id, bob.id, NOON)
    assert await store.unfollowed_since(ada.id, 0, 10) == []
    await given.follow(ada, bob)
    assert await store.unfollow(ada.id, bob.id, NOON)
    assert not await store.unfollow(ada.id, bob.id, NOON + HOUR)
    assert await store.followees(ada.id, None, 10) == []
    assert await store.followers(bob.id, None, 10) == []
    assert await store.unfollowed_since(ada.id, NOON + 1, 10) == [], "the second one changed when it was"


async def test_writes_take_effect_in_the_order_they_were_awaited(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    for turn in range(10):
        assert await store.follow(ada.id, bob.id, NOON + turn, MOST)
        assert await store.followees(ada.id, None, 10) == [bob.id]
        assert await store.unfollow(ada.id, bob.id, NOON + turn)
        assert await store.followees(ada.id, None, 10) == []


async def test_lists_descend_and_their_pages_give_each_once(store: Store, given: Given) -> None:
    ada, *others = await given.users(12)
    for other in sorted(others, key=lambda other: other.id[15]):  # in no order of time
        await given.follow(ada, other)
        await given.follow(other, ada)
    expected = sorted((other.id for other in others), reverse=True)
    for limit in (1, 2, 5, 11, 12, 100):
        assert await in_pages(lambda below, limit: store.followees(ada.id, below, limit), limit) == expected
        assert await in_pages(lambda below, limit: store.followers(ada.id, below, limit), limit) == expected


async def test_a_list_goes_on_below_an_id_that_is_not_in_it(store: Store, given: Given) -> None:
    ada, first, second, third = await given.users(4)
    await given.follow(ada, first, second, third)
    for one in (first, second, third):
        await given.follow(one, ada)
    await store.unfollow(ada.id, second.id, NOON)
    await store.unfollow(second.id, ada.id, NOON)
    assert await store.followees(ada.id, second.id, 10) == [first.id]
    assert await store.followers(ada.id, second.id, 10) == [first.id]
    assert await store.followees(ada.id, UserId(b"\xff" * 16), 10) == [third.id, first.id]
    assert await store.followees(ada.id, UserId(bytes(16)), 10) == []
    assert await store.followees(given.unknown_user(), None, 10) == []


async def test_the_greatest_id_there_can_be_is_listed(store: Store, given: Given) -> None:
    ada = await given.user()
    last = UserRecord(UserId(b"\xff" * 16), "last", "The last")
    await store.add_user(last, Credentials())
    await given.follow(ada, last)
    assert await store.followees(ada.id, None, 10) == [last.id]


# The bound on followees


async def test_one_followee_too_many_is_refused_and_leaves_nothing(store: Store, given: Given) -> None:
    ada, first, second, third, fourth = await given.users(5)
    await given.follow(ada, third)
    await store.unfollow(ada.id, third.id, NOON)
    assert await store.follow(ada.id, first.id, NOON, 2)
    assert await store.follow(ada.id, second.id, NOON, 2)
    for one_more in (third, fourth):
        with refused(Conflict, "too_many_followees"):
            await store.follow(ada.id, one_more.id, NOON, 2)
        assert await store.followees(ada.id, None, 10) == [second.id, first.id]
        assert await store.followers(one_more.id, None, 10) == []
    assert await store.unfollowed_since(ada.id, 0, 10) == [third.id], "the refused follow forgot the unfollow before"


async def test_whom_one_follows_already_is_never_too_many(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    await given.follow(ada, bob, eve)
    assert not await store.follow(ada.id, bob.id, NOON, 2)
    assert not await store.follow(ada.id, bob.id, NOON, 1), "also if the bound was lowered since"


async def test_unfollowing_makes_room_for_another(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    assert await store.follow(ada.id, bob.id, NOON, 1)
    await store.unfollow(ada.id, bob.id, NOON)
    assert await store.follow(ada.id, eve.id, NOON, 1)


async def test_who_is_not_there_neither_follows_nor_is_followed(store: Store, given: Given) -> None:
    ada, gone = await given.users(2)
    await store.delete_user(gone.id)
    for missing in (gone.id, given.unknown_user()):
        with refused(NotFound, "unknown_user"):
            await store.follow(ada.id, missing, NOON, MOST)
        with refused(NotFound, "unknown_user"):
            await store.follow(missing, ada.id, NOON, MOST)
    assert await store.followees(ada.id, None, 10) == []
    assert await store.followers(ada.id, None, 10) == []


# Whom one unfollowed lately


async def test_unfollowed_is_told_from_a_time_on(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    await given.follow(ada, bob, eve)
    await store.unfollow(ada.id, bob.id, NOON)
    await store.unfollow(ada.id, eve.id, NOON + HOUR)
    assert sorted(await store.unfollowed_since(ada.id, NOON, 10) or ()) == [bob.id, eve.id]
    assert await store.unfollowed_since(ada.id, NOON + 1, 10) == [eve.id]
    assert await store.unfollowed_since(ada.id, NOON + HOUR, 10) == [eve.id]
    assert await store.unfollowed_since(ada.id, NOON + HOUR + 1, 10) == []
    assert await store.unfollowed_since(bob.id, 0, 10) == []


async def test_more_unfollows_than_asked_for_are_not_told(store: Store, given: Given) -> None:
    ada, *others = await given.users(4)
    await given.follow(ada, *others)
    for at, other in enumerate(others[:2]):
        await store.unfollow(ada.id, other.id, NOON + at)
    assert await store.unfollowed_since(ada.id, NOON, 1) is None
    assert sorted(await store.unfollowed_since(ada.id, NOON, 2) or ()) == sorted(each.id for each in others[:2])
    await given.follow(ada, others[0])
    assert await store.unfollowed_since(ada.id, NOON, 1) == [others[1].id]


async def test_who_is_followed_among_others_is_told(store: Store, given: Given) -> None:
    ada, bob, eve, dan = await given.users(4)
    await given.follow(ada, bob, eve, dan)
    await given.follow(dan, ada)
    await store.unfollow(ada.id, eve.id, NOON)
    strangers = [given.unknown_user() for _ in range(1_000)]
    assert await store.followed_among(ada.id, [bob.id, eve.id, *strangers, dan.id]) == {bob.id, dan.id}
    assert await store.followed_among(bob.id, [ada.id]) == set()
    assert await store.followed_among(ada.id, []) == set()


async def test_who_is_followed_again_is_not_unfollowed(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    await given.follow(ada, bob, eve)
    await store.unfollow(ada.id, bob.id, NOON)
    await store.unfollow(ada.id, eve.id, NOON)
    await given.follow(ada, bob)
    await store.add_follows([(ada.id, eve.id)], NOON)
    assert await store.unfollowed_since(ada.id, 0, 10) == []
    await store.unfollow(ada.id, bob.id, NOON + HOUR)
    assert await store.unfollowed_since(ada.id, NOON + 1, 10) == [bob.id]


async def test_unfollows_are_kept_for_28_hours_and_forgotten_in_the_end(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    await given.follow(ada, bob)
    await store.unfollow(ada.id, bob.id, NOON)
    await store.tidy(NOON + 28 * HOUR)
    assert await store.unfollowed_since(ada.id, 0, 10) == [bob.id]
    await store.tidy(NOON + 30 * DAY)
    assert await store.unfollowed_since(ada.id, 0, 10) == []


# Imports


async def test_has_followers_tells_whether_at_least_so_many_follow(store: Store, given: Given) -> None:
    ada, *others = await given.users(4)
    for other in others:
        await given.follow(other, ada)
    assert [await store.has_followers(ada.id, least) for least in (0, 1, 3, 4, 100_000)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert not await store.has_followers(others[0].id, 1)
    assert await store.has_followers(others[0].id, 0)
    await store.unfollow(others[0].id, ada.id, NOON)
    assert not await store.has_followers(ada.id, 3)


async def test_many_follows_at_once_are_counted_when_new(store: Store, given: Given) -> None:
    ada, bob, eve = await given.users(3)
    await given.follow(ada, bob)
    pairs = [(ada.id, bob.id), (ada.id, eve.id), (bob.id, eve.id), (ada.id, eve.id)]
    assert await store.add_follows(pairs, NOON) == 2
    assert await store.add_follows(pairs, NOON) == 0
    assert await store.followees(ada.id, None, 10) == [eve.id, bob.id]
    assert await store.followers(eve.id, None, 10) == [bob.id, ada.id]


async def test_no_follows_at_once_are_none(store: Store) -> None:
    assert await store.add_follows([], NOON) == 0
