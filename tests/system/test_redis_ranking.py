"""A server whose retweets are counted by Redis: it goes on while Redis is away, and the counts are right afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.servers import cut_back, log_sizes, running
from tests.serving import Server, running_server
from tests.system.commands import rookery
from tools.servers import Redis

SWEPT_SECONDS = 30
"""Ten until a promise is overdue, and what a busy machine may need besides."""


@pytest.fixture(scope="module")
def shared_redis() -> Redis:
    return running(Redis, fsync="always")


@pytest.fixture
def counting(shared_redis: Redis) -> Iterator[Redis]:
    with redis.Redis(port=shared_redis.port) as connection:
        connection.flushall()
        connection.function_flush()
    yield shared_redis
    if not shared_redis.is_running:
        shared_redis.start()


@pytest.fixture
def server(tmp_path: Path, counting: Redis) -> Iterator[Server]:
    with running_server(tmp_path, "--ranking", "redis", "--ranking-servers", counting.address) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as http:
        yield http


async def post(http: httpx.AsyncClient, retweet: str | None = None) -> str:
    body: dict[str, Any] = {"user_name": "ada", "body": "x"}
    path = "/tweet"
    if retweet is not None:
        body["retweet"], path = retweet, "/retweet"
    answer = await http.post(path, json=body)
    assert answer.status_code == 201, answer.text
    tweet: str = answer.json()["id"]
    return tweet


async def counts(http: httpx.AsyncClient, tweets: list[str]) -> list[int | None]:
    return [(await http.get("/tweet", params={"tweet_id": tweet})).json()["count_retweet"] for tweet in tweets]


async def until_counts(http: httpx.AsyncClient, tweets: list[str], want: list[int]) -> None:
    """Until the counts are right. Before that they may be unknown, one by one, but never wrong."""
    async with asyncio.timeout(SWEPT_SECONDS):
        while (found := await counts(http, tweets)) != want:
            assert all(count in (None, right) for count, right in zip(found, want, strict=True)), found
            await expect_no_wrong_top(http, dict(zip(tweets, want, strict=True)))
            await asyncio.sleep(0.01)
    await expect_no_wrong_top(http, dict(zip(tweets, want, strict=True)))


async def expect_no_wrong_top(http: httpx.AsyncClient, want: dict[str, int]) -> None:
    """The top list is right, or nobody is told it."""
    answer = await http.get("/top?limit=100")
    if answer.status_code == 503:
        assert answer.json()["code"] == "ranking_unavailable"
    else:
        found = [(tweet["id"], tweet["count_retweet"]) for tweet in answer.json()]
        assert found == sorted(want.items(), key=lambda item: (item[1], item[0]), reverse=True)


async def chain(http: httpx.AsyncClient, length: int) -> list[str]:
    tweets = [await post(http)]
    while len(tweets) < length:
        tweets.append(await post(http, tweets[-1]))
    return tweets


async def test_retweets_are_counted_along_the_chain_and_lead_the_top(http: httpx.AsyncClient) -> None:
    tweets = await chain(http, 5)
    assert await counts(http, tweets) == [4, 3, 2, 1, 0]
    assert [tweet["id"] for tweet in (await http.get("/top")).json()] == tweets
    assert (await http.delete(f"/tweet/@ada?tweet_id={tweets[2]}")).status_code == 204
    assert await counts(http, [*tweets[:2], *tweets[3:]]) == [3, 2, 1, 0]
    assert (await http.get("/status")).json()["ranking"] == "ok"


async def test_tweets_go_on_without_it_and_what_was_missed_is_counted(http: httpx.AsyncClient, counting: Redis) -> None:
    tweets = await chain(http, 3)
    counting.kill()
    assert await counts(http, tweets) == [None] * 3
    answer = await http.get("/top")
    assert (answer.status_code, answer.json()["code"]) == (503, "ranking_unavailable")
    assert (await http.get("/")).status_code == 200
    late = await post(http, tweets[-1])
    latest = await post(http, late)
    assert (await http.delete(f"/tweet/@ada?tweet_id={tweets[1]}")).status_code == 204
    assert (await http.get("/readyz")).status_code == 200, "without the ranking all else goes on"
    counting.start()
    await until_counts(http, [tweets[0], tweets[2], late, latest], [3, 2, 1, 0])


async def test_a_server_that_starts_beside_a_new_run_shows_no_wrong_count(
    http: httpx.AsyncClient, server: Server, counting: Redis
) -> None:
    tweets = await chain(http, 3)
    sizes = log_sizes(counting)
    late = [await post(http, tweets[-1]) for _ in range(3)]
    server.kill()
    cut_back(counting, sizes)
    server.start(server.port)
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as again:
        await until_counts(again, [*tweets, *late], [5, 4, 3, 0, 0, 0])


async def test_a_redis_that_is_full_is_as_one_that_is_away(http: httpx.AsyncClient, counting: Redis) -> None:
    tweets = await chain(http, 2)
    with redis.Redis(port=counting.port) as connection:
        connection.config_set("maxmemory", 1)
        late = await post(http, tweets[-1])
        assert (await http.get("/feed/@ada")).status_code == 200
        connection.config_set("maxmemory", 0)
    await until_counts(http, [*tweets, late], [2, 1, 0])


async def test_a_ranking_that_was_emptied_is_built_anew_while_serving(
    http: httpx.AsyncClient, server: Server, counting: Redis
) -> None:
    tweets = await chain(http, 20)
    flags = ("--data", str(server.data), *server.flags)
    assert "20 tweets, 0 were wrong" in rookery("recount", *flags).stdout
    with redis.Redis(port=counting.port) as connection:
        connection.flushall()
        connection.function_flush()
    assert await counts(http, tweets) == [0] * 20
    more = asyncio.create_task(chain(http, 10))
    done = await asyncio.to_thread(rookery, "recount", *flags)
    assert "were wrong and are right now" in done.stdout
    other = await more
    assert await counts(http, tweets) == list(range(19, -1, -1))
    assert await counts(http, other) == list(range(9, -1, -1))
    assert "30 tweets, 0 were wrong" in rookery("recount", *flags).stdout


async def test_counts_that_the_append_only_file_lost_are_told_again(
    http: httpx.AsyncClient, server: Server, counting: Redis
) -> None:
    tweets = await chain(http, 3)
    sizes = log_sizes(counting)
    late = [await post(http, tweets[-1]) for _ in range(5)]
    assert (await http.delete(f"/tweet/@ada?tweet_id={tweets[1]}")).status_code == 204
    assert await counts(http, [tweets[0], tweets[2], *late]) == [6, 5, *[0] * 5]
    cut_back(counting, sizes)
    await until_counts(http, [tweets[0], tweets[2], *late], [6, 5, *[0] * 5])
    assert "8 tweets, 0 were wrong" in rookery("recount", "--data", str(server.data), *server.flags).stdout


async def test_loaded_tweets_that_the_append_only_file_lost_are_told_again(tmp_path: Path, counting: Redis) -> None:
    file = tmp_path / "tweets.csv"
    file.write_text("created_at,user_name,body,shared\n2020-01-02,ada,first,7\n2020-01-03,ada,second,5\n")
    flags = ("--ranking", "redis", "--ranking-servers", counting.address)
    with redis.Redis(port=counting.port) as connection:
        connection.set("something", "that the file begins with")
    sizes = log_sizes(counting)
    rookery("load", "tweets", str(file), "--count-column", "shared", "--data", str(tmp_path / "data"), *flags)
    cut_back(counting, sizes)
    with running_server(tmp_path, *flags) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=10) as http:
            tweets = [tweet["id"] for tweet in (await http.get("/tweet/@ada")).json()]
            await until_counts(http, tweets, [5, 7])


def test_a_redis_without_a_log_is_warned_of(server: Server, counting: Redis) -> None:
    assert "no append-only file" not in server.out()
    with redis.Redis(port=counting.port) as connection:
        connection.config_set("appendonly", "no")
        server.stop()
        server.start()
        limit = time.monotonic() + 30
        while "no append-only file" not in server.out():
            assert time.monotonic() < limit
            time.sleep(0.05)
        connection.config_set("appendonly", "yes")
