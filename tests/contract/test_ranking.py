"""What every ranking promises of counts and of the top list."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.ranking import Ranked, Ranking
from tests.contract.chains import Chains, assert_agrees, counts_of, recount, whole_top
from tests.contract.expecting import assert_ends_when_cancelled, unavailable
from tests.contract.places import RankingPlace


async def test_a_tweet_starts_from_its_initial_count(ranking: Ranking) -> None:
    chains = Chains()
    for initial in (0, 5, 10**12):
        assert await ranking.add(chains.add(initial=initial))
    assert await counts_of(ranking, chains.links.values()) == [0, 5, 10**12]


async def test_a_retweet_counts_for_every_tweet_above_it(ranking: Ranking) -> None:
    chains = Chains()
    root, middle, end = chains.chain(3)
    beside = chains.add(root)
    for at, counts in enumerate([[0, 0, 0, 0], [1, 0, 0, 0], [2, 1, 0, 0], [3, 1, 0, 0]]):
        assert await ranking.add((root, middle, end, beside)[at])
        assert await counts_of(ranking, [root, middle, end, beside]) == counts
    await assert_agrees(ranking, chains)


async def test_counts_come_in_the_order_asked(ranking: Ranking) -> None:
    chains = Chains()
    links = chains.chain(4)
    await chains.tell_all(ranking)
    unknown = Chains().chain(50)[-1]
    asked = [links[2], unknown, links[0], links[2], links[3]]
    assert await counts_of(ranking, asked) == [1, 0, 3, 1, 0]
    assert await counts_of(ranking, []) == []


async def test_counts_of_thousands_are_given_at_once(ranking: Ranking) -> None:
    chains = Chains()
    links = chains.chain(5)
    await chains.tell_all(ranking)
    ids = [TweetId(number.to_bytes(16, "big")) for number in range(3_000)]
    unknown = [Link(tweet, None, tweet, 0, 0) for tweet in ids]
    assert await counts_of(ranking, [*unknown, links[0], *unknown]) == [*[0] * 3_000, 4, *[0] * 3_000]


async def test_adding_again_counts_nothing(ranking: Ranking) -> None:
    chains = Chains()
    links = chains.chain(3)
    for _ in range(3):
        for link in links:
            assert await ranking.add(link)
    await assert_agrees(ranking, chains)


async def test_removing_takes_its_one_back_once(ranking: Ranking) -> None:
    chains = Chains()
    _, middle, end = chains.chain(3)
    await chains.tell_all(ranking)
    for link in (middle, end):
        chains.delete(link)
        for _ in range(3):
            assert await ranking.remove(link)
        await assert_agrees(ranking, chains)


async def test_what_is_gone_never_comes_back(ranking: Ranking) -> None:
    chains = Chains()
    root, end = chains.chain(2)
    await chains.tell_all(ranking)
    await ranking.remove(end)
    chains.delete(end)
    assert await ranking.add(end)
    await assert_agrees(ranking, chains)
    await ranking.remove(root)
    chains.delete(root)
    assert await ranking.add(root)
    await assert_agrees(ranking, chains)
    assert await ranking.top(10) == []


async def test_removed_before_it_was_added_is_gone(ranking: Ranking) -> None:
    chains = Chains()
    root, middle, end = chains.chain(3)
    await ranking.add(root)
    assert await ranking.remove(middle)
    assert await ranking.add(middle)
    chains.delete(middle)
    assert await ranking.add(end)
    await assert_agrees(ranking, chains)
    assert await counts_of(ranking, [root, middle]) == [1, 1], "its place in the chain stays"


async def test_below_a_missing_tweet_nothing_changes(ranking: Ranking) -> None:
    chains = Chains()
    root, middle, end = chains.chain(3)
    assert not await ranking.add(end)
    assert not await ranking.remove(end)
    assert not await ranking.add(middle)
    assert await ranking.top(10) == []
    assert await counts_of(ranking, chains.links.values()) == [0, 0, 0]
    assert await ranking.add(root)
    assert not await ranking.add(end), "its parent is missing still"
    assert await counts_of(ranking, chains.links.values()) == [0, 0, 0]
    await chains.tell(ranking, end)
    await assert_agrees(ranking, chains)


async def test_a_removal_that_was_told_false_leaves_nothing_gone(ranking: Ranking) -> None:
    chains = Chains()
    _, end = chains.chain(2)
    assert not await ranking.remove(end)
    await chains.tell(ranking, end)
    await assert_agrees(ranking, chains)


async def test_a_link_that_is_not_live_has_its_place_and_counts_for_nobody(ranking: Ranking) -> None:
    chains = Chains()
    root = chains.add()
    middle = chains.add(root, initial=7, live=False)
    end = chains.add(middle)
    for link in (root, middle, end):
        assert await ranking.add(link)
    await assert_agrees(ranking, chains)
    assert await counts_of(ranking, [root, middle]) == [1, 8]
    assert await ranking.add(msgspec.structs.replace(middle, live=True)), "a late add of what is gone"
    await assert_agrees(ranking, chains)


async def test_a_long_chain_is_counted_to_its_root(ranking: Ranking) -> None:
    chains = Chains()
    links = chains.chain(1_000)
    await recount(ranking, chains)
    last = chains.add(links[-1])
    assert await ranking.add(last)
    await assert_agrees(ranking, chains)
    chains.delete(last)
    assert await ranking.remove(last)
    await assert_agrees(ranking, chains)


async def test_a_tweet_retweeted_by_many_at_once_counts_each(ranking: Ranking) -> None:
    chains = Chains()
    root = chains.add()
    middle = chains.add(root)
    retweets = [chains.add(middle) for _ in range(64)]
    await chains.tell(ranking, middle)
    await asyncio.gather(*(ranking.add(link) for link in retweets for _ in range(2)))
    await assert_agrees(ranking, chains)
    for link in retweets[::2]:
        chains.delete(link)
    await asyncio.gather(*(ranking.remove(link) for link in retweets[::2] for _ in range(2)))
    await assert_agrees(ranking, chains)


# The top list


async def test_the_greatest_counts_lead_and_the_newest_where_they_are_equal(ranking: Ranking) -> None:
    chains = Chains()
    links = [chains.add(initial=initial) for initial in (3, 0, 7, 3, 0, 3)]
    await chains.tell_all(ranking)
    order = [links[at] for at in (2, 5, 3, 0, 4, 1)]
    assert await ranking.top(10) == [Ranked(link.id, link.initial) for link in order]
    assert await ranking.top(3) == [Ranked(link.id, link.initial) for link in order[:3]]


async def test_the_top_list_in_pages_gives_each_once(ranking: Ranking) -> None:
    chains = Chains()
    for initial in (0, 0, 2, 1, 1, 0, 5, 1, 0):
        chains.add(initial=initial)
    await chains.tell_all(ranking)
    for limit in range(1, 11):
        assert await whole_top(ranking, limit) == chains.expected_top()


async def test_a_page_goes_on_behind_what_is_no_longer_there(ranking: Ranking) -> None:
    chains = Chains()
    links = [chains.add(initial=initial) for initial in (0, 1, 1, 2, 0)]
    await chains.tell_all(ranking)
    for gone in (links[2], links[4]):
        await ranking.remove(chains.delete(gone))
        top = chains.expected_top()
        behind = Ranked(gone.id, gone.initial)
        expected = [item for item in top if (item.count, item.tweet) < (behind.count, behind.tweet)]
        assert await ranking.top(10, behind) == expected


async def test_nothing_is_ranked_before_anything_is_told(ranking: Ranking) -> None:
    assert await ranking.top(10) == []
    await ranking.check()


async def test_a_gone_tweet_is_not_ranked_but_keeps_its_count(ranking: Ranking) -> None:
    chains = Chains()
    root, _ = chains.chain(2)
    await chains.tell_all(ranking)
    await ranking.remove(chains.delete(root))
    await assert_agrees(ranking, chains)
    assert await counts_of(ranking, [root]) == [1]


# Its end


async def test_what_was_counted_is_there_when_it_is_opened_again(ranking_place: RankingPlace, tmp_path: Path) -> None:
    chains = Chains()
    _, _, end = chains.chain(3)
    async with ranking_place.open(tmp_path) as ranking:
        await chains.tell_all(ranking)
        await ranking.remove(chains.delete(end))
    async with ranking_place.open(tmp_path) as ranking:
        await assert_agrees(ranking, chains)
        assert await ranking.add(end)
        await assert_agrees(ranking, chains)


async def test_what_is_closed_is_unavailable(ranking_place: RankingPlace, tmp_path: Path) -> None:
    chains = Chains()
    link = chains.add()
    async with ranking_place.open(tmp_path) as ranking:
        await ranking.add(link)
    with pytest.raises(Unavailable):
        await ranking.add(link)
    with pytest.raises(Unavailable):
        await ranking.remove(link)
    with pytest.raises(Unavailable):
        await counts_of(ranking, [link])
    with pytest.raises(Unavailable):
        await ranking.top(10)
    with pytest.raises(Unavailable):
        await recount(ranking, chains)


async def test_a_check_of_what_is_closed_says_that_the_ranking_is_unavailable(
    ranking_place: RankingPlace, tmp_path: Path
) -> None:
    async with ranking_place.open(tmp_path) as ranking:
        await ranking.check()
    with unavailable("ranking_unavailable"):
        await ranking.check()


async def test_a_run_is_the_same_as_long_as_nothing_is_forgotten(ranking: Ranking) -> None:
    run = await ranking.run()
    await ranking.check()
    assert await ranking.run() == run


async def test_a_caller_ends_when_he_is_cancelled(ranking: Ranking) -> None:
    chains = Chains()
    links = chains.chain(2)
    await chains.tell_all(ranking)
    await assert_ends_when_cancelled(lambda: ranking.add(links[1]))
    await assert_ends_when_cancelled(lambda: counts_of(ranking, [links[0]]))
    await assert_ends_when_cancelled(ranking.run)
    await assert_agrees(ranking, chains)


async def test_hidden_tweets_are_left_out_of_the_top_and_count_as_before(ranking: Ranking) -> None:
    chains = Chains()
    root, middle, end = chains.chain(3)
    beside = chains.add()
    await chains.tell_all(ranking)
    await ranking.hide([(root.id, root.root), (end.id, end.root), (beside.id, beside.root)])
    await ranking.hide([(end.id, end.root)])
    assert await ranking.top(10) == [Ranked(middle.id, 1)]
    assert await counts_of(ranking, [root, middle, end]) == [2, 1, 0]
    more = chains.add(end)
    assert await ranking.add(more)
    assert await counts_of(ranking, [root, middle, end]) == [3, 2, 1]
    assert await ranking.top(10) == [Ranked(middle.id, 2), Ranked(more.id, 0)]


async def test_a_hidden_tweet_is_removed_as_any_other(ranking: Ranking) -> None:
    chains = Chains()
    root, end = chains.chain(2)
    await chains.tell_all(ranking)
    await ranking.hide([(end.id, end.root)])
    for _ in range(2):
        assert await ranking.remove(msgspec.structs.replace(end, live=False))
        assert await ranking.top(10) == [Ranked(root.id, 0)]
    await ranking.hide([(end.id, end.root)])
    assert await ranking.top(10) == [Ranked(root.id, 0)]
    assert await counts_of(ranking, [root]) == [0]


async def test_hiding_what_was_never_told_of_changes_nothing(ranking: Ranking) -> None:
    chains = Chains()
    (root,) = chains.chain(1)
    await ranking.hide([(root.id, root.root)])
    await ranking.hide([])
    await chains.tell_all(ranking)
    assert await counts_of(ranking, [root]) == [0]


async def test_a_recount_leaves_hidden_tweets_hidden_and_finds_nothing_wrong(ranking: Ranking) -> None:
    chains = Chains()
    root, end = chains.chain(2)
    await chains.tell_all(ranking)
    await ranking.hide([(root.id, root.root)])
    found, _ = await recount(ranking, chains)
    assert found.drifted == 0
    assert await ranking.top(10) == [Ranked(end.id, 0)]
    assert await counts_of(ranking, [root, end]) == [1, 0]
    assert await ranking.remove(msgspec.structs.replace(end, live=False))
    assert await counts_of(ranking, [root]) == [0]
