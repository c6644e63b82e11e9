"""The tweets with the greatest `count_retweet`."""

import asyncio
from uuid import UUID

from tests.web.site import Site, bodies, found, listed


async def test_the_top_is_by_count_and_among_equals_by_time(site: Site) -> None:
    root = await site.add_admin()
    for body, count in (("a", 5), ("b", 7), ("c", 5), ("d", 0), ("e", 10**12), ("f", 0)):
        await root.posts(body, count_retweet=count)
    assert bodies(listed(await site.get("/top"))) == ["e", "b", "c", "a", "f", "d"]


async def test_the_top_follows_retweets_and_deletes_at_once(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    one, two = await ada.posts("one"), await ada.posts("two")
    assert bodies(listed(await site.get("/top"))) == ["two", "one"]
    again = await bob.retweets(one, "again")
    assert bodies(listed(await site.get("/top"))) == ["one", "again", "two"]
    await bob.deletes(again)
    assert bodies(listed(await site.get("/top"))) == ["two", "one"]
    await ada.deletes(two)
    assert listed(await site.get("/top")) == [await site.tweet(one["id"])]


async def test_the_top_has_10_tweets_and_as_many_as_are_asked_for_up_to_100(site: Site) -> None:
    ada = await site.register("ada")
    posted = [await ada.posts(str(number)) for number in range(102)][::-1]
    assert listed(await site.get("/top")) == posted[:10]
    assert listed(await site.get("/top", params={"limit": 1})) == posted[:1]
    assert listed(await site.get("/top", params={"limit": 100})) == posted[:100]
    for limit in ("0", "101", "x"):
        assert (await site.get("/top", params={"limit": limit})).status_code == 400
    assert (await site.get("/top", params={"cursor": "x"})).status_code == 400


async def test_the_top_is_full_though_its_leaders_authors_are_deleted(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("x")
    kept = [await ada.posts(str(number)) for number in range(12)][::-1]
    for _ in range(25):
        await bob.posts("his")
    for number in range(3):
        await bob.retweets(tweet, str(number))
    await bob.leaves()
    top = listed(await site.get("/top"))
    assert [item["id"] for item in top if item["user_id"] == bob.id] == []
    assert len(top) == 10
    assert {item["id"] for item in top} <= {tweet["id"], *(item["id"] for item in kept)}


async def test_the_top_is_of_one_moment(site: Site) -> None:
    """It is in the order of the counts that it shows, and holds every tweet, while all of them are retweeted."""
    root = await site.add_admin()
    tweets = [await root.posts(str(number), count_retweet=5 * (number % 2)) for number in range(8)]
    retweeting = True

    async def retweet(at: int) -> None:
        number = at
        while retweeting:
            await root.retweets(tweets[number % len(tweets)], "again")
            number += 3

    workers = [asyncio.create_task(retweet(at)) for at in range(4)]
    try:
        for _ in range(60):
            top = listed(await site.get("/top", params={"limit": 100}))
            order = [(tweet["count_retweet"], UUID(tweet["id"]).bytes) for tweet in top]
            assert order == sorted(order, reverse=True)
            if len(top) < 100:
                assert {tweet["id"] for tweet in top} >= {tweet["id"] for tweet in tweets}
    finally:
        retweeting = False
        await asyncio.gather(*workers)


async def test_without_tweets_the_top_is_empty(site: Site) -> None:
    assert listed(await site.get("/top")) == []


async def test_health_tells_live_ready_and_the_parts(site: Site) -> None:
    assert found(await site.get("/livez")) == {"status": "live"}
    assert found(await site.get("/readyz")) == {"status": "ready"}
    status = found(await site.get("/status"))
    assert (status["ready"], status["store"], status["ranking"]) == (True, "ok", "ok")
    assert (await site.client.get("/livez")).status_code == 200
