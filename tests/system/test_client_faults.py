"""The client against real faults: lost answers, restarts, refusals to come back later, and nothing at all."""

import asyncio
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from rookery.client import Client, Retries, RookeryError, RookeryUnreachable
from tests.faults import OK, Proxy, answer, listening, problem
from tests.serving import Server, running_server
from tests.system.clients import Pauses, losing, new_name, told


async def test_a_post_whose_answer_was_lost_takes_effect_once(open_server: Server, client: Client) -> None:
    name = new_name()
    await client.register(name)
    async with losing(open_server, 3) as unlucky:
        tweet = await unlucky.post(name, "Once")
    assert [each async for each in client.tweets(f"@{name}")] == [tweet]


async def test_a_retweet_whose_answer_was_lost_counts_once(open_server: Server, client: Client) -> None:
    tweet = await client.post(new_name(), "Count me")
    async with losing(open_server) as unlucky:
        await unlucky.retweet(new_name(), tweet.id)
    assert (await client.tweet(tweet.id)).count_retweet == 1


async def test_a_registration_whose_answer_was_lost_gives_a_token_that_works(token_server: Server) -> None:
    name = new_name()
    async with losing(token_server) as unlucky:
        made = await unlucky.register(name, "correct horse")
        await unlucky.as_user(made.token).post(name, "Here I am")
    async with losing(token_server) as unlucky:
        token = await unlucky.sign_in(name, "correct horse")
        await unlucky.as_user(token).post(name, "Here I am again")


async def test_following_and_unfollowing_survive_a_lost_answer(open_server: Server, client: Client) -> None:
    reader, author = new_name(), new_name()
    await client.register(reader)
    await client.register(author)
    async with losing(open_server) as unlucky:
        await unlucky.follow(f"@{reader}", f"@{author}")
    assert [each.name async for each in client.followers(f"@{author}")] == [reader]
    async with losing(open_server) as unlucky:
        await unlucky.unfollow(f"@{reader}", f"@{author}")
    assert [each async for each in client.followers(f"@{author}")] == []


async def test_deleting_survives_a_lost_answer(open_server: Server, token_server: Server, client: Client) -> None:
    name = new_name()
    tweet = await client.post(name, "Short-lived")
    async with losing(open_server) as unlucky:
        await unlucky.delete_tweet(f"@{name}", tweet.id)
    async with losing(open_server) as unlucky:
        await unlucky.delete_user(f"@{name}")
    with pytest.raises(RookeryError, match="unknown_user"):
        await client.user(f"@{name}")
    mine = new_name()
    async with Client(token_server.url) as visitor:
        token = (await visitor.register(new_name())).token
        my_token = (await visitor.register(mine)).token
    async with losing(token_server, token=token) as unlucky:
        await unlucky.sign_out()
    async with losing(token_server, token=my_token) as unlucky:
        await unlucky.delete_user(f"@{mine}")


async def test_reading_survives_lost_answers_in_the_middle_of_a_list(open_server: Server, client: Client) -> None:
    name = new_name()
    tweets = [await client.post(name, f"Tweet {number}") for number in range(6)][::-1]
    proxy = Proxy(open_server.port, losing=0)
    seen = []
    async with proxy.open(), Client(proxy.url, retries=Pauses().retries()) as unlucky:
        async for tweet in unlucky.tweets(f"@{name}", limit=2):
            seen.append(tweet)
            proxy.losing = 1
    assert seen == tweets


async def test_a_request_waits_for_a_server_that_was_killed_and_comes_back(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:

        async def bring_back(_: float) -> None:
            if not server.is_running():
                await asyncio.to_thread(server.start, server.port)

        async with Client(server.url, retries=Retries(sleep=bring_back)) as client:
            first = await client.post("ada", "Before")
            server.kill()
            second = await client.post("ada", "After")
            assert [tweet async for tweet in client.tweets("@ada")] == [second, first]


async def test_a_server_that_is_full_is_left_alone_as_long_as_it_asks(tmp_path: Path, pauses: Pauses) -> None:
    with running_server(tmp_path, "--rate-limit", "on", "--rate-limit-address", "3") as server:
        async with Client(server.url, retries=pauses.retries(tries=2)) as client:

            async def ask_on() -> None:
                for _ in range(20):
                    await client.top()

            with pytest.raises(RookeryError) as caught:
                await ask_on()
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 60
    assert pauses
    assert pauses[-1] >= caught.value.retry_after


async def test_a_wait_that_the_server_asks_for_is_kept(pauses: Pauses) -> None:
    busy = problem(503, "store_unavailable", Retry_After="7")
    tweet = {
        "id": str(uuid4()), "user_id": str(uuid4()), "title": "", "body": "Hi", "retweet": None,
        "created_at": "2031-05-04T10:00:00Z", "user_name": "ada", "count_retweet": None,
    }  # fmt: skip
    async with told(pauses.retries(), busy, answer(201, tweet)) as (client, server):
        assert (await client.post("ada", "Hi")).body == "Hi"
    assert pauses == [7.1]
    assert server.asked[0] == server.asked[1], "the same request, under the same key"
    assert server.asked[0].headers["idempotency-key"]


async def test_two_posts_have_two_keys_and_a_key_may_be_given(pauses: Pauses) -> None:
    refused = problem(404, "unknown_user")
    async with told(pauses.retries(), *[refused] * 4) as (client, server):
        for key in (None, None, "my own", ""):
            with pytest.raises(RookeryError):
                await client.post("ada", "Hi", idempotency_key=key)
    first, second, own, empty = [asked.headers["idempotency-key"] for asked in server.asked]
    assert first != second
    assert (own, empty) == ("my own", ""), "what the caller gives is for the server to judge"


async def test_waits_double_and_tries_end(pauses: Pauses) -> None:
    statuses = (503, 429, 502, 504, 503)
    async with told(pauses.retries(), *[answer(status, b"busy", "text/plain") for status in statuses]) as (client, _):
        with pytest.raises(RookeryError) as caught:
            await client.top()
    assert (caught.value.status, caught.value.code) == (503, "http_503")
    assert pauses == [0.1, 0.2, 0.4, 0.8]


async def test_waits_are_spread_by_chance() -> None:
    pauses = Pauses()
    retries = Retries(sleep=pauses.sleep)
    async with told(retries, *[problem(503, "busy")] * 4, OK) as (client, _):
        await client.top()
    assert len(set(pauses)) == 4
    assert all(0 <= pause <= most for pause, most in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True))


async def test_a_wait_never_grows_over_its_bound(pauses: Pauses) -> None:
    async with told(pauses.retries(longest_wait=0.3, tries=6), *[problem(503, "busy")] * 5, OK) as (client, _):
        await client.top()
    assert pauses == [0.1, 0.2, 0.3, 0.3, 0.3]


@pytest.mark.parametrize("bounds", [{"longest_wait": 10.0}, {"total": 10.0}])
async def test_too_long_a_wait_is_not_begun(bounds: dict[str, float], pauses: Pauses) -> None:
    async with told(pauses.retries(**bounds), problem(503, "busy", Retry_After="11")) as (client, server):
        with pytest.raises(RookeryError) as caught:
            await client.top()
    assert (caught.value.code, caught.value.retry_after) == ("busy", 11)
    assert len(server.asked) == 1
    assert pauses == []


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 400, "\u00b2"])
async def test_a_wait_that_cannot_be_read_is_as_none(value: str, pauses: Pauses) -> None:
    async with told(pauses.retries(), problem(503, "busy", Retry_After=value), OK) as (client, _):
        await client.top()
    assert pauses == [0.1]


async def test_a_server_that_never_answers_is_given_up(pauses: Pauses) -> None:
    async with told(pauses.retries(tries=3), timeout=0.1) as (client, server):
        with pytest.raises(RookeryUnreachable) as caught:
            await client.top()
    assert (caught.value.status, caught.value.code) == (0, "unreachable")
    assert len(server.asked) == 3
    async with told(Retries(total=0.2)) as (client, _):
        with pytest.raises(RookeryUnreachable):
            await asyncio.wait_for(client.top(), 10)


async def test_a_server_that_is_not_there_is_given_up(pauses: Pauses) -> None:
    async with listening(lambda *_: asyncio.sleep(0)) as url:
        pass
    async with Client(url, retries=pauses.retries(tries=2)) as client:
        with pytest.raises(RookeryUnreachable, match="There is no answer"):
            await client.status()
    assert len(pauses) == 1


async def test_a_request_that_cannot_be_sent_is_not_tried_again(pauses: Pauses) -> None:
    async with told(pauses.retries(), OK) as (client, server):
        with pytest.raises(httpx.LocalProtocolError):
            await client.as_user("two\nlines").top()
    assert server.asked == []
    assert pauses == []


async def test_a_user_who_never_was_is_not_taken_for_deleted(pauses: Pauses) -> None:
    gone = problem(404, "unknown_user")
    async with told(pauses.retries(), problem(429, "rate_limited"), gone, problem(503, "busy"), gone) as (client, _):
        with pytest.raises(RookeryError, match="unknown_user"):
            await client.delete_user("@ada")
        await client.delete_user("@ada")
    async with told(pauses.retries(), problem(503, "busy"), gone) as (client, _):
        with pytest.raises(RookeryError, match="unknown_user"):
            await client.user("@ada")
