"""The feed: the newest tweets of all whom a user follows."""

import pytest

from tests.web.conftest import Serve
from tests.web.polling import eventually
from tests.web.site import NOBODY, Json, Site, bodies, listed, next_page, refused


async def test_a_feed_holds_the_followees_tweets_newest_first(site: Site) -> None:
    ada, bob, eve, dan = await site.register_all("ada", "bob", "eve", "dan")
    await ada.follows(bob, eve)
    posted = [await who.posts(str(number)) for number, who in enumerate([bob, eve, dan, eve, bob, dan])]
    assert await ada.feed() == [posted[at] for at in (4, 3, 1, 0)]
    assert listed(await site.get("/feed/@ADA")) == await ada.feed()


async def test_ones_own_tweets_are_not_in_ones_feed(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    await bob.follows(ada)
    await ada.posts("hers")
    await bob.posts("his")
    await ada.posts("hers again")
    assert bodies(await ada.feed()) == ["his"]
    assert bodies(await bob.feed()) == ["hers again", "hers"]


async def test_a_feed_of_nobody_is_empty(site: Site) -> None:
    ada = await site.register("ada")
    await ada.posts("hers")
    response = await site.get("/feed/@ada")
    assert listed(response) == []
    assert next_page(response) is None


async def test_a_tweet_is_soon_in_the_feeds_that_were_read_before(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    assert await ada.feed() == []
    for number in range(5):
        tweet = await bob.posts(str(number))

        async def is_there(tweet: Json = tweet) -> bool:
            return tweet in await ada.feed()

        await eventually(is_there)
    assert bodies(await ada.feed()) == ["4", "3", "2", "1", "0"]


async def test_following_and_unfollowing_change_the_feed_at_once(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await bob.posts("bob 1")
    await eve.posts("eve 1")
    await bob.posts("bob 2")
    await ada.follows(eve)
    assert bodies(await ada.feed()) == ["eve 1"]
    await ada.follows(bob)
    assert bodies(await ada.feed()) == ["bob 2", "eve 1", "bob 1"]
    await ada.unfollows(bob)
    assert bodies(await ada.feed()) == ["eve 1"]
    await bob.posts("bob 3")
    assert bodies(await ada.feed()) == ["eve 1"]
    await ada.follows(bob)
    assert bodies(await ada.feed()) == ["bob 3", "bob 2", "eve 1", "bob 1"]


async def test_retweets_are_in_the_feed_and_counts_are_those_of_now(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await ada.follows(bob)
    tweet = await bob.posts("x")
    assert (await ada.feed())[0]["count_retweet"] == 0
    await eve.retweets(tweet)
    assert (await ada.feed())[0]["count_retweet"] == 1
    await bob.retweets(tweet, "mine")

    async def are_there() -> bool:
        shown = [(item["body"], item["retweet"]) for item in await ada.feed()]
        return shown == [("mine", tweet["id"]), ("x", None)]

    await eventually(are_there)


async def test_a_page_has_10_tweets_and_as_many_as_are_asked_for_up_to_100(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    posted = [await bob.posts(str(number)) for number in range(105)][::-1]
    assert await ada.feed() == posted[:10]
    assert await ada.feed(limit=1) == posted[:1]
    assert await ada.feed(limit=100) == posted[:100]
    for limit in ("0", "101", "-1", "x", ""):
        assert (await site.get("/feed/@ada", params={"limit": limit})).status_code == 400


async def test_pages_go_on_to_the_end_without_gap_or_repetition(site: Site) -> None:
    ada, *others = await site.register_all("ada", *(f"user{number}" for number in range(5)))
    await ada.follows(*others)
    posted = [await others[number % 5 if number % 3 else 0].posts(str(number)) for number in range(43)][::-1]
    for limit in (1, 7, 10, 43, 100):
        pages = await site.all_pages("/feed/@ada", limit=limit)
        assert [item for page in pages for item in page] == posted
        assert all(len(page) == limit for page in pages[:-1])
        assert 0 < len(pages[-1]) <= limit


async def test_the_link_keeps_path_and_limit(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    for number in range(3):
        await bob.posts(str(number))
    link = next_page(await site.get(f"/feed/{ada.id}", params={"limit": 2}))
    assert link
    assert link.startswith(f"/api/v1/feed/{ada.id}?limit=2&cursor=")
    at_root = await site.client.get("/feed/@ada", params={"limit": 2})
    assert at_root.headers["link"].startswith("</feed/@ada?limit=2&cursor=")
    assert at_root.headers["link"].endswith('>; rel="next"')


async def test_a_page_goes_on_where_it_ended_though_tweets_come_and_go(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    posted = [await bob.posts(str(number)) for number in range(10)][::-1]
    page = await site.get("/feed/@ada", params={"limit": 3})
    link = next_page(page)
    await bob.posts("later")
    await bob.deletes(posted[2])
    await bob.deletes(posted[4])
    assert link
    assert listed(await site.client.get(link)) == [posted[3], posted[5], posted[6]]


async def test_a_page_is_full_though_tweets_were_deleted(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await ada.follows(bob, eve)
    posted = [await (eve if number % 2 else bob).posts(str(number)) for number in range(60)][::-1]
    assert await ada.feed() == posted[:10]
    for tweet in posted[:20:2]:
        await eve.deletes(tweet)
    kept = [*posted[1:20:2], *posted[20:]]
    assert await ada.feed() == kept[:10]
    assert await ada.feed(limit=25) == kept[:25]
    await eve.leaves()
    of_bob = [tweet for tweet in posted if tweet["user_id"] == bob.id]
    pages = await site.all_pages("/feed/@ada")
    assert pages == [of_bob[:10], of_bob[10:20], of_bob[20:]]


async def test_a_feed_goes_far_below_what_the_cache_keeps(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await ada.follows(bob, eve)
    posted = [await (eve if number % 7 == 0 else bob).posts(str(number)) for number in range(250)][::-1]
    pages = await site.all_pages("/feed/@ada", limit=100)
    assert [item["id"] for page in pages for item in page] == [tweet["id"] for tweet in posted]


@pytest.mark.parametrize("limit", [10, 100])
async def test_the_longest_page_is_in_the_timeline(site: Site, limit: int) -> None:
    """A hundred, and one more that tells of a next page: else each would read all followees from the store."""
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await ada.follows(bob, eve)
    for number in range(150):
        await (eve if number % 2 else bob).posts(str(number))
    assert len(await ada.feed(limit=limit)) == limit
    before = site.calls("tails")
    answer = await site.get(f"/feed/@ada?limit={limit}", ada)
    assert (len(answer.json()), "next" in answer.headers["Link"]) == (limit, True)
    assert site.calls("tails") == before


async def test_a_feed_is_right_without_a_cache_and_with_everyone_a_celebrity(serve: Serve) -> None:
    for settings in ({"cache_bytes": 0}, {"pull_threshold": 0}, {"pull_threshold": 1}):
        site = await serve(**settings)
        ada, bob, eve = await site.register_all("ada", "bob", "eve")
        await ada.follows(bob, eve)
        posted = [await (eve if number % 2 else bob).posts(str(number)) for number in range(30)][::-1]
        assert await site.all_pages("/feed/@ada") == [posted[:10], posted[10:20], posted[20:]]
        await ada.unfollows(eve)
        assert await ada.feed() == posted[1:21:2]


async def test_an_unknown_reader_is_not_found(site: Site) -> None:
    ada = await site.register("ada")
    await ada.leaves()
    for who in (NOBODY, "@nobody", ada.id, "@ada"):
        refused(await site.get(f"/feed/{who}"), 404, "unknown_user")
    for who in ("ada", "1", NOBODY + "0", NOBODY.replace("-", "")):
        refused(await site.get(f"/feed/{who}"), 400, "malformed_id")


async def test_a_malformed_cursor_is_refused(site: Site) -> None:
    await site.register("ada")
    for cursor in ("x", "%", "AAAA", "é", "null", "0", "Zg", "f" * 23):
        refused(await site.get("/feed/@ada", params={"cursor": cursor}), 400, "malformed_cursor")


async def test_an_empty_cursor_is_no_cursor(site: Site) -> None:
    """It must not begin the list again: a client that lost its cursor would go round for ever."""
    await site.register("ada")
    assert (await site.get("/feed/@ada?cursor=")).status_code == 400
