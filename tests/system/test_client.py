"""The client against a real server: what people do, lists, refusals, and the page that documents it."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rookery.client import Client, RookeryError
from tests.faults import OK, Proxy, Scripted, answer
from tests.serving import Server
from tests.system.clients import Pauses, new_name, told

DOCS = Path(__file__).parents[2] / "docs" / "client.md"


# What people do


async def test_a_user_lives_a_whole_life_through_it(visitor: Client) -> None:
    ada_name, bob_name = new_name(), new_name()
    made = await visitor.register(ada_name, "correct horse", "Ada Lovelace")
    ada = visitor.as_user(made.token)
    bob = visitor.as_user((await visitor.register(bob_name)).token)
    assert (await visitor.user(made.user_id)).display_name == "Ada Lovelace"

    await bob.follow(f"@{bob_name}", made.user_id)
    tweet = await ada.post(ada_name, "Hello, world", "Greeting")
    second = await ada.post_as(made.user_id, "And again")
    retweet = await bob.retweet(bob_name, tweet.id, "Look")

    assert (tweet.title, tweet.body, tweet.user_name) == ("Greeting", "Hello, world", ada_name)
    assert [each.id async for each in bob.feed(f"@{bob_name}")] == [second.id, tweet.id]
    assert (await visitor.tweet(tweet.id)).count_retweet == 1
    assert [each.id async for each in visitor.chain(retweet.id)] == [retweet.id, tweet.id]
    assert (await visitor.top(1))[0].id == tweet.id
    bare = await bob.retweet(bob_name, second.id)
    assert await bob.retweet(bob_name, second.id) == bare
    assert (await visitor.tweet(second.id)).count_retweet == 1
    await bob.delete_tweet(f"@{bob_name}", bare.id)
    assert [each.name async for each in visitor.followees(f"@{bob_name}")] == [ada_name]
    assert [each.name async for each in visitor.followers(made.user_id)] == [bob_name]

    await ada.delete_tweet(made.user_id, tweet.id)
    assert [each.id async for each in visitor.tweets(made.user_id)] == [second.id]
    assert [each.deleted async for each in visitor.chain(retweet.id)] == [False, True]
    await bob.unfollow(f"@{bob_name}", made.user_id)
    assert [each async for each in bob.feed(f"@{bob_name}")] == []
    await ada.delete_user(made.user_id)
    with pytest.raises(RookeryError, match="There is no such user"):
        await visitor.user(made.user_id)


async def test_a_token_is_good_from_signing_in_to_signing_out(visitor: Client) -> None:
    name = new_name()
    await visitor.register(name, "correct horse")
    me = visitor.as_user(await visitor.sign_in(name, "correct horse"))
    await me.post(name, "In")
    await me.sign_out()
    with pytest.raises(RookeryError) as caught:
        await me.post(name, "Out")
    assert (caught.value.status, caught.value.code) == (401, "token_invalid")


async def test_all_tokens_end_at_once_and_all_but_one_with_a_new_password(visitor: Client) -> None:
    name = new_name()
    first = visitor.as_user((await visitor.register(name, "correct horse")).token)
    second = visitor.as_user(await visitor.sign_in(name, "correct horse"))
    await second.change_password("correct horse", "battery staple")
    with pytest.raises(RookeryError, match="token_invalid"):
        await first.post(name, "By the first")
    await second.post(name, "By the second")
    third = visitor.as_user(await visitor.sign_in(name, "battery staple"))
    await third.sign_out(everywhere=True)
    for ended in (second, third):
        with pytest.raises(RookeryError, match="token_invalid"):
            await ended.post(name, "Out")


async def test_in_open_mode_a_post_makes_its_author_and_may_start_from_any_count(client: Client) -> None:
    name = new_name()
    tweet = await client.post(name, "Hello", count_retweet=7)
    assert (await client.retweet(name, tweet.id, count_retweet=3)).count_retweet == 3
    assert (await client.tweet(tweet.id)).count_retweet == 8
    assert (await client.register(new_name())).token is None


async def test_the_state_of_the_server_is_told(client: Client) -> None:
    status = await client.status()
    assert (status.ready, status.store, status.ranking) == (True, "ok", "ok")


async def test_clients_of_many_users_share_their_connections(open_server: Server) -> None:
    proxy = Proxy(open_server.port, losing=0)
    async with proxy.open(), Client(proxy.url) as client:
        for token in ("one", "two", None):
            async with client.as_user(token) as other:
                await other.status()
        await client.status()
    assert proxy.connections == 1


async def test_many_tasks_use_one_client_at_once(client: Client) -> None:
    name = new_name()
    await client.register(name)
    bodies = {f"Tweet {number}" for number in range(100)}
    await asyncio.gather(*(client.post(name, body) for body in bodies))
    assert {tweet.body async for tweet in client.tweets(f"@{name}")} == bodies


# Lists


async def test_every_list_is_gone_through_page_by_page(client: Client) -> None:
    reader, *authors = [new_name() for _ in range(6)]
    await client.register(reader)
    tweet_id = None
    for author in authors:
        tweet = await (client.retweet(author, tweet_id) if tweet_id else client.post(author, "First"))
        tweet_id = tweet.id
        await client.follow(f"@{reader}", f"@{author}")
        await client.follow(f"@{author}", f"@{reader}")
        await client.post(reader, f"I follow {author}")
    assert tweet_id
    newest_first = authors[::-1]
    me = f"@{reader}"
    for limit in (1, 2, 5, 100):
        assert [each.name async for each in client.followees(me, limit)] == newest_first
        assert [each.name async for each in client.followers(me, limit)] == newest_first
        assert [each.user_name async for each in client.feed(me, limit)] == newest_first
        assert [each.user_name async for each in client.chain(tweet_id, limit)] == newest_first
        assert [each.body async for each in client.tweets(me, limit)] == [f"I follow {who}" for who in newest_first]
    for page in (
        await client.followees_page(me, 2),
        await client.followers_page(me, 2),
        await client.feed_page(me, 2),
        await client.chain_page(tweet_id, 2),
        await client.tweets_page(me, 2),
    ):
        assert len(page.items) == 2
        assert page.next is not None


async def test_a_page_goes_on_where_the_last_one_ended(client: Client) -> None:
    name = new_name()
    tweets = [await client.post(name, f"Tweet {number}") for number in range(5)][::-1]
    first = await client.tweets_page(f"@{name}", 2)
    second = await client.tweets_page(f"@{name}", 2, first.next)
    third = await client.tweets_page(f"@{name}", 2, second.next)
    assert first.items + second.items + third.items == tweets
    assert third.next is None


async def test_a_page_is_fetched_only_when_it_is_come_to(client: Client) -> None:
    name = new_name()
    oldest, *_, newest = [await client.post(name, f"Tweet {number}") for number in range(4)]
    seen = []
    async for tweet in client.tweets(f"@{name}", limit=2):
        if tweet.id == newest.id:
            await client.delete_tweet(f"@{name}", oldest.id)
        seen.append(tweet.body)
    assert seen == ["Tweet 3", "Tweet 2", "Tweet 1"]


async def test_a_list_is_not_followed_to_another_server(pauses: Pauses) -> None:
    foreign = Scripted(OK)
    async with foreign.open():
        for link in (f"{foreign.url}/api/v1/feed/@ada", foreign.url.removeprefix("http:"), "ftp://127.0.0.1/"):
            page = answer(200, [], Link=f'<{link}>; rel="next"')
            async with told(pauses.retries(), page) as (client, _):
                with pytest.raises(RookeryError) as caught:
                    [each async for each in client.as_user("secret").feed("@ada")]
                assert caught.value.code == "foreign_link"
    assert foreign.asked == [], "the token stays here"


# Refusals


async def test_a_refusal_is_told_at_once_with_its_code(open_server: Server, pauses: Pauses) -> None:
    async with Client(open_server.url, retries=pauses.retries()) as client:
        name = (await client.register(new_name())).name
        with pytest.raises(RookeryError) as caught:
            await client.user("@nobody_here")
        error = caught.value
        assert (error.status, error.code, error.detail) == (404, "unknown_user", "There is no such user.")
        assert error.retry_after is None
        assert str(error) == "There is no such user. [404 unknown_user]"
        with pytest.raises(RookeryError, match="self_follow"):
            await client.follow(f"@{name}", f"@{name}")
    assert pauses == []


@pytest.mark.parametrize("ref", ["..", ".", "nonsense", "@no/../body", "@%2e", "ä", "a?b", "a#b"])
async def test_an_odd_reference_reaches_the_path_it_was_meant_for(client: Client, ref: str) -> None:
    with pytest.raises(RookeryError) as caught:
        await client.post_as(ref, "Hello")
    assert caught.value.code in ("malformed_id", "unknown_user", "unknown_path")


async def test_an_answer_that_is_no_problem_document_is_an_error_with_its_status(pauses: Pauses) -> None:
    page = answer(500, b"<h1>Oops</h1>", "text/html")
    torn = answer(500, b"{", "application/problem+json; charset=utf-8")
    elsewhere = answer(302, b"", Location="/api/v1/top")
    async with told(pauses.retries(), page, torn, elsewhere) as (client, server):
        for code in ("http_500", "http_500", "http_302"):
            with pytest.raises(RookeryError) as caught:
                await client.top()
            assert caught.value.code == code
    assert len(server.asked) == 3
    assert pauses == []


@pytest.mark.parametrize("body", [b"[", b"{}", b'[{"id": 1}]', b'["\xff"]', b""])
async def test_an_answer_that_holds_something_else_is_an_error(body: bytes, pauses: Pauses) -> None:
    async with told(pauses.retries(), answer(200, body)) as (client, _):
        with pytest.raises(RookeryError) as caught:
            await client.top()
    assert (caught.value.status, caught.value.code) == (200, "unreadable_answer")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:5000", "ftp://host", "http://", "http://host/api/v1", "http://u:p@host", "http://h?q", "http://h#f"],
)
def test_a_base_url_is_an_origin(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Client(url)


# The page


BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", DOCS.read_text(), re.DOTALL)


def test_the_page_has_examples() -> None:
    assert len(BLOCKS) == DOCS.read_text().count("```python")
    assert BLOCKS


@pytest.mark.parametrize(("program", "shown"), BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_an_example_in_the_docs_runs_and_prints_what_is_shown(program: str, shown: str, token_server: Server) -> None:
    assert "http://127.0.0.1:5000" in program
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("http://127.0.0.1:5000", token_server.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == shown
