"""Retweeting: the counts along a chain, the listing of a chain, and what is left of deleted originals."""

import asyncio
import random

from tests.web.conftest import Serve
from tests.web.site import NOBODY, Json, Person, Site, bodies, done, found, listed, problem, refused


async def counts(site: Site, *tweets: Json) -> list[int]:
    return [await site.count(tweet) for tweet in tweets]


async def chain(site: Site, tweet: Json) -> list[Json]:
    return listed(await site.get("/chain", params={"tweet_id": tweet["id"], "limit": 100}))


async def chain_of(person: Person, length: int) -> list[Json]:
    """A tweet and so many retweets, each of the one before."""
    tweets = [await person.posts("root")]
    for number in range(1, length + 1):
        tweets.append(await person.retweets(tweets[-1], f"retweet {number}"))
    return tweets


async def test_a_retweet_is_a_tweet_that_names_another(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("hello")
    retweet = await bob.retweets(tweet, "look", title="T")
    assert (retweet["retweet"], retweet["user_name"], retweet["body"]) == (tweet["id"], "bob", "look")
    assert retweet["count_retweet"] == 0
    assert await site.tweet(retweet["id"]) == retweet
    assert listed(await site.get("/tweet/@bob")) == [retweet]


async def test_a_retweet_may_have_an_empty_body(site: Site) -> None:
    ada = await site.register("ada")
    tweet = await ada.posts("hello")
    assert (await ada.retweets(tweet, ""))["body"] == ""
    asked = {"user_name": "ada", "retweet": (await ada.posts("other"))["id"].upper()}
    assert done(await site.post("/retweet", ada, data=asked), 201)["body"] == ""
    response = await site.post("/retweet", ada, json={**asked, "body": "x" * 281})
    refused(response, 422, "body_too_long")


async def test_a_retweet_adds_1_to_every_tweet_along_the_chain(site: Site) -> None:
    ada = await site.register("ada")
    root, first, second, third = await chain_of(ada, 3)
    assert await counts(site, root, first, second, third) == [3, 2, 1, 0]
    await ada.retweets(first)
    assert await counts(site, root, first, second, third) == [4, 3, 1, 0]


async def test_one_who_retweets_twice_is_counted_once(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("x")
    first = await bob.retweets(tweet)
    await ada.retweets(first)
    for more in ({}, {"body": ""}, {"body": "", "title": ""}):
        asked = {"user_name": "bob", "retweet": tweet["id"], **more}
        assert done(await site.post("/retweet", bob, json=asked), 200) == first, "the first one's answer"
    assert await site.count(tweet) == 2
    assert listed(await site.get("/tweet/@bob")) == [await site.tweet(first["id"])]
    assert await site.count(first) == 1


async def test_a_quote_is_always_new(site: Site) -> None:
    ada = await site.register("ada")
    tweet = await ada.posts("x")
    await ada.retweets(tweet)
    for more in ({"body": "look"}, {"body": "look"}, {"title": "T"}, {"title": "T"}):
        asked = {"body": "", **more}
        await ada.retweets(tweet, **asked)
    assert await site.count(tweet) == 5


async def test_after_its_delete_a_retweet_can_be_made_again(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("x")
    first = await bob.retweets(tweet)
    await bob.deletes(first)
    assert await site.count(tweet) == 0
    second = await bob.retweets(tweet)
    assert second["id"] != first["id"]
    assert await site.count(tweet) == 1


async def test_nobody_fills_the_top_with_retweets_of_one_tweet(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    own = await ada.posts("mine")
    others = [await bob.posts(str(number)) for number in range(10)]
    asked = {"user_name": "ada", "retweet": own["id"]}
    answers = await asyncio.gather(*(site.post("/retweet", ada, json=asked) for _ in range(111)))
    assert sorted(answer.status_code for answer in answers) == [200] * 110 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    top = listed(await site.get("/top", params={"limit": 100}))
    assert (top[0]["id"], top[0]["count_retweet"], len(top)) == (own["id"], 1, len(others) + 2)


async def test_a_key_is_answered_alike_whichever_it_got(site: Site) -> None:
    ada = await site.register("ada")
    tweet = await ada.posts("x")
    asked = {"user_name": "ada", "retweet": tweet["id"]}

    async def ask(key: str) -> tuple[int, str]:
        answer = await site.post("/retweet", ada, json=asked, headers={"Idempotency-Key": key})
        return answer.status_code, answer.json()["id"]

    first = await ask("one")
    second = await ask("two")
    assert (first[0], second) == (201, (200, first[1]))
    assert [await ask(key) for key in ("one", "two", "one")] == [first, second, first]
    await ada.deletes({"id": first[1]})
    assert [await ask(key) for key in ("one", "two")] == [first, second]
    third = await ask("three")
    assert third[0] == 201
    assert third[1] != first[1]


async def test_in_open_mode_every_retweet_counts(open_mode: Site) -> None:
    asked = {"user_name": "bob", "body": "x"}
    tweet = done(await open_mode.post("/tweet", json=asked), 201)
    for _ in range(3):
        done(await open_mode.post("/retweet", json={"user_name": "bob", "retweet": tweet["id"]}), 201)
    assert await open_mode.count(tweet) == 3


async def test_retweets_at_once_are_all_counted(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    root, first = await chain_of(ada, 1)
    await asyncio.gather(*(who.retweets(first, str(number)) for number in range(10) for who in (ada, bob)))
    assert await counts(site, root, first) == [21, 20]


async def test_deleting_a_retweet_takes_its_1_back_and_leaves_its_place(site: Site) -> None:
    ada = await site.register("ada")
    root, first, second, third = await chain_of(ada, 3)
    await ada.deletes(second)
    assert await counts(site, root, first, third) == [2, 1, 0]
    await ada.deletes(second)
    assert await counts(site, root, first, third) == [2, 1, 0]
    await ada.retweets(third)
    assert await counts(site, root, first, third) == [3, 2, 1]
    await ada.deletes(root)
    assert await counts(site, first, third) == [2, 1]


async def test_counts_are_right_after_any_retweets_and_deletes(site: Site) -> None:
    """count_retweet(t) = initial(t) + live tweets whose chain holds t."""
    chance = random.Random(20_26)
    root = await site.add_admin()
    tweets: list[Json] = []
    live: set[str] = set()
    parents: dict[str, str | None] = {}
    initial: dict[str, int] = {}
    for _ in range(60):
        alive = [tweet for tweet in tweets if tweet["id"] in live]
        if alive and chance.random() < 0.25:
            gone = chance.choice(alive)
            await root.deletes(gone)
            live.remove(gone["id"])
            continue
        starts = chance.choice([0, 0, 5])
        if alive and chance.random() < 0.8:
            made = await root.retweets(chance.choice(alive), f"retweet {len(tweets)}", count_retweet=starts)
        else:
            made = await root.posts("x", count_retweet=starts)
        tweets.append(made)
        live.add(made["id"])
        parents[made["id"]] = made["retweet"]
        initial[made["id"]] = starts
    expected = dict(initial)
    for tweet in live:
        above = parents[tweet]
        while above is not None:
            expected[above] += 1
            above = parents[above]
    shown = {tweet["id"]: await site.count(tweet) for tweet in tweets if tweet["id"] in live}
    assert shown == {tweet: expected[tweet] for tweet in live}
    ranked = listed(await site.get("/top", params={"limit": 100}))
    order = sorted(live, key=lambda tweet: (expected[tweet], tweet), reverse=True)
    assert [(tweet["id"], tweet["count_retweet"]) for tweet in ranked] == [(one, expected[one]) for one in order]


async def test_a_chain_is_listed_from_the_tweet_up_to_the_root(site: Site) -> None:
    ada = await site.register("ada")
    tweets = await chain_of(ada, 3)
    shown = await chain(site, tweets[3])
    assert shown == [{**await site.tweet(tweet["id"]), "deleted": False} for tweet in reversed(tweets)]
    assert [each["id"] for each in await chain(site, tweets[1])] == [tweets[1]["id"], tweets[0]["id"]]
    assert len(await chain(site, tweets[0])) == 1


async def test_pages_of_a_chain_go_on_to_the_root(site: Site) -> None:
    ada = await site.register("ada")
    tweets = await chain_of(ada, 11)
    upwards = [tweet["id"] for tweet in reversed(tweets)]
    last = tweets[-1]["id"]
    for limit, lengths in ((None, [10, 2]), (5, [5, 5, 2]), (12, [12]), (6, [6, 6])):
        params = {"tweet_id": last} | ({"limit": limit} if limit else {})
        pages = await site.all_pages("/chain", **params)
        assert [len(page) for page in pages] == lengths
        assert [tweet["id"] for page in pages for tweet in page] == upwards


async def test_of_a_deleted_tweet_its_chain_shows_nothing_but_its_place(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("secret", title="secret")
    middle = await bob.retweets(tweet, "middle")
    last = await ada.retweets(middle, "last")
    await bob.deletes(middle)
    shown = await chain(site, last)
    assert [each["deleted"] for each in shown] == [False, True, False]
    assert shown[1] == {
        "id": middle["id"],
        "user_id": None,
        "user_name": None,
        "title": "",
        "body": "",
        "retweet": tweet["id"],
        "count_retweet": None,
        "created_at": middle["created_at"],
        "deleted": True,
    }
    assert bodies(shown) == ["last", "", "secret"]
    refused(await site.get("/chain", params={"tweet_id": middle["id"]}), 404, "deleted_tweet")


async def test_of_a_deleted_users_tweet_its_chain_shows_nothing_but_its_place(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("secret")
    retweet = await bob.retweets(tweet, "mine")
    await ada.leaves()
    shown = await chain(site, retweet)
    assert [(each["user_name"], each["user_id"], each["body"]) for each in shown] == [
        ("bob", bob.id, "mine"),
        (None, None, ""),
    ]
    assert shown[1]["deleted"] is True


async def test_the_retweets_of_a_deleted_tweet_stay(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("x")
    retweet = await bob.retweets(tweet, "mine")
    await ada.deletes(tweet)
    assert (await site.tweet(retweet["id"]))["retweet"] == tweet["id"]
    again = await ada.retweets(retweet)
    assert await counts(site, retweet, again) == [1, 0]


async def test_what_is_gone_or_never_was_is_not_retweeted(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    deleted, of_deleted = await ada.posts("x"), await bob.posts("y")
    await ada.deletes(deleted)
    await bob.leaves()
    for tweet, status, code in (
        (deleted["id"], 404, "deleted_tweet"),
        (of_deleted["id"], 404, "deleted_tweet"),
        (NOBODY, 404, "unknown_tweet"),
        ("x", 400, "malformed_id"),
        ("", 400, "malformed_id"),
        (ada.id, 404, "unknown_tweet"),
    ):
        response = await site.post("/retweet", ada, json={"user_name": "ada", "retweet": tweet})
        refused(response, status, code)
    assert listed(await site.get("/tweet/@ada")) == []


async def test_a_chain_has_a_greatest_length(serve: Serve) -> None:
    site = await serve(max_chain=3)
    ada = await site.register("ada")
    tweets = await chain_of(ada, 3)
    response = await site.post("/retweet", ada, json={"user_name": "ada", "retweet": tweets[-1]["id"]})
    assert "3" in refused(response, 409, "chain_too_long")["detail"]
    assert await counts(site, *tweets) == [3, 2, 1, 0]
    await ada.retweets(tweets[-2])
    await ada.deletes(tweets[1])
    response = await site.post("/retweet", ada, json={"user_name": "ada", "retweet": tweets[-1]["id"]})
    refused(response, 409, "chain_too_long")


async def test_an_unknown_chain_is_not_found(site: Site) -> None:
    ada = await site.register("ada")
    tweet = (await chain_of(ada, 2))[-1]
    refused(await site.get("/chain", params={"tweet_id": NOBODY}), 404, "unknown_tweet")
    refused(await site.get("/chain", params={"tweet_id": "x"}), 400, "malformed_id")
    assert problem(await site.get("/chain"))["status"] == 400
    refused(await site.get("/chain", params={"tweet_id": tweet["id"], "cursor": "x"}), 400, "malformed_cursor")


async def test_a_chains_cursor_serves_with_its_own_tweet_only(site: Site) -> None:
    ada = await site.register("ada")
    tweet = (await chain_of(ada, 2))[-1]
    other = await ada.posts("other")
    response = await site.get("/chain", params={"tweet_id": tweet["id"], "limit": 1})
    cursor = response.links["next"]["url"].partition("cursor=")[2]
    for elsewhere in (other["id"], NOBODY):
        answer = await site.get("/chain", params={"tweet_id": elsewhere, "cursor": cursor})
        assert answer.status_code in (400, 404), answer.text


async def test_a_profile_counts_retweets_as_tweets(site: Site) -> None:
    ada = await site.register("ada")
    await ada.retweets(await ada.posts("x"))
    assert found(await site.get("/user", params={"name": "ada"}))["count_tweets"] == 2
