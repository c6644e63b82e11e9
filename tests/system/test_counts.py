"""Counts along chains: long ones, contended ones, retried ones."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from rookery.client import Client
from tests.contract.adapters.redis import REDIS, redis_access
from tests.serving import running_server
from tests.system.commands import rookery
from tests.system.test_real_input import each

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

CHAIN = 1_000
CROWDED_CHAIN = 1_000 if os.environ.get("TEST_LONG") == "1" else 300
CLIENTS = 200


async def test_a_chain_of_a_thousand_counts_right_at_every_link(tmp_path: Path) -> None:
    with running_server(tmp_path, measured=False) as server:
        async with Client(server.url) as client:
            root = last = await client.post("ada", "first")
            for _ in range(CHAIN):
                last = await client.retweet("ada", last.id)
            chain = [link async for link in client.chain(last.id)]
            assert len(chain) == CHAIN + 1
            assert [link.count_retweet for link in chain] == list(range(CHAIN + 1))
            assert chain[-1].id == root.id
            assert [tweet.id for tweet in await client.top(2)] == [root.id, chain[-2].id]
            # In the middle one goes: all above it lose 1, and none below.
            await client.delete_tweet("@ada", chain[400].id)
            again = [link.count_retweet async for link in client.chain(last.id)]
            assert again == [*range(400), None, *(count - 1 for count in range(401, CHAIN + 1))]


@pytest.mark.parametrize("kind", ["embedded", *REDIS, "redis-store"])
async def test_many_clients_on_the_end_of_a_long_chain_lose_and_double_nothing(tmp_path: Path, kind: str) -> None:
    """Each asks once or more for one retweet of the last link but one that there may be; in short, of the 299th."""
    chance = random.Random(CLIENTS)
    with running_server(tmp_path, *flags_of(kind), measured=False) as server:
        async with Client(server.url) as client:
            last = await client.post("ada", "first")
            for _ in range(CROWDED_CHAIN - 2):
                last = await client.retweet("ada", last.id)

            async def retweet(number: int) -> None:
                asked = [
                    client.retweet(f"user{number}", last.id, idempotency_key=f"retweet {number}")
                    for _ in range(chance.choice([1, 1, 2, 3]))
                ]
                assert len({tweet.id for tweet in await asyncio.gather(*asked)}) == 1

            await asyncio.gather(*map(retweet, range(CLIENTS)))
            async with asyncio.timeout(30):  # counted within a second, on a machine that does nothing else
                while (await client.tweet(last.id)).count_retweet != CLIENTS:
                    await asyncio.sleep(0.05)
            counts = [link.count_retweet async for link in client.chain(last.id)]
            assert counts == list(range(CLIENTS, CLIENTS + CROWDED_CHAIN - 1))
        recount = rookery("recount", "--data", str(server.data), *server.flags)
        assert recount.stdout.startswith(f"{CLIENTS + CROWDED_CHAIN - 1:,} tweets, 0 were wrong")


def flags_of(kind: str) -> list[str]:
    """A server with these parts, and nobody else's tweets."""
    if kind == "embedded":
        return []
    servers = ",".join(redis_access("redis" if kind == "redis-store" else kind).servers)
    keyspace = f"counts_{os.urandom(4).hex()}"
    flags = ["--ranking", "redis", "--ranking-servers", servers, "--ranking-keyspace", keyspace]
    if kind == "redis-store":
        flags += ["--store", "redis", "--store-servers", servers, "--store-keyspace", keyspace]
    return flags


async def test_a_replay_at_the_same_moment_counts_once(tmp_path: Path) -> None:
    with running_server(tmp_path, measured=False) as server:
        async with Client(server.url) as client:
            root = await client.post("ada", "first")
            made = await asyncio.gather(
                *(client.retweet("bob", root.id, idempotency_key="the same") for _ in range(50))
            )
            assert len({tweet.id for tweet in made}) == 1
            assert (await client.tweet(root.id)).count_retweet == 1


async def test_everyone_can_retweet_while_others_delete(tmp_path: Path) -> None:
    with running_server(tmp_path, measured=False) as server:
        async with Client(server.url) as client:
            root = await client.post("ada", "first")

            async def retweet_and_maybe_delete(number: int) -> None:
                tweet = await client.retweet(f"user{number}", root.id)
                if number % 2:
                    await client.delete_tweet(f"@user{number}", tweet.id)

            await each(((number,) for number in range(100)), retweet_and_maybe_delete)
            assert (await client.tweet(root.id)).count_retweet == 50
