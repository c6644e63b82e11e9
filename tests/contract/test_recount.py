"""What every ranking promises of a recount: whatever was wrong is right and told, whoever counts meanwhile."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.ranking import Ranking, Recount
from tests.contract.chains import Chains, Read, assert_agrees, counts_of, recount
from tests.contract.effort import examples
from tests.contract.places import Damage, Part, RankingPlace


def some_chains() -> Chains:
    """Three chains with branches, something deleted in each place, and initial counts."""
    chains = Chains()
    first = chains.chain(6)
    second = chains.chain(4)
    third = chains.add(initial=5)
    for parent in (first[2], first[2], second[0], third):
        chains.add(parent, initial=2)
    for link in (first[3], second[3], second[0]):
        chains.delete(link)
    return chains


async def test_a_recount_of_what_is_right_finds_nothing(ranking: Ranking) -> None:
    chains = some_chains()
    await chains.tell_all(ranking)
    found, progress = await recount(ranking, chains, 4)
    assert found == Recount(tweets=len(chains.links), drifted=0)
    assert sum(progress) == len(chains.links)
    assert len(progress) > 1, "progress is told as it goes"
    await assert_agrees(ranking, chains)


async def test_a_recount_builds_the_ranking_from_nothing(ranking: Ranking) -> None:
    chains = some_chains()
    found, _ = await recount(ranking, chains, 3)
    assert found == Recount(tweets=len(chains.links), drifted=len(chains.links))
    await assert_agrees(ranking, chains)


async def test_a_recount_of_nothing_is_nothing(ranking: Ranking) -> None:
    assert await recount(ranking, Chains()) == (Recount(0, 0), [])


@pytest.mark.parametrize(
    "damage",
    [
        (Part.COUNT, 0),
        (Part.COUNT, 10**9),
        (Part.COUNT, -3),
        (Part.INITIAL, 10),
        (Part.PARENT, None),
        (Part.ALL, None),
    ],
    ids=str,
)
@pytest.mark.parametrize("at", [0, 2, 5])
async def test_a_recount_repairs_one_tweet(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path, damage: tuple[Part, int | None], at: int
) -> None:
    chains = Chains()
    links = chains.chain(6)
    await chains.tell_all(ranking)
    part, value = damage
    ranking_place.damage(tmp_path, [Damage(links[at].id, part, value)])
    found, _ = await recount(ranking, chains, 2)
    is_the_same = (part, value, at) in {(Part.COUNT, 0, 5), (Part.PARENT, None, 0)}
    assert found == Recount(tweets=6, drifted=0 if is_the_same else 1)
    await assert_agrees(ranking, chains)
    again, _ = await recount(ranking, chains)
    assert again.drifted == 0


async def test_a_recount_buries_what_the_store_has_deleted(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path
) -> None:
    """The removal never came, and then somebody brought one back to life."""
    chains = Chains()
    _, middle, end = chains.chain(3)
    await chains.tell_all(ranking)
    chains.delete(end)
    found, _ = await recount(ranking, chains)
    assert found.drifted >= 1
    await assert_agrees(ranking, chains)

    await ranking.remove(chains.delete(middle))
    ranking_place.damage(tmp_path, [Damage(middle.id, Part.LIVE, 1)])
    found, _ = await recount(ranking, chains)
    assert found.drifted >= 1
    await assert_agrees(ranking, chains)


async def test_a_recount_brings_back_what_the_store_still_has(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path
) -> None:
    chains = Chains()
    _, middle, _ = chains.chain(3)
    await chains.tell_all(ranking)
    ranking_place.damage(tmp_path, [Damage(middle.id, Part.LIVE, 0)])
    found, _ = await recount(ranking, chains)
    assert found.drifted >= 1
    await assert_agrees(ranking, chains)
    await ranking.remove(chains.delete(middle))
    await assert_agrees(ranking, chains)


async def test_a_recount_forgets_what_the_store_does_not_know(ranking: Ranking) -> None:
    """As after the store was restored from a backup and the ranking was not."""
    chains = Chains()
    root, retweet, _ = chains.chain(3)
    await chains.tell_all(ranking)
    child = Link(TweetId(b"\xfd" * 16), retweet.id, root.id, 2, 3)
    grandchild = Link(TweetId(b"\xfe" * 16), child.id, root.id, 3, 0)
    for link in (child, grandchild):
        assert await ranking.add(link)
    found, _ = await recount(ranking, chains)
    assert found == Recount(tweets=3, drifted=4)
    await assert_agrees(ranking, chains)
    assert await counts_of(ranking, [child, grandchild]) == [0, 0]
    assert (await recount(ranking, chains))[0].drifted == 0


async def test_a_delete_between_a_recounts_looks_stands(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path
) -> None:
    """The row was gone by mistake, and while it is brought back somebody really deletes the tweet."""
    chains = Chains()
    _, end = chains.chain(2)
    await chains.tell_all(ranking)
    ranking_place.damage(tmp_path, [Damage(end.id, Part.LIVE, 0)])

    class Deleting(Read):
        async def of(self, tweets: Sequence[TweetId]) -> Sequence[Link]:
            found = await super().of(tweets)
            if chains.links[end.id].live:
                await ranking.remove(chains.delete(end))
            return found

    await ranking.recount(Deleting(chains), lambda _: None)
    await assert_agrees(ranking, chains)


async def test_a_recount_never_brings_back_what_is_gone(ranking: Ranking) -> None:
    """A link that was read as live may have been deleted since, and its removal been told."""
    chains = Chains()
    _, end = chains.chain(2)
    await chains.tell_all(ranking)
    as_read = list(chains.links.values())
    chains.delete(end)

    async def links() -> AsyncIterator[Sequence[Link]]:
        await chains.untell(ranking, end)
        yield as_read

    await recount(ranking, chains, walk=links)
    await assert_agrees(ranking, chains)


@pytest.mark.parametrize("damaged", [False, True])
async def test_an_addition_that_comes_late_brings_nothing_back(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path, damaged: bool
) -> None:
    """It was deleted, and that was told, before its addition came, which was only on its way for so long.

    What is gone only by mistake, and added again in that moment, is there all the same.
    """
    chains = Chains()
    _, middle, end = chains.chain(3)
    await chains.tell_all(ranking)
    if damaged:
        ranking_place.damage(tmp_path, [Damage(end.id, Part.LIVE, 0), Damage(middle.id, Part.LIVE, 0)])
    else:
        await ranking.remove(chains.delete(end))
        await ranking.remove(chains.delete(middle))

    async def walk() -> AsyncIterator[Sequence[Link]]:
        await asyncio.wait_for(chains.tell(ranking, end), 5)
        await asyncio.wait_for(chains.tell(ranking, chains.add(end)), 5)
        yield list(chains.links.values())

    await recount(ranking, chains, walk=walk)
    await assert_agrees(ranking, chains)
    assert (await recount(ranking, chains))[0].drifted == 0


@pytest.mark.parametrize("part", [Part.ALL, Part.LIVE])
async def test_an_addition_that_comes_late_is_right_where_the_removal_was_forgotten(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path, part: Part
) -> None:
    """The ranking lost the removal, which is why it is recounted."""
    chains = Chains()
    _, end = chains.chain(2)
    await chains.tell_all(ranking)
    await ranking.remove(chains.delete(end))
    ranking_place.damage(tmp_path, [Damage(end.id, part, 1 if part is Part.LIVE else None)])

    async def walk() -> AsyncIterator[Sequence[Link]]:
        await ranking.add(end)
        yield list(chains.links.values())

    await recount(ranking, chains, walk=walk)
    await assert_agrees(ranking, chains)


async def test_a_removal_stands_between_a_late_addition_and_what_was_read_before(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path
) -> None:
    chains = Chains()
    _, end = chains.chain(2)
    await chains.tell_all(ranking)
    ranking_place.damage(tmp_path, [Damage(end.id, Part.LIVE, 0)])

    async def walk() -> AsyncIterator[Sequence[Link]]:
        as_read = list(chains.links.values())
        await ranking.add(as_read[0])
        await ranking.add(end)
        chains.delete(end)
        await chains.untell(ranking, end)
        yield as_read

    await recount(ranking, chains, walk=walk)
    await assert_agrees(ranking, chains)


@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_a_recount_takes_tweets_in_any_order(ranking: Ranking, size: int) -> None:
    chains = some_chains()
    backwards = sorted(chains.links.values(), key=lambda link: link.id, reverse=True)

    async def walk() -> AsyncIterator[Sequence[Link]]:
        for start in range(0, len(backwards), size):
            yield backwards[start : start + size]

    assert (await recount(ranking, chains, walk=walk))[0].tweets == len(chains.links)
    await assert_agrees(ranking, chains)


async def test_a_tweet_that_the_walk_passed_by_is_asked_for(ranking: Ranking) -> None:
    """It was put where the walk had been already, and was retweeted before the walk came to its retweet."""
    chains = Chains()
    _, first, second, _ = chains.chain(4)

    async def walk() -> AsyncIterator[Sequence[Link]]:
        yield [link for link in chains.links.values() if link not in (first, second)]

    await recount(ranking, chains, walk=walk)
    await assert_agrees(ranking, chains)


@st.composite
def damages(draw: st.DrawFn, chains: Chains) -> list[Damage]:
    """Any part of any tweets, also several parts of one; parents may become others, even a circle."""
    links = list(chains.links.values())
    some: list[Damage] = []
    for link in draw(st.lists(st.sampled_from(links), max_size=8)):
        kinds: list[st.SearchStrategy[Damage]] = [
            st.builds(Damage, st.just(link.id), st.sampled_from([Part.COUNT, Part.INITIAL]), st.integers(-5, 10**6)),
            st.builds(Damage, st.just(link.id), st.just(Part.PARENT), st.none() | st.sampled_from(list(chains.links))),
            st.just(Damage(link.id, Part.ALL)),
            st.just(Damage(link.id, Part.LIVE, int(not link.live))),
        ]
        some.append(draw(st.one_of(kinds)))
    return some


@given(data=st.data(), size=st.integers(1, 20))
@examples(30)
async def test_a_recount_repairs_whatever_was_done(ranking_place: RankingPlace, data: st.DataObject, size: int) -> None:
    chains = some_chains()
    done = data.draw(damages(chains))
    with tempfile.TemporaryDirectory() as folder:
        async with ranking_place.open(Path(folder)) as ranking:
            await chains.tell_all(ranking)
            ranking_place.damage(Path(folder), done)
            found, progress = await recount(ranking, chains, size)
            await assert_agrees(ranking, chains)
            assert found.tweets == sum(progress) == len(chains.links)
            touched = {damage.tweet for damage in done}
            forgotten = {damage.tweet for damage in done if damage.part is Part.ALL}
            assert len(forgotten) <= found.drifted <= len(touched)
            assert (await recount(ranking, chains, size))[0].drifted == 0


# While others count


async def _write_on(chains: Chains, ranking: Ranking, chance: random.Random) -> None:
    """Somebody posts or deletes: the store first, then the ranking."""
    live = [link for link in chains.links.values() if link.live]
    if chance.random() < 0.3 and live:
        link = chance.choice(live)
        chains.delete(link)
        await chains.untell(ranking, link)
    else:
        link = chains.add(chance.choice([*live[-3:], None]), initial=chance.choice([0, 0, 2]))
        await asyncio.sleep(0)  # a recount may read it before the ranking is told
        await chains.tell(ranking, link)


@pytest.mark.parametrize("seed", range(12))
async def test_counts_are_right_when_others_counted_meanwhile(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    chains = some_chains()
    await chains.tell_all(ranking)
    links = list(chains.links.values())
    ranking_place.damage(
        tmp_path,
        [
            Damage(links[1].id, Part.COUNT, 99),
            Damage(links[2].id, Part.ALL),
            Damage(links[4].id, Part.PARENT, links[0].id),
            Damage(links[7].id, Part.INITIAL, 50),
        ],
    )
    stopped = asyncio.Event()

    async def others() -> None:
        while not stopped.is_set():
            await _write_on(chains, ranking, chance)

    async def walk() -> AsyncIterator[Sequence[Link]]:
        async for some in chains.walk(5):
            await _write_on(chains, ranking, chance)  # after it was read, before it is compared
            yield some
            if len(chains.links) > 200:
                stopped.set()  # else a walk might never come to the end

    writing = [asyncio.create_task(others()) for _ in range(4)]
    try:
        await asyncio.wait_for(recount(ranking, chains, walk=walk), 60)
    finally:
        stopped.set()
        await asyncio.wait_for(asyncio.gather(*writing), 60)
    await assert_agrees(ranking, chains)


@pytest.mark.parametrize("attempt", range(3))
@pytest.mark.parametrize("more", [0, 400])
async def test_two_recounts_at_once_leave_it_right(
    ranking_place: RankingPlace, ranking: Ranking, tmp_path: Path, more: int, attempt: int
) -> None:
    """As when two administrators start one, or one beside a server that does its own."""
    chains = some_chains()
    for _ in range(more):
        chains.chain(3)
    await recount(ranking, chains)
    ranking_place.damage(tmp_path, [Damage(tweet, Part.COUNT, 77) for tweet in chains.links])
    async with ranking_place.open(tmp_path) as other:
        await asyncio.gather(recount(ranking, chains), recount(other, chains))
        await assert_agrees(other, chains)
    await assert_agrees(ranking, chains)
