"""Fan-out when parts fail or lag, and readers who wait for one another. The store is real, the faults are made."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.idempotency import once
from rookery.services import fanout, showing
from rookery.services.callers import ANYONE
from rookery.services.tweets import Draft
from tests.interleaving import InlineDatabase
from tests.unit.nest import Nest, nest_on

HALF_AN_HOUR = 30 * 60 * 1000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[InlineDatabase]:
    made = InlineDatabase(tmp_path / "test.db")
    yield made
    asyncio.run(made.close())


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("fault", [Unavailable("store_unavailable", "gone"), RuntimeError("a mistake")])
async def test_a_fanout_that_fails_is_done_later(database: InlineDatabase, fault: Exception) -> None:
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        reader = await nest.user("bob", "ada")
        assert await nest.feed(reader) == []
        nest.store.faults["followers"] = [fault, fault]
        await nest.post(author, "late")
        assert nest.rookery.fanout.backlog == 1
        async with asyncio.timeout(5):
            while nest.rookery.fanout.backlog:
                nest.clock.millis += 100
                await asyncio.sleep(0)
        assert await nest.feed(reader) == ["late"]


async def test_a_fanout_that_fails_does_not_hold_up_others(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE", 1)
    async with nest_on(database) as nest:
        poisoned, fine = await nest.user("ada"), await nest.user("eve")
        readers = await nest.readers(3, "ada", "eve")
        nest.store.faults["followers"] = [RuntimeError("a mistake")]
        await nest.post(poisoned, "stuck")
        await nest.post(fine, "through")  # in slices, by the worker that the other one waits for too
        assert [await nest.feed(reader) for reader in readers] == [["through"]] * 3
        assert nest.rookery.fanout.backlog == 1
        nest.clock.millis += 1_000
        await nest.rookery.fanout.drain()
        assert [await nest.feed(reader) for reader in readers] == [["through", "stuck"]] * 3


async def test_slices_that_wait_do_not_wait_for_each_other(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a cache server is away each slice takes a second or two."""
    monkeypatch.setattr(fanout, "SLICE", 1)
    monkeypatch.setattr(fanout, "ANSWER_SECONDS", 0.0)
    async with nest_on(database) as nest:
        authors = [await nest.user(f"ada{number}") for number in range(5)]
        readers = await nest.readers(3, *(author.name for author in authors))
        nest.worker.cancel()
        for author in authors:
            await nest.post(author, "slowly")
        nest.cache.gates["prepend"] = gate = asyncio.Event()
        nest.cache.calls.clear()
        worker = asyncio.create_task(nest.rookery.fanout.run())
        await until(lambda: nest.cache.calls["prepend"] == 5)
        gate.set()
        await nest.rookery.fanout.drain()
        worker.cancel()
        assert [len(await nest.feed(reader)) for reader in readers] == [5, 5, 5]


async def test_posting_slows_down_and_is_refused_when_too_much_is_on_its_way(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "MAX_WAITING", 2)
    monkeypatch.setattr(fanout, "ADMIT_SECONDS", 0.01)
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        reader = await nest.user("bob", "ada")
        nest.store.faults["followers"] = [RuntimeError("a mistake")] * 2
        await nest.post(author, "one")
        await nest.post(author, "two")
        with pytest.raises(Unavailable) as refused:
            await nest.post(author, "three")
        assert refused.value.code == "busy"
        assert await nest.feed(reader) == ["two", "one"]
        nest.clock.millis += 1_000
        await nest.rookery.fanout.drain()
        await nest.post(author, "four")
        assert await nest.feed(reader) == ["four", "two", "one"]


async def test_refused_tweets_give_their_places_back(database: InlineDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "MAX_WAITING", 1)
    monkeypatch.setattr(fanout, "ADMIT_SECONDS", 0.01)
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        nest.store.faults["add_tweet"] = [Unavailable("store_unavailable", "gone")] * 3
        for _ in range(3):
            with pytest.raises(Unavailable) as refused:
                await nest.post(author, "no")
            assert refused.value.code == "store_unavailable"
        await nest.post(author, "yes")


async def test_a_late_fanout_is_not_seen_after_an_unfollow_nor_hours_later(database: InlineDatabase) -> None:
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        reader = await nest.user("bob", "ada")
        await nest.feed(reader)
        nest.cache.gates["prepend"] = gate = asyncio.Event()
        gate.set()
        nest.store.gates["add_tweet"] = written = asyncio.Event()
        posting = asyncio.create_task(nest.post(author, "late"))
        await until(lambda: nest.store.calls["add_tweet"])
        written.set()
        before = nest.store.calls["followers"]
        await until(lambda: nest.store.calls["followers"] > before)
        gate.clear()  # his followers are read, and the entries are not on their way yet
        await nest.rookery.services.follows.unfollow(ANYONE, reader, author)
        assert await nest.feed(reader) == []
        gate.set()
        await posting
        for _ in range(8):
            assert await nest.feed(reader) == []
            nest.clock.millis += HALF_AN_HOUR


@pytest.mark.parametrize("dropped", [False, True])
async def test_a_thousand_readers_of_a_cold_feed_share_its_reads(database: InlineDatabase, dropped: bool) -> None:
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        other = await nest.user("eve")
        reader = await nest.user("bob", "ada")
        await nest.post(author, "hello")
        await nest.cache.delete([b"rel:" + reader.id])
        nest.store.calls.clear()
        nest.store.gates["followees"] = gate = asyncio.Event()
        reading = [asyncio.create_task(nest.feed(reader)) for _ in range(1_000)]
        await until(lambda: nest.store.calls["followees"])
        if dropped:  # all who wait asked before this
            await nest.rookery.services.follows.follow(ANYONE, reader, other, None)
        gate.set()
        assert await asyncio.gather(*reading) == [["hello"]] * 1_000
        assert nest.store.calls["followees"] <= (2 if dropped else 1)
        assert nest.store.calls["tails"] <= 2


async def test_who_waits_for_a_read_that_fails_reads_for_himself(database: InlineDatabase) -> None:
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        reader = await nest.user("bob", "ada")
        await nest.post(author, "hello")
        nest.store.gates["followees"] = gate = asyncio.Event()
        nest.store.faults["followees"] = [Unavailable("store_unavailable", "gone")]
        reading = [asyncio.create_task(nest.feed(reader)) for _ in range(3)]
        await until(lambda: nest.store.calls["followees"])
        gate.set()
        answers = await asyncio.gather(*reading, return_exceptions=True)
        assert sorted(str(answer) for answer in answers) == ["['hello']", "['hello']", "gone"]


async def test_authors_take_turns_slice_by_slice(database: InlineDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who posts much does not hold up who posts once: their slices come in between."""
    monkeypatch.setattr(fanout, "SLICE", 1)
    monkeypatch.setattr(fanout, "ANSWER_SECONDS", 0)
    async with nest_on(database) as nest:
        busy, other = await nest.user("ada"), await nest.user("eve")
        readers = await nest.readers(4, "ada", "eve")
        nest.worker.cancel()
        for number in range(20):
            await nest.post(busy, str(number))
        await nest.post(other, "once")
        assert nest.rookery.fanout.backlog == 21
        nest.worker = asyncio.create_task(nest.rookery.fanout.run())
        async with asyncio.timeout(5):
            while "once" not in await nest.feed(readers[-1]):
                await asyncio.sleep(0)
        assert nest.rookery.fanout.backlog > 10, "the other one's is done long before"
        await nest.rookery.fanout.drain()


async def test_what_the_store_owes_is_done_soon_after_its_return_the_oldest_first(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it was away: one delivery tries for all, and its success wakes the others."""
    monkeypatch.setattr(fanout, "_LOOK_SECONDS", 0.001)
    async with nest_on(database) as nest:
        authors = [await nest.user(f"ada{number}") for number in range(30)]
        reader = await nest.user("bob", *(author.name for author in authors))
        assert await nest.feed(reader) == []
        nest.store.faults["followers"] = [Unavailable("store_unavailable", "gone") for _ in range(130)]
        for author in authors:
            await nest.post(author, f"by {author.name}")
        asked = nest.store.calls["followers"]
        async with asyncio.timeout(10):
            while len(nest.store.faults["followers"]) > 1:
                nest.clock.millis += 100
                for _ in range(3):
                    await asyncio.sleep(0.001)
        assert nest.store.calls["followers"] - asked < 130 + 5, "a store that is away is not asked by all"
        order: list[object] = []
        nest.store.refuses = lambda name, given: name == "followers" and bool(order.append(given[0]))  # type: ignore[func-returns-value]
        nest.store.turns = 30
        # Nobody but those that are done may wake the next ones: it is looked no more whether something is due.
        monkeypatch.setattr(fanout, "_LOOK_SECONDS", 3_600)
        nest.store.faults["followers"].clear()
        nest.clock.millis += 2_000
        async with asyncio.timeout(30):
            await nest.rookery.fanout.drain()
        nest.store.turns = 1
        first, *others = order
        assert others == [author.id for author in authors if author.id != first], "behind the one that tried for all"
        assert len(await nest.feed(reader)) == 10


async def test_what_failed_has_a_bound_on_how_much_of_it_is_tried_at_once(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nest_on(database) as nest:
        authors = [await nest.user(f"ada{number}") for number in range(30)]
        nest.store.faults["followers"] = [Unavailable("store_unavailable", "gone") for _ in range(60)]
        for author in authors:
            await nest.post(author, "x")
        monkeypatch.setattr(fanout, "_LOOK_SECONDS", 0.001)
        nest.store.faults["followers"].clear()
        backlog, gate = nest.rookery.fanout.backlog, asyncio.Event()
        async with asyncio.timeout(30):
            while nest.rookery.fanout.backlog == backlog:  # until one has found the store to be back
                nest.clock.millis += 100
                await asyncio.sleep(0)
        before = nest.store.calls["followers"]
        nest.store.gates["followers"] = gate
        for _ in range(1_000):  # more turns of the loop than all of them would need
            await asyncio.sleep(0)
        under_way = nest.store.calls["followers"] - before
        gate.set()
        async with asyncio.timeout(30):
            await nest.rookery.fanout.drain()
        assert 1 <= under_way <= 8


async def test_a_part_of_the_store_that_is_away_holds_up_no_author_of_another(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "SLICE", 1)
    async with nest_on(database) as nest:
        author = await nest.user("ada")
        readers = await nest.readers(20, "ada")
        dead = {(await nest.user(f"dead{number}", "ada")).id for number in range(60)}
        nest.store.refuses = lambda name, given: name == "followers" and given[0] in dead
        for number in range(60):
            await nest.post(await nest.rookery.services.accounts.find_name(f"dead{number}"), "waits")
        asked, begun = nest.store.calls["followers"], nest.clock.millis
        await nest.post(author, "goes")
        async with asyncio.timeout(10):
            while "goes" not in await nest.feed(readers[0]) or nest.rookery.fanout.backlog > len(dead):
                nest.clock.millis += 10
                await asyncio.sleep(0.001)
        assert nest.clock.millis - begun < 1_000
        assert nest.store.calls["followers"] - asked < 80 + 4 * len(dead)
        nest.store.refuses = lambda name, given: False
        begun = nest.clock.millis
        async with asyncio.timeout(10):
            while nest.rookery.fanout.backlog:
                nest.clock.millis += 10
                await asyncio.sleep(0.001)
        assert nest.clock.millis - begun <= 3_000, "when it is back what it owes is done soon"


async def test_a_tweet_that_another_server_acknowledged_is_not_withheld_for_long(
    database: InlineDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client asked again there, as the first server was held up."""
    monkeypatch.setattr(showing, "WITHHELD_SECONDS", 0.05)
    async with nest_on(database) as one, nest_on(database) as two:
        ada = await one.user("ada")
        key = once(b"ada", "a key", b"asked", one.clock.now())

        async def shown_by(nest: Nest) -> int:
            return len((await nest.rookery.services.tweets.by_author(ada, 10, None)).items)

        one.cache.gates["prepend"] = asyncio.Event()
        held_up = asyncio.create_task(one.rookery.services.tweets.post(ANYONE, ada, Draft("", "x"), key))
        async with asyncio.timeout(10):
            while await shown_by(two) == 0:
                await asyncio.sleep(0)
            await two.rookery.services.tweets.post(ANYONE, ada, Draft("", "x"), key)
            while await shown_by(one) == 0:
                await asyncio.sleep(0.001)
        assert not held_up.done()
        one.cache.gates["prepend"].set()
        await held_up
        assert await shown_by(one) == 1
