"""The server killed again and again while people post: what was acknowledged is there, once."""

import asyncio
import os
import random
import sqlite3
from collections import Counter
from pathlib import Path

import httpx
import pytest

from rookery.client import Client, RookeryError
from tests.serving import Server
from tests.system.commands import database, rookery

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
KILLS = 20 if LONG else 10
CLIENTS = 64


async def test_no_acknowledged_tweet_is_lost_or_doubled(tmp_path: Path) -> None:
    """64 clients post and retweet; each text is its own, and each request is retried under its key until answered."""
    server = Server(tmp_path / "data", measured=False)
    server.start()
    acknowledged: dict[str, str] = {}
    sent = Counter[int]()
    stop = asyncio.Event()
    async with httpx.AsyncClient(timeout=5) as http:

        async def post_on(number: int) -> None:
            while not stop.is_set():
                body = f"{number}: {sent[number]}"
                sent[number] += 1
                form = {"user_name": f"user{number}", "body": body}
                while not stop.is_set():
                    try:
                        answer = await http.post(f"{server.url}/tweet", data=form, headers={"Idempotency-Key": body})
                    except httpx.HTTPError:
                        await asyncio.sleep(0.02)  # until it is back
                        continue
                    assert answer.status_code == 201, answer.text
                    acknowledged[body] = answer.json()["id"]
                    break

        workers = [asyncio.create_task(post_on(number)) for number in range(CLIENTS)]
        chance = random.Random(3)
        for _ in range(KILLS):
            before = len(acknowledged)
            enough = before + chance.randint(20, 300)
            async with asyncio.timeout(60):
                while len(acknowledged) < enough:
                    await asyncio.sleep(0.005)
            server.kill()
            await asyncio.to_thread(server.start, server.port)
        stop.set()
        await asyncio.gather(*workers)

    async with Client(server.url) as client:
        found: dict[str, str] = {}
        for number in range(CLIENTS):
            async for tweet in client.tweets(f"@user{number}"):
                assert tweet.body not in found, "a tweet is there twice"
                found[tweet.body] = str(tweet.id)
    assert {body: found.get(body) for body in acknowledged} == acknowledged
    server.stop()
    with sqlite3.connect(database(server.data)) as sql:
        assert sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert " 0 were wrong" in rookery("recount", "--data", str(server.data)).stdout


async def test_counts_survive_kills(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", measured=False)
    server.start()
    async with Client(server.url) as client:
        root = await client.post("ada", "first")
    done = 0
    for _ in range(5 if LONG else 3):
        async with Client(server.url) as client:

            async def retweet_until_killed(client: Client) -> int:
                counted = 0
                try:
                    while True:
                        await client.retweet("bob", root.id, idempotency_key=None)
                        counted += 1
                except RookeryError:
                    return counted

            tasks = [asyncio.create_task(retweet_until_killed(client)) for _ in range(8)]
            async with asyncio.timeout(30):
                while (await client.tweet(root.id)).count_retweet == done:
                    await asyncio.sleep(0.005)
            server.kill()
            acknowledged = sum(await asyncio.gather(*tasks))
        server.start()
        async with Client(server.url) as client:
            count = (await client.tweet(root.id)).count_retweet
            live = len([tweet async for tweet in client.tweets("@bob")])
        assert count == live
        assert live >= done + acknowledged
        done = live
    server.stop()
    assert " 0 were wrong" in rookery("recount", "--data", str(server.data)).stdout
