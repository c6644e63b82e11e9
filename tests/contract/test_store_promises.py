"""What every store promises of promises and of the epochs of caches."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rookery.adapters.system import SystemClock
from rookery.domain.errors import Conflict, NotFound
from rookery.domain.ids import TweetId, UserId, id_at, millis_of
from rookery.domain.promises import Promise, ToldRun, Work
from rookery.domain.users import UserRecord
from rookery.ports.store import Store
from tests.contract.expecting import refused
from tests.contract.given import HOUR, MOST, NOON, Given, once
from tests.contract.places import OpenStore

LATER = NOON + 100 * HOUR


def promise(number: int = 1, work: Work = Work.FOLLOWS, subject: bytes = b"s" * 16) -> Promise:
    return Promise(id_at(NOON + number, b"p" * 10), work, subject)


Write = Callable[[Store, Given, UserRecord, UserRecord, Promise], Awaitable[object]]
WRITES: dict[str, Write] = {
    "a tweet": lambda store, given, ada, bob, made: store.add_tweet(given.draft(ada), MOST, None, made),
    "a follow": lambda store, given, ada, bob, made: store.follow(ada.id, bob.id, NOON, MOST, promise=made),
    "an unfollow": lambda store, given, ada, bob, made: store.unfollow(ada.id, bob.id, NOON, made),
    "a deleted user": lambda store, given, ada, bob, made: store.delete_user(ada.id, made),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_promise_is_on_the_list_with_its_write_until_it_is_fulfilled(
    store: Store, given: Given, write: Write
) -> None:
    ada, bob = await given.users(2)
    made = promise()
    await write(store, given, ada, bob, made)
    assert await store.promises(LATER, b"", 10) == [made]
    await store.fulfil([made.id])
    assert await store.promises(LATER, b"", 10) == []
    await store.fulfil([made.id, b"n" * 16])
    await store.fulfil([])


async def test_a_delete_is_promised_with_its_tweet(store: Store, given: Given) -> None:
    ada = await given.user()
    tweet = await given.post(ada)
    made = promise(work=Work.DELETE, subject=tweet.id)
    await store.delete_tweet(tweet.id, made)
    assert await store.promises(LATER, b"", 10) == [made]
    with refused(NotFound, "unknown_tweet"):
        await store.delete_tweet(TweetId(given.id()), promise(2))
    assert await store.promises(LATER, b"", 10) == [made]


async def test_the_oldest_come_first_and_only_those_of_before(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    made = [promise(number) for number in (5, 1, 3, 2, 4)]
    for one in made:
        await store.unfollow(ada.id, bob.id, NOON, one)
    made.sort(key=lambda one: one.id)
    assert await store.promises(LATER, b"", 10) == made
    assert await store.promises(LATER, b"", 2) == made[:2]
    assert await store.promises(NOON + 3, b"", 10) == made[:2]
    assert await store.promises(NOON, b"", 10) == []


async def test_what_is_refused_or_repeated_is_not_promised(store: Store, given: Given) -> None:
    ada, bob = await given.users(2)
    with refused(NotFound, "unknown_user"):
        await store.follow(ada.id, UserId(given.id()), NOON, MOST, promise=promise(1))
    with refused(Conflict, "too_many_followees"):
        await store.follow(ada.id, bob.id, NOON, 0, promise=promise(2))
    assert await store.promises(LATER, b"", 10) == []
    draft = given.draft(ada)
    await store.add_tweet(draft, MOST, once(), promise(3))
    await store.add_tweet(given.draft(ada), MOST, once(), promise(4))
    assert await store.promises(LATER, b"", 10) == [promise(3)]


async def test_promises_and_epochs_outlive_the_process(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        given = Given(store)
        ada, bob = await given.users(2)
        await store.follow(ada.id, bob.id, NOON, MOST, promise=promise())
        epoch = await store.raise_epoch("one:1", NOON)
    async with open_store(tmp_path) as store:
        assert await store.promises(LATER, b"", 10) == [promise()]
        assert await store.epochs() == {"one:1": epoch}


async def test_an_epoch_only_grows(store: Store) -> None:
    assert await store.epochs() == {}
    first = await store.raise_epoch("one:1", NOON)
    assert first >= NOON
    assert await store.raise_epoch("one:1", NOON) > first, "also within a millisecond"
    again = await store.raise_epoch("one:1", NOON - HOUR)
    assert again > first, "also when the clock was set back"
    other = await store.raise_epoch("two:2", NOON + HOUR)
    assert other >= NOON + HOUR
    assert await store.epochs() == {"one:1": again, "two:2": other}


async def test_a_write_tells_which_promise_is_on_the_list_for_it(store: Store) -> None:
    given = Given(store)
    ada = await given.user()
    draft, again = given.draft(ada), given.draft(ada)
    made = promise(1, Work.POST, draft.id)
    first = await store.add_tweet(draft, MOST, once(), made)
    assert first.promise == made
    repeated = await store.add_tweet(again, MOST, once(), promise(2, Work.POST, again.id))
    assert (repeated.repeated, repeated.promise) == (True, None)
    assert list(await store.promises(LATER, b"", 10)) == [first.promise]


async def test_the_run_that_was_told_all_is_remembered(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert await store.told_run() is None
        for told in (ToldRun(b"first", NOON, NOON - 2, 0), ToldRun(b"\xffsecond", NOON + 5, NOON + 4, NOON)):
            await store.note_told_run(told)
            assert await store.told_run() == told
    async with open_store(tmp_path) as store:
        assert await store.told_run() == told


async def test_what_was_counted_is_told_from_a_time_on(open_store: OpenStore, tmp_path: Path) -> None:
    now = SystemClock().now()
    noted = [
        Promise(
            id_at(now - 100 * number, b"%010d" % number), Work.POST if number % 2 else Work.DELETE, b"%016d" % number
        )
        for number in range(25)
    ]
    async with open_store(tmp_path) as store:
        assert await store.counted(now - HOUR, b"", 10) == []
        await store.note_counted(noted)
        await store.note_counted(noted[:3])
        await store.note_counted([])
        assert await store.promises(LATER, b"", 10) == [], "nothing is owed for them"
    async with open_store(tmp_path) as store:
        want = sorted(noted, key=lambda one: one.id)
        found: list[Promise] = []
        while page := await store.counted(now - HOUR, found[-1].id if found else b"", 4):
            assert len(page) <= 4
            found += page
        assert found == want
        assert await store.counted(now - 450, b"", 100) == want[-5:]
        assert await store.counted(millis_of(want[-5].id), b"", 100) == want[-5:], "its own millisecond too"
        assert await store.counted(millis_of(want[-5].id) + 1, b"", 100) == want[-4:]
        await store.tidy(now + 24 * HOUR)
        assert await store.counted(now - HOUR, b"", 100) == want, "they are kept for a day at least"
