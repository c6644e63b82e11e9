"""A POST with an `Idempotency-Key` takes effect once and is answered alike, however often it is sent."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.web.conftest import Serve
from tests.web.site import Json, Person, Site, bodies, done, found, listed, refused

PASSWORD = "correct horse"
KEY = {"Idempotency-Key": "the same key"}


@dataclass(frozen=True)
class Scene:
    """Two users and a tweet of the first, to ask something of."""

    site: Site
    ada: Person
    bob: Person
    tweet: Json


@dataclass(frozen=True)
class Post:
    """A POST, another body for the same path, and what shows how often it took effect."""

    path: str
    body: Callable[[Scene], Json]
    other: Callable[[Scene], Json]
    effects: Callable[[Scene], Any]
    by_ada: bool = True


async def users_made(scene: Scene) -> int:
    return sum([(await scene.site.get("/user", params={"name": name})).status_code == 200 for name in ("eve", "dan")])


async def tweets_made(scene: Scene) -> int:
    count: int = (await scene.ada.profile())["count_tweets"] - 1
    return count


async def retweets_counted(scene: Scene) -> int:
    return await scene.site.count(scene.tweet)


async def followed(scene: Scene) -> int:
    return len(listed(await scene.site.get("/follow/@ada")))


async def signed_in(scene: Scene) -> int:
    return 1


POSTS = {
    "register": Post("/user", lambda _: {"name": "eve"}, lambda _: {"name": "dan"}, users_made, by_ada=False),
    "sign in": Post(
        "/token",
        lambda _: {"name": "ada", "password": PASSWORD},
        lambda _: {"name": "bob", "password": PASSWORD},
        signed_in,
        by_ada=False,
    ),
    "follow": Post(
        "/follow/@ada", lambda scene: {"followee_id": scene.bob.id}, lambda _: {"followee_id": "@root"}, followed
    ),
    "own tweet": Post("/tweet/@ada", lambda _: {"tweet": "once"}, lambda _: {"tweet": "twice"}, tweets_made),
    "tweet": Post(
        "/tweet",
        lambda _: {"user_name": "ada", "body": "once"},
        lambda _: {"user_name": "ada", "body": "once", "title": "T"},
        tweets_made,
    ),
    "retweet": Post(
        "/retweet",
        lambda scene: {"user_name": "ada", "retweet": scene.tweet["id"]},
        lambda scene: {"user_name": "ada", "retweet": scene.tweet["id"], "body": "x"},
        retweets_counted,
    ),
}
EACH = pytest.mark.parametrize("post", POSTS.values(), ids=POSTS)


@pytest.fixture
async def scene(site: Site, request: pytest.FixtureRequest) -> Scene:
    await site.add_admin("root")
    # A hash takes a tenth of a second: only who signs in has a password.
    more = {"password": PASSWORD} if "sign" in request.node.name else {}
    ada, bob = await site.register("ada", **more), await site.register("bob", **more)
    return Scene(site, ada, bob, await ada.posts("original"))


async def send(scene: Scene, post: Post, body: Json, *, form: bool = False) -> httpx.Response:
    sent: dict[str, Any] = {"data" if form else "json": body}
    return await scene.site.post(post.path, scene.ada if post.by_ada else None, headers=KEY, **sent)


def answer(response: httpx.Response) -> tuple[int, bytes]:
    assert response.status_code in (201, 204), response.text
    return response.status_code, response.content


@EACH
async def test_a_replay_is_answered_alike_and_changes_nothing(scene: Scene, post: Post) -> None:
    first = await send(scene, post, post.body(scene))
    again = await send(scene, post, post.body(scene))
    as_form = await send(scene, post, post.body(scene), form=True)
    assert answer(first) == answer(again) == answer(as_form)
    assert await post.effects(scene) == 1


@EACH
async def test_the_same_key_with_another_body_is_refused(scene: Scene, post: Post) -> None:
    first = await send(scene, post, post.body(scene))
    refused(await send(scene, post, post.other(scene)), 422, "idempotency_key_reused")
    assert answer(await send(scene, post, post.body(scene))) == answer(first)
    assert await post.effects(scene) == 1


@EACH
async def test_replays_at_once_take_effect_once(scene: Scene, post: Post) -> None:
    answers = await asyncio.gather(*(send(scene, post, post.body(scene)) for _ in range(4)))
    assert len({answer(response) for response in answers}) == 1
    assert await post.effects(scene) == 1


@EACH
async def test_a_replay_at_the_root_is_the_same_request(scene: Scene, post: Post) -> None:
    first = await send(scene, post, post.body(scene))
    if post.path == "/token":
        return
    auth = scene.ada.auth if post.by_ada else {}
    again = await scene.site.client.post(post.path, headers={**auth, **KEY}, json=post.body(scene))
    assert answer(again) == answer(first)


@EACH
async def test_a_malformed_key_is_refused(scene: Scene, post: Post) -> None:
    for key in ("", "x" * 256, "\u00e9", "a\tb"):
        auth = scene.ada.auth if post.by_ada else {}
        headers: Any = {**auth, "Idempotency-Key": key.encode("latin-1")}
        response = await scene.site.post(post.path, headers=headers, json=post.body(scene))
        assert response.status_code == 400, key
    assert await post.effects(scene) == (1 if post.path == "/token" else 0)


@EACH
async def test_what_was_refused_is_not_recorded(scene: Scene, post: Post) -> None:
    wrong = await send(scene, post, {**post.body(scene), "surprise": 1})
    refused(wrong, 400, "unknown_field")
    answer(await send(scene, post, post.body(scene)))


async def test_a_replayed_registration_gives_the_token_that_serves(site: Site) -> None:
    asked = {"name": "ada"}
    first = done(await site.post("/user", json=asked, headers=KEY), 201)
    again = done(await site.post("/user", json=asked, headers=KEY), 201)
    assert first["token"] == again["token"]
    await Person(site, again).posts("hello")


async def test_a_short_key_is_good_from_one_address_only_for_who_has_no_token(site: Site) -> None:
    """Who guesses key and name of someone's registration must not be given the token."""
    sent: dict[str, Any] = {"json": {"name": "ada"}, "headers": {"Idempotency-Key": "1"}}
    first = done(await site.post("/user", **sent), 201)
    assert done(await site.post("/user", **sent), 201) == first
    async with site.client_at("10.0.0.9") as elsewhere:
        refused(await elsewhere.post("/api/v1/user", **sent), 409, "name_taken")
        other = {**sent, "json": {"name": "bob"}}
        assert done(await elsewhere.post("/api/v1/user", **other), 201)["name"] == "bob"


async def test_a_long_key_is_good_from_everywhere(site: Site) -> None:
    sent: dict[str, Any] = {"json": {"name": "ada"}, "headers": {"Idempotency-Key": "b2c1e7f0-5d0a-4c1e"}}
    first = done(await site.post("/user", **sent), 201)
    async with site.client_at("10.0.0.9") as elsewhere:
        assert done(await elsewhere.post("/api/v1/user", **sent), 201) == first


async def test_a_short_key_with_a_token_is_good_from_everywhere(scene: Scene) -> None:
    sent: dict[str, Any] = {"json": {"tweet": "once"}, "headers": {"Idempotency-Key": "1", **scene.ada.auth}}
    first = done(await scene.site.client.post("/api/v1/tweet/@ada", **sent), 201)
    async with scene.site.client_at("10.0.0.9") as elsewhere:
        assert done(await elsewhere.post("/api/v1/tweet/@ada", **sent), 201) == first


async def test_keys_of_two_registrations_give_two_tokens(site: Site) -> None:
    made = [
        done(await site.post("/user", json={"name": name}, headers={"Idempotency-Key": f"key of {name}"}), 201)
        for name in ("ada", "bob")
    ]
    assert made[0]["token"] != made[1]["token"]


async def test_a_replayed_sign_in_still_takes_the_password(scene: Scene) -> None:
    post = POSTS["sign in"]
    done(await send(scene, post, post.body(scene)), 201)
    refused(await send(scene, post, {"name": "ada", "password": "wrong horse"}), 401, "bad_credentials")


async def test_a_replay_after_the_tweet_was_deleted_gives_the_first_answer(scene: Scene) -> None:
    for path, asked in (
        ("/tweet", {"user_name": "ada", "body": "e\u0301\r\n", "title": "T"}),
        ("/tweet/@ada", {"body": "own"}),
        ("/retweet", {"user_name": "ada", "retweet": scene.tweet["id"], "body": "again"}),
    ):
        headers = {"Idempotency-Key": path}
        first = done(await scene.site.post(path, scene.ada, headers=headers, json=asked), 201)
        await scene.ada.deletes(first)
        assert done(await scene.site.post(path, scene.ada, headers=headers, json=asked), 201) == first
    assert bodies(listed(await scene.site.get("/tweet/@ada"))) == ["original"]
    assert await retweets_counted(scene) == 0


async def test_a_replayed_retweet_gives_the_first_answer_though_the_original_is_gone(scene: Scene) -> None:
    post = POSTS["retweet"]
    first = await send(scene, post, post.body(scene))
    await scene.ada.deletes(scene.tweet)
    assert answer(await send(scene, post, post.body(scene))) == answer(first)


async def test_a_replayed_tweet_gives_the_first_answer_though_it_was_retweeted_since(scene: Scene) -> None:
    post = POSTS["tweet"]
    first = await send(scene, post, post.body(scene))
    await scene.bob.retweets(first.json())
    assert answer(await send(scene, post, post.body(scene))) == answer(first)
    assert await scene.site.count(first.json()) == 1


async def test_a_replayed_follow_does_not_undo_an_unfollow(scene: Scene) -> None:
    post = POSTS["follow"]
    first = await send(scene, post, post.body(scene))
    await scene.ada.unfollows(scene.bob)
    assert answer(await send(scene, post, post.body(scene))) == answer(first)
    assert await followed(scene) == 0


async def test_a_replayed_follow_gives_the_first_answer_though_the_followee_is_gone(scene: Scene) -> None:
    post = POSTS["follow"]
    first = await send(scene, post, post.body(scene))
    await scene.bob.leaves()
    assert answer(await send(scene, post, post.body(scene))) == answer(first)


async def test_a_follow_at_the_bound_is_replayed(serve: Serve) -> None:
    site = await serve(max_followees=1)
    ada, bob = await site.register_all("ada", "bob")
    for _ in range(2):
        response = await site.post("/follow/@ada", ada, headers=KEY, json={"followee_id": bob.id})
        assert response.status_code == 204


async def test_the_followee_may_be_named_in_the_query_of_a_replay(scene: Scene) -> None:
    await send(scene, POSTS["follow"], {"followee_id": scene.bob.id})
    params = {"followee_id": scene.bob.id}
    again = await scene.site.post("/follow/@ada", scene.ada, headers=KEY, params=params)
    assert again.status_code == 204


async def test_two_users_may_use_the_same_key(scene: Scene) -> None:
    for who in (scene.ada, scene.bob):
        made = done(await scene.site.post("/tweet", who, headers=KEY, json={"user_name": who.name, "body": "x"}), 201)
        assert made["user_name"] == who.name


async def test_one_key_is_not_for_two_paths(scene: Scene) -> None:
    done(await scene.site.post("/tweet/@ada", scene.ada, headers=KEY, json={"body": "x"}), 201)
    for path, asked in (
        ("/tweet", {"user_name": "ada", "body": "x"}),
        ("/retweet", {"user_name": "ada", "retweet": scene.tweet["id"], "body": "x"}),
        ("/follow/@ada", {"followee_id": scene.bob.id}),
    ):
        refused(await scene.site.post(path, scene.ada, headers=KEY, json=asked), 422, "idempotency_key_reused")
    assert await tweets_made(scene) == 1


async def test_without_a_key_each_request_takes_effect(scene: Scene) -> None:
    made = [await scene.ada.posts("same") for _ in range(2)]
    assert made[0]["id"] != made[1]["id"]


async def test_in_open_mode_replays_take_effect_once_also_where_the_author_is_made(open_mode: Site) -> None:
    asked = {"user_name": "ada", "body": "x"}
    answers = await asyncio.gather(*(open_mode.post("/tweet", headers=KEY, json=asked) for _ in range(4)))
    assert len({answer(response) for response in answers}) == 1
    assert found(await open_mode.get("/user", params={"name": "ada"}))["count_tweets"] == 1


async def test_in_open_mode_a_replayed_registration_has_no_token_either(open_mode: Site) -> None:
    made = [done(await open_mode.post("/user", headers=KEY, json={"name": "ada"}), 201) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0]["token"] is None
