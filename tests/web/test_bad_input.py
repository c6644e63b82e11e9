"""Each bad input has a clear code of its own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.web.site import FORM, JSON, NOBODY, Json, Person, Site, listed, refused, said

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOO_LARGE = b'{"user_name":"ada","body":"' + b"x" * 65_536 + b'"}'


class Town:
    """Two users, a deleted one, and a deleted tweet."""

    def __init__(self, ada: Person, bob: Person, gone: Person, deleted: Json) -> None:
        self.ada = ada
        self.bob = bob
        self.gone = gone
        self.deleted = deleted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(shared: Site) -> AsyncIterator[Town]:
    ada, bob, gone = await shared.register_all("ada", "bob", "gone")
    await gone.leaves()
    deleted = await bob.posts("secret")
    await bob.deletes(deleted)
    yield Town(ada, bob, gone, deleted)


def tweet(**fields: Any) -> Json:
    return {"json": {"user_name": "ada", "body": "x", **fields}}


def raw(body: bytes, headers: dict[str, str] = JSON) -> Json:
    return {"content": body, "headers": headers}


BAD: dict[str, tuple[str, str, Json, tuple[int, str]]] = {
    "following oneself": ("POST", "/follow/@ada", {"json": {"followee_id": "@ADA"}}, (422, "self_follow")),
    "unfollowing oneself": ("DELETE", "/follow/@ada", {"json": {"followee_id": "@ada"}}, (422, "self_follow")),
    "an unknown user's id": ("GET", f"/feed/{NOBODY}", {}, (404, "unknown_user")),
    "an unknown name": ("GET", "/feed/@nobody", {}, (404, "unknown_user")),
    "an unknown name in a query": ("GET", "/user?name=nobody", {}, (404, "unknown_user")),
    "a deleted user": ("GET", "/feed/@gone", {}, (404, "unknown_user")),
    "an unknown followee": ("POST", "/follow/@ada", {"json": {"followee_id": NOBODY}}, (404, "unknown_user")),
    "a deleted followee": ("POST", "/follow/@ada", {"json": {"followee_id": "@gone"}}, (404, "unknown_user")),
    "an unknown author": ("POST", "/tweet", tweet(user_name="nobody"), (404, "unknown_user")),
    "an unknown tweet": ("GET", f"/tweet?tweet_id={NOBODY}", {}, (404, "unknown_tweet")),
    "an unknown chain": ("GET", f"/chain?tweet_id={NOBODY}", {}, (404, "unknown_tweet")),
    "an unknown tweet deleted": ("DELETE", f"/tweet/@ada?tweet_id={NOBODY}", {}, (404, "unknown_tweet")),
    "an unknown tweet retweeted": ("POST", "/retweet", tweet(retweet=NOBODY), (404, "unknown_tweet")),
    "a malformed user id": ("GET", "/feed/ada", {}, (400, "malformed_id")),
    "a number for an id": ("GET", "/feed/1", {}, (400, "malformed_id")),
    "an id without hyphens": ("GET", f"/feed/{NOBODY.replace('-', '')}", {}, (400, "malformed_id")),
    "an id in braces": ("GET", f"/feed/%7B{NOBODY}%7D", {}, (400, "malformed_id")),
    "an id in other digits": ("GET", "/feed/" + NOBODY.replace("0", "\u0660"), {}, (400, "malformed_id")),
    "a malformed tweet id": ("GET", "/tweet?tweet_id=x", {}, (400, "malformed_id")),
    "a malformed followee": ("POST", "/follow/@ada", {"json": {"followee_id": "bob"}}, (400, "malformed_id")),
    "a malformed original": ("POST", "/retweet", tweet(retweet="x"), (400, "malformed_id")),
    "a malformed cursor": ("GET", "/feed/@ada?cursor=x", {}, (400, "malformed_cursor")),
    "a malformed limit": ("GET", "/feed/@ada?limit=x", {}, (400, "malformed_parameter")),
    "a taken name": ("POST", "/user", {"json": {"name": "ADA"}}, (409, "name_taken")),
    "a deleted user's name": ("POST", "/user", {"json": {"name": "gone"}}, (409, "name_taken")),
    "a name that is none": ("POST", "/user", {"json": {"name": "a b"}}, (422, "name_invalid")),
    "a short password": ("POST", "/user", {"json": {"name": "eve", "password": "x"}}, (422, "password_length")),
    "an empty body": ("POST", "/tweet", tweet(body=""), (422, "body_empty")),
    "an empty body of one's own tweet": ("POST", "/tweet/@ada", {"json": {"tweet": ""}}, (422, "body_empty")),
    "a body too long": ("POST", "/tweet", tweet(body="x" * 281), (422, "body_too_long")),
    "a body far too long": ("POST", "/tweet", tweet(body="x" * 60_000), (422, "body_too_long")),
    "a title too long": ("POST", "/tweet", tweet(title="x" * 141), (422, "title_too_long")),
    "a title far too long": ("POST", "/tweet", tweet(title="x" * 60_000), (422, "title_too_long")),
    "a control character": ("POST", "/tweet", tweet(body="\0"), (422, "body_characters")),
    "a count of another's choice": ("POST", "/tweet", tweet(count_retweet=1), (403, "initial_count_refused")),
    "a count below none": ("POST", "/tweet", tweet(count_retweet=-1), (422, "initial_count_range")),
    "a body not UTF-8": ("POST", "/tweet", raw(b'{"user_name":"ada","body":"\xff"}'), (400, "not_utf8")),
    "a form not UTF-8": ("POST", "/tweet", raw(b"user_name=ada&body=%FF", FORM), (400, "not_utf8")),
    "a body not JSON": ("POST", "/tweet", raw(b"{"), (400, "malformed_json")),
    "a body not a form": ("POST", "/tweet", raw(b"user_name", FORM), (400, "malformed_form")),
    "half a surrogate pair": (
        "POST",
        "/tweet",
        raw(b'{"user_name":"ada","body":"\\ud800"}'),
        (400, "malformed_json"),
    ),
    "NaN": ("POST", "/tweet", raw(b'{"user_name":"ada","body":"x","count_retweet":NaN}'), (400, "malformed_json")),
    "duplicate keys": ("POST", "/tweet", raw(b'{"user_name":"ada","body":"x","body":"y"}'), (400, "duplicate_field")),
    "an unknown field": ("POST", "/tweet", tweet(surprise=1), (400, "unknown_field")),
    "a missing field": ("POST", "/tweet", {"json": {"body": "x"}}, (400, "missing_field")),
    "a field of another type": ("POST", "/tweet", tweet(body=5), (400, "wrong_type")),
    "an unknown parameter": ("GET", "/top?surprise=1", {}, (400, "unknown_parameter")),
    "a parameter twice": ("GET", "/top?limit=1&limit=2", {}, (400, "duplicate_parameter")),
    "another media type": (
        "POST",
        "/tweet",
        raw(b"x", {"Content-Type": "text/plain"}),
        (415, "unsupported_media_type"),
    ),
    "a body over 64 KiB": ("POST", "/tweet", raw(TOO_LARGE), (413, "too_large")),
    "another method": ("PUT", "/tweet", {}, (405, "method_not_allowed")),
    "an unknown path": ("GET", "/nowhere", {}, (404, "unknown_path")),
    "a foreign page": (
        "POST",
        "/tweet",
        {**tweet(), "headers": {"Origin": "https://evil.example"}},
        (403, "foreign_origin"),
    ),
    "a name and password that do not match": (
        "POST",
        "/token",
        {"json": {"name": "nobody", "password": "correct horse"}},
        (401, "bad_credentials"),
    ),
    "someone else's name": ("POST", "/tweet", tweet(user_name="bob"), (403, "not_yours")),
    "someone else's path": ("POST", "/tweet/@bob", {"json": {"tweet": "x"}}, (403, "not_yours")),
    "someone else's follows": ("POST", "/follow/@bob", {"json": {"followee_id": "@ada"}}, (403, "not_yours")),
    "someone else's account": ("DELETE", "/user?user_id=@bob", {}, (403, "not_yours")),
}


@pytest.mark.parametrize("bad", BAD)
async def test_bad_input_is_refused_with_a_code_of_its_own(shared: Site, town: Town, bad: str) -> None:
    method, path, sent, answer = BAD[bad]
    assert said(await shared.ask(method, path, town.ada, **sent)) == answer


async def test_a_deleted_tweet_is_not_shown_nor_retweeted(shared: Site, town: Town) -> None:
    deleted = town.deleted["id"]
    refused(await shared.get("/tweet", params={"tweet_id": deleted}), 404, "deleted_tweet")
    refused(await shared.get("/chain", params={"tweet_id": deleted}), 404, "deleted_tweet")
    refused(await shared.post("/retweet", town.ada, **tweet(retweet=deleted)), 404, "deleted_tweet")


async def test_a_missing_and_a_wrong_token_are_told_apart(shared: Site, town: Town) -> None:
    refused(await shared.post("/tweet", **tweet()), 401, "token_missing")
    refused(await shared.post("/tweet", town.gone, **tweet()), 401, "token_invalid")
    refused(await shared.post("/tweet", town.bob, **tweet()), 403, "not_yours")


async def test_nothing_of_all_this_was_done(shared: Site, town: Town) -> None:
    for method, path, sent, _ in BAD.values():
        await shared.ask(method, path, town.ada, **sent)
    assert listed(await shared.get("/top")) == []
    assert listed(await shared.get("/follow/@ada")) == listed(await shared.get("/followers/@ada")) == []
    refused(await shared.get("/user", params={"name": "eve"}), 404, "unknown_user")
    assert (await shared.get("/user", params={"name": "bob"})).status_code == 200
