"""Writes to Cassandra that stop half way, come late or meet another machine's clock: what is there in the end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from rookery.adapters.cassandra import CassandraStore, connect, follow_rows
from rookery.adapters.cassandra.journal import FollowRows, NoTweetRows, NoUserRows, Rows, TweetRows, UserRows
from rookery.domain.copies import KeyCopy, Part
from rookery.domain.errors import Conflict
from rookery.domain.ids import UserId, id_at
from rookery.domain.promises import Promise, Work
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserCounts
from rookery.ports.store import Credentials
from tests.clocks import ShiftedClock
from tests.contract.adapters.cassandra import SECONDS, access, keyspace_of, new_keyspace
from tests.contract.expecting import refused
from tests.contract.given import LATER, MOST, NOON, Given, deleted, once, purge, sweep

TOKEN = b"t" * 32

Open = Callable[[int], Coroutine[Any, Any, CassandraStore]]


@pytest.fixture
async def on_machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens one store as another machine would, whose clock is so many milliseconds ahead."""
    async with AsyncExitStack() as stack:
        keyspace = await (new_keyspace() if request.node.get_closest_marker("own_time") else keyspace_of(tmp_path))

        async def open_store(ahead: int) -> CassandraStore:
            clock = ShiftedClock(ahead)
            session = await connect(access(), clock, keyspace=keyspace, seconds=SECONDS)
            store = CassandraStore(session, clock)
            stack.push_async_callback(store.close)
            return store

        yield open_store


@pytest.fixture
async def store(on_machine: Open) -> CassandraStore:
    return await on_machine(0)


@pytest.fixture
def given(store: CassandraStore) -> Given:
    return Given(store)


def promise(store: CassandraStore, work: Work = Work.POST, subject: bytes = b"s" * 16) -> Promise:
    return Promise(id_at(store._clock.now(), store._clock.random(10)), work, subject)


# What its maker did not finish


async def test_a_copy_takes_the_key_of_what_was_made_and_not_answered(store: CassandraStore, given: Given) -> None:
    ada, bob = await given.users(2)
    made = await store.add_tweet(given.draft(ada), MOST, once("tweet"))
    user = await store.add_user(given.person("eve"), Credentials(), once("user"))
    await store.follow(ada.id, bob.id, NOON, MOST, once("follow"))
    for name in ("tweet", "user", "follow"):  # as when the process died before it could note that all is written
        stamp = store._session.stamp()
        await store._session.write("UPDATE idempotency SET done = null WHERE key = ?", once(name).key, stamp=stamp)
    await store._keys.claim(once("never"), given.draft(ada).id)
    copies, _ = await store.dump(Part.KEYS, b"", 10)
    # Following again does no harm, and it is not certain that it was done.
    assert {copy.key: copy.made for copy in copies if isinstance(copy, KeyCopy)} == {
        once("tweet").key: made.tweet.id,
        once("user").key: user,
    }


async def test_a_tweet_that_was_only_promised_is_written_by_whoever_sweeps(on_machine: Open, given: Given) -> None:
    dead, other = await on_machine(0), await on_machine(0)
    ada = await given.user()
    draft = given.draft(ada)
    made = promise(dead, subject=draft.id)
    await dead._journal.add(made, TweetRows([draft]))
    assert await other.tweets([draft.id]) == {}
    assert await sweep(other) == [made]
    assert await other.tweets([draft.id]) == {draft.id: draft}
    assert [len(tail) for tail in await other.tails([(ada.id, None)], 10)] == [1]
    assert await sweep(other) == [made], "it is on the list until it is fulfilled"


async def test_an_unfinished_follow_is_seen_from_both_ends_after_a_sweep(store: CassandraStore, given: Given) -> None:
    ada, bob = await given.users(2)
    await store.follow(ada.id, bob.id, NOON, MOST)
    # As when the process died between the two ends.
    await store._session.write(
        "DELETE FROM follower WHERE followee = ? AND shard = ? AND follower = ?",
        *(bob.id, ada.id[-1] % 4, ada.id),
        stamp=store._session.stamp() - 1_000_000,
    )
    await store._journal.add(None, FollowRows(ada.id, [bob.id]))
    await store.unfollow(ada.id, bob.id, NOON)
    await store._journal.add(None, FollowRows(ada.id, [bob.id]))
    await sweep(store)
    assert await store.followers(bob.id, None, 10) == []


async def test_what_is_listed_while_its_maker_is_at_work_is_finished_all_the_same(
    on_machine: Open, given: Given
) -> None:
    """Whoever lists the promises before a follow is decided must not take it for finished."""
    dead, other = await on_machine(0), await on_machine(0)
    ada, bob, eve = await given.users(3)
    made = promise(dead, Work.FOLLOWS, ada.id)
    await dead._journal.add(made, FollowRows(ada.id, [bob.id]))
    await dead._journal.add(None, FollowRows(ada.id, [eve.id]))
    assert await sweep(other) == [made]
    stamp = dead._session.stamp()
    await follow_rows.add(dead._session, b"w" * 16, ada.id, bob.id, NOON, most=MOST, by=b"w")
    await follow_rows.add(dead._session, b"v" * 16, ada.id, eve.id, NOON, most=MOST, by=b"v")
    for followee in (bob, eve):  # its maker died before the other end
        await dead._session.write(
            "DELETE FROM follower WHERE followee = ? AND shard = ? AND follower = ?",
            *(followee.id, ada.id[-1] % 4, ada.id),
            stamp=stamp,
        )
    assert await sweep(other) == [made]
    for followee in (bob, eve):
        assert await other.followers(followee.id, None, 10) == [ada.id]


async def test_a_follow_that_was_taken_back_is_not_done_again_by_its_key(store: CassandraStore, given: Given) -> None:
    ada, bob = await given.users(2)
    assert await store.follow(ada.id, bob.id, NOON, MOST, once())
    # As when the process died before it could note that all is written: the client was not answered, and asks again.
    stamp = store._session.stamp()
    await store._session.write("UPDATE idempotency SET done = null WHERE key = ?", once().key, stamp=stamp)
    await store.unfollow(ada.id, bob.id, NOON)
    assert await store.follow(ada.id, bob.id, NOON + 1, MOST, once())
    assert await store.followees(ada.id, None, 10) == []
    assert await store.follow(ada.id, bob.id, NOON + 1, MOST, once("another"))
    assert await store.followees(ada.id, None, 10) == [bob.id]


async def test_who_finds_a_follow_done_writes_its_other_end(on_machine: Open, given: Given) -> None:
    """Its maker's transaction was decided, and he died before the rest."""
    dead, other = await on_machine(0), await on_machine(0)
    ada, bob = await given.users(2)
    session, lost = dead._session, []

    async def die(cql: str, *values: object, stamp: int) -> None:
        lost.append(cql)
        await asyncio.sleep(3_600)

    await dead._journal.add(None, FollowRows(ada.id, [bob.id]))
    session.write, write = die, session.write  # type: ignore[method-assign]
    dead._journal.add = lambda *_: asyncio.sleep(0, await_entry)  # type: ignore[method-assign]
    await_entry = type("Entry", (), {"id": b"w" * 16, "promise": None})()
    task = asyncio.create_task(dead.follow(ada.id, bob.id, NOON, MOST))
    while not lost:
        await asyncio.sleep(0.001)
    task.cancel()
    session.write = write  # type: ignore[method-assign]
    assert await other.followees(ada.id, None, 10) == [bob.id]
    assert await other.followers(bob.id, None, 10) == []
    assert not await other.follow(ada.id, bob.id, NOON, MOST)
    assert await other.followers(bob.id, None, 10) == [ada.id]


async def test_what_was_written_under_a_key_is_gone_on_with(on_machine: Open, given: Given) -> None:
    dead, other = await on_machine(0), await on_machine(0)
    ada = await given.user()
    first, again = given.draft(ada), given.draft(ada)
    await dead._keys.claim(once(), first.id)
    assert await other.recall(once()) is None, "nothing was written yet"
    made = promise(other, subject=again.id)
    written = await other.add_tweet(again, MOST, once(), made)
    assert written.tweet.id == first.id
    assert await other.tweets([first.id, again.id]) == {first.id: written.tweet}
    assert [one.subject for one in await sweep(other)] == [first.id], "the promise speaks of another tweet"
    assert await other.recall(once()) == first.id


async def test_of_two_processes_with_one_key_both_tell_the_same(on_machine: Open, given: Given) -> None:
    stores = [await on_machine(0) for _ in range(4)]
    ada, bob = await given.users(2)
    posted = await asyncio.gather(*(store.add_tweet(given.draft(ada), MOST, once("tweet")) for store in stores))
    assert len({written.tweet.id for written in posted}) == 1
    assert (await stores[0].user_counts(ada.id)).tweets == 1
    follows = await asyncio.gather(*(store.follow(ada.id, bob.id, NOON, MOST, once("follow")) for store in stores))
    assert follows == [True] * 4
    people = [given.person("carol") for _ in stores]
    made = await asyncio.gather(
        *(
            store.add_user(person, Credentials("hash", TOKEN), once("user"))
            for store, person in zip(stores, people, strict=True)
        )
    )
    assert len(set(made)) == 1


async def test_a_refused_write_frees_its_key_in_every_process(on_machine: Open, given: Given) -> None:
    one, two = await on_machine(0), await on_machine(0)
    ada, bob, eve = await given.users(3)
    await given.follow(ada, bob)
    with refused(Conflict, "too_many_followees"):
        await one.follow(ada.id, eve.id, NOON, 1, once())
    assert await two.recall(once()) is None
    assert await two.follow(ada.id, eve.id, NOON, 2, once(request="another"))


# What was promised long ago does not undo what came later


@pytest.mark.own_time
async def test_a_sweep_brings_nothing_back(store: CassandraStore, given: Given) -> None:
    ada, bob = await given.user("ada", token=TOKEN, password="hash"), await given.user("bob")
    tweet = await given.post(ada)
    await given.follow(bob, ada)
    late: list[Rows] = [
        TweetRows([tweet]),
        UserRows(ada, "hash", TOKEN),
        FollowRows(bob.id, [ada.id]),
    ]
    entries = [await store._journal.add(None, rows) for rows in late]
    assert [entry.stamp for entry in entries] == sorted(entry.stamp for entry in entries)
    await store.delete_tweet(tweet.id)
    await store.unfollow(bob.id, ada.id, NOON)
    await store.revoke_token(TOKEN)
    await store.delete_user(ada.id)
    await sweep(store)
    assert await store.tweets([tweet.id]) == {tweet.id: deleted(tweet)}
    assert await store.tails([(ada.id, None)], 10) == [[]]
    assert await store.followers(ada.id, None, 10) == []
    assert await store.token_owner(TOKEN) is None
    assert await store.password_hash(ada.id) is None
    assert [user.name for user in await store.list_users("", 10)] == ["bob"]


async def test_a_promised_delete_is_done_by_a_sweep(store: CassandraStore, given: Given) -> None:
    ada, bob = await given.user("ada", token=TOKEN), await given.user("bob")
    tweet = await given.post(bob)
    await store._journal.add(None, NoTweetRows(tweet.id))
    await store._journal.add(None, NoUserRows(ada.id))
    await sweep(store)
    assert await store.tweets([tweet.id]) == {tweet.id: deleted(tweet)}
    assert await store.users_to_purge(10) == [ada.id]
    assert await store.token_owner(TOKEN) is None


@pytest.mark.own_time
async def test_rows_that_come_after_their_users_purge_are_purged_too(on_machine: Open, given: Given) -> None:
    dead, other = await on_machine(0), await on_machine(0)
    ada = await given.user()
    draft = given.draft(ada)
    await dead._journal.add(None, TweetRows([draft]))
    await other.delete_user(ada.id)
    await purge(other, ada)
    assert await other.users_to_purge(10) == []
    await sweep(other)
    assert await other.users_to_purge(10) == [ada.id]
    await purge(other, ada)
    assert await other.users_to_purge(10) == []
    assert await other.user_counts(ada.id) == UserCounts(0, 0, 0)
    assert (await other.tweets([draft.id]))[draft.id].deleted


@pytest.mark.own_time
@pytest.mark.parametrize(("first", "second"), [(400, 0), (0, 400), (0, 0)])
async def test_of_two_late_writes_the_second_is_purged_too(on_machine: Open, first: int, second: int) -> None:
    one, other = await on_machine(first), await on_machine(second)
    ada = await Given(one).user()
    await one.delete_user(ada.id)
    await purge(one, ada)
    for store in (one, other):
        draft = Given(store).draft(ada)
        await store._journal.add(None, TweetRows([draft]))
        await sweep(store)
        assert await store.users_to_purge(10) == [ada.id]
        await purge(one, ada)
        assert (await store.tweets([draft.id]))[draft.id].deleted
        assert await store.users_to_purge(10) == []


# Clocks


@pytest.mark.own_time
@pytest.mark.parametrize(("first", "second"), [(500, 0), (0, 500), (0, 0)])
async def test_the_later_write_wins_whatever_the_clocks_say(on_machine: Open, first: int, second: int) -> None:
    ahead, behind = await on_machine(first), await on_machine(second)
    given = Given(ahead)
    ada, bob = await given.user("ada", token=TOKEN, password="hash"), await given.user("bob")
    tweet = await given.post(ada)
    assert not (await behind.delete_tweet(tweet.id)).repeated
    assert await ahead.tweets([tweet.id]) == {tweet.id: deleted(tweet)}
    assert await ahead.tails([(ada.id, None)], 10) == [[]]
    for _ in range(3):
        assert await ahead.follow(bob.id, ada.id, NOON, MOST)
        assert await behind.followers(ada.id, None, 10) == [bob.id]
        assert await behind.unfollow(bob.id, ada.id, NOON)
        assert await ahead.followers(ada.id, None, 10) == []
    await behind.revoke_token(TOKEN)
    assert await ahead.token_owner(TOKEN) is None
    await ahead.add_token(ada.id, b"o" * 32)
    assert await behind.revoke_tokens(ada.id) == 1
    assert await ahead.token_owner(b"o" * 32) is None
    await behind.delete_user(ada.id)
    assert await ahead.password_hash(ada.id) is None
    assert [user.name for user in await ahead.list_users("", 10)] == ["bob"]
    await purge(ahead, ada)
    assert await behind.users_to_purge(10) == []


# The list of promises


@pytest.mark.own_time
async def test_a_promise_that_can_not_be_kept_stays_to_be_found(on_machine: Open, given: Given) -> None:
    store = await on_machine(0)
    clock = store._clock
    assert isinstance(clock, ShiftedClock)
    ada = await given.user()
    kept, waits = promise(store), promise(store)
    for made in (kept, waits):
        await store.add_tweet(given.draft(ada), MOST, None, made)
    await store.fulfil([kept.id])
    for passed in (0, 40_000, 3_600_000, 86_400_000, 3 * 86_400_000):
        clock.ahead = passed
        before = clock.now() + 10_000
        assert await store.promises(before, b"", 100) == [waits]
        assert await store.promises(before, waits.id, 100) == []
        assert await store.promises(before, b"", 100) == [waits]
        assert await (await on_machine(passed)).promises(before, b"", 100) == [waits]
    await store.fulfil([waits.id])
    for _ in range(2):
        assert await store.promises(clock.now(), b"", 100) == []
    assert await store._session.read("SELECT list_of FROM pending_bucket") == [], "the lists of buckets are not ended"


@pytest.mark.own_time
async def test_a_promise_that_comes_late_is_found_all_the_same(on_machine: Open, given: Given) -> None:
    """Its maker was stopped between making and writing it, and its ten seconds are off the list by then."""
    held_up, other = await on_machine(0), await on_machine(60_000)
    ada = await given.user()
    early, late = promise(held_up), promise(held_up)
    await held_up.add_tweet(given.draft(ada), MOST, None, early)
    await held_up.fulfil([early.id])
    assert await sweep(other) == []
    listed = await other._session.read("SELECT list_of FROM pending_bucket")
    assert [day for (day,) in listed if day >= 0] == [], "else this shows nothing"
    clock = held_up._clock
    assert isinstance(clock, ShiftedClock)
    clock.ahead = 59_500
    await held_up.add_tweet(given.draft(ada), MOST, None, late)
    assert await sweep(other) == [late]


async def test_one_entry_that_can_not_be_read_holds_up_no_other(store: CassandraStore, given: Given) -> None:
    ada = await given.user()
    strange, good = await store._journal.add(None, NoUserRows(UserId(b"n" * 16))), promise(store)
    await store._session.write(
        "UPDATE pending SET rows = ? WHERE bucket = ? AND shard = ? AND id = ?",
        *(b"\xc1", int.from_bytes(strange.id[:6], "big") // 10_000, strange.id[-1] % 16, strange.id),
        stamp=store._session.stamp(),
    )
    await store.add_tweet(given.draft(ada), MOST, None, good)
    assert await sweep(store) == [good]
    assert len(await store._session.read("SELECT id FROM pending")) == 2, "what could not be read was thrown away"


async def test_a_thousand_promises_are_listed_in_pages(store: CassandraStore, given: Given) -> None:
    ada = await given.user()
    made = [promise(store) for _ in range(1_000)]
    drafts: list[TweetRecord] = [given.draft(ada) for _ in made]
    await asyncio.gather(*(store.add_tweet(draft, MOST, None, one) for draft, one in zip(drafts, made, strict=True)))
    found: list[Promise] = []
    while page := await store.promises(LATER, found[-1].id if found else b"", 70):
        assert len(page) <= 70
        found += page
    assert found == sorted(made, key=lambda one: one.id)


@pytest.mark.own_time
async def test_a_page_of_what_can_not_be_kept_leaves_its_bucket_on_the_list(on_machine: Open, given: Given) -> None:
    """The store's own entry ends with the first page, which leaves it short, and the next one is empty."""
    store, later = await on_machine(0), await on_machine(60_000)
    ada = await given.user()
    await store._journal.add(None, NoUserRows(given.unknown_user()))
    made = [promise(store) for _ in range(9)]
    for one in made:
        await store.add_tweet(given.draft(ada), MOST, None, one)
    for _ in range(3):
        assert list(await later.promises(LATER, b"", 10)) == sorted(made, key=lambda one: one.id)
