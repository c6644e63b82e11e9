"""Random histories of retweets and deletes, told in any order and more than once, end at the model's counts."""

import asyncio
import random
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.ranking import Ranked
from tests.contract.chains import Chains, assert_agrees, counts_of, whole_top
from tests.contract.effort import examples
from tests.contract.places import RankingPlace

AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Forest:
    """Tweets and what they retweet; `deleted` are those that the store has deleted in the end."""

    chains: Chains
    deleted: frozenset[int]

    @property
    def links(self) -> list[Link]:
        """As they were when they were posted."""
        return [msgspec.structs.replace(link, live=True) for link in self.chains.links.values()]


@st.composite
def forests(draw: st.DrawFn) -> Forest:
    """Deep rather than broad: a parent is often one of the last."""
    chains = Chains()
    links: list[Link] = []
    for at in range(draw(st.integers(1, 9))):
        parent = draw(st.none() | st.integers(max(0, at - 2), at - 1) | st.integers(0, at - 1)) if at else None
        initial = draw(st.sampled_from([0, 0, 0, 1, 3]))
        links.append(chains.add(None if parent is None else links[parent], initial=initial))
    deleted = frozenset(draw(st.sets(st.integers(0, len(links) - 1))))
    for at in deleted:
        chains.delete(links[at])
    return Forest(chains, deleted)


@given(forest=forests(), seed=st.randoms(use_true_random=False), limit=st.integers(1, 10))
@examples(30)
async def test_any_order_and_any_number_of_retries_end_alike(
    ranking_place: RankingPlace, forest: Forest, seed: random.Random, limit: int
) -> None:
    """Each tweet's add and each deleted one's removal comes once at least, and in no order."""
    adds = [("add", at) for at in range(len(forest.links))]
    removals = [("remove", at) for at in sorted(forest.deleted)]
    told = adds + removals
    told += seed.choices(told, k=seed.randrange(10))
    seed.shuffle(told)
    with tempfile.TemporaryDirectory() as folder:
        async with ranking_place.open(Path(folder)) as ranking:
            for what, at in told:
                if what == "add":
                    # A retry is told what was posted, or what the store says by now.
                    link = forest.links[at] if seed.random() < 0.5 else list(forest.chains.links.values())[at]
                    await forest.chains.tell(ranking, link)
                else:
                    await forest.chains.untell(ranking, forest.links[at])
            await assert_agrees(ranking, forest.chains)
            assert await whole_top(ranking, limit) == forest.chains.expected_top()


class State(Enum):
    ABSENT = "absent"
    LIVE = "live"
    GONE = "gone"


class Model:
    """The states of the port's docstring, and nothing else."""

    def __init__(self, chains: Chains) -> None:
        self._chains = chains
        self._states = dict.fromkeys(chains.links, State.ABSENT)

    def tell(self, tweet: TweetId, state: State) -> bool:
        parent = self._chains.links[tweet].parent
        if parent is not None and self._states[parent] is State.ABSENT:
            return False
        if self._states[tweet] is not State.GONE:
            self._states[tweet] = state
        return True

    def is_live(self, tweet: TweetId) -> bool:
        return self._states[tweet] is State.LIVE

    def count(self, tweet: TweetId) -> int:
        if self._states[tweet] is State.ABSENT:
            return 0
        live = [other for other, state in self._states.items() if state is State.LIVE]
        return self._chains.links[tweet].initial + sum(tweet in self._chains.above(other) for other in live)

    def top(self) -> list[Ranked]:
        ranked = [Ranked(tweet, self.count(tweet)) for tweet, state in self._states.items() if state is State.LIVE]
        return sorted(ranked, key=lambda item: (item.count, item.tweet), reverse=True)


@given(forest=forests(), steps=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["add", "dead", "remove"]))))
@examples(30)
async def test_each_step_changes_what_it_says_and_no_more(
    ranking_place: RankingPlace, forest: Forest, steps: list[tuple[int, str]]
) -> None:
    """Nobody adds what is missing here, so that every answer and every count between is compared."""
    links = forest.links
    model = Model(forest.chains)
    with tempfile.TemporaryDirectory() as folder:
        async with ranking_place.open(Path(folder)) as ranking:
            for number, what in steps:
                link = links[number % len(links)]
                if what == "remove":
                    assert await ranking.remove(link) == model.tell(link.id, State.GONE)
                elif what == "add":
                    assert await ranking.add(link) == model.tell(link.id, State.LIVE)
                elif not model.is_live(link.id):  # a deleted one that was told live before is removed, not added
                    dead = msgspec.structs.replace(link, live=False)
                    assert await ranking.add(dead) == model.tell(link.id, State.GONE)
                assert await counts_of(ranking, links) == [model.count(link.id) for link in links]
                assert await ranking.top(len(links)) == model.top()


@given(seed=st.integers())
@examples(1)
async def test_ten_thousand_retweets_and_deletes_end_at_the_models_counts(
    ranking_place: RankingPlace, seed: int
) -> None:
    """Many at once, as of many clients: a tweet may be told before those above it, and be deleted before it is told."""
    chance = random.Random(seed)
    chains = Chains()
    links = [chains.add(initial=chance.choice([0, 0, 5])) for _ in range(20)]
    told = [*links]
    for _ in range(10_000 - len(links)):
        if chance.random() < 0.7:
            parent = chance.choice(links[-50:]) if chance.random() < 0.5 else chance.choice(links)
            links.append(chains.add(parent if parent.depth < 200 else links[0]))
            told.append(links[-1])
        else:
            told.append(chains.delete(chance.choice(links)))

    with tempfile.TemporaryDirectory() as folder:
        async with ranking_place.open(Path(folder)) as ranking:

            async def tell(link: Link) -> None:
                await (chains.tell(ranking, link) if link.live else chains.untell(ranking, link))

            for start in range(0, len(told), AT_ONCE):
                some = told[start : start + AT_ONCE]
                chance.shuffle(some)
                await asyncio.gather(*map(tell, some))
            await assert_agrees(ranking, chains)
