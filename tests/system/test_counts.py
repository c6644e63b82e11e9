"""Counts along chains: long ones, contended ones, retried ones."""

import asyncio
from pathlib import Path

from rookery.client import Client
from tests.serving import running_server
from tests.system.commands import rookery
from tests.system.test_real_input import each

CHAIN = 1_000
CLIENTS = 200


async def test_a_chain_of_a_thousand_counts_right_at_every_link(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
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


async def test_many_clients_on_one_chain_lose_and_double_nothing(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            root = await client.post("ada", "first")
            middle = await client.retweet("ada", root.id)
            last = await client.retweet("ada", middle.id)

            async def retweet_and_retry(number: int) -> None:
                key = f"retweet {number}"
                first = await client.retweet(f"user{number}", last.id, idempotency_key=key)
                again = await client.retweet(f"user{number}", last.id, idempotency_key=key)
                assert again == first

            await asyncio.gather(*(retweet_and_retry(number) for number in range(CLIENTS)))
            counts = [link.count_retweet async for link in client.chain(last.id)]
            assert counts == [CLIENTS, CLIENTS + 1, CLIENTS + 2]
        recount = rookery("recount", "--data", str(server.data))
        assert recount.stdout.startswith(f"{CLIENTS + 3} tweets, 0 were wrong")


async def test_a_replay_at_the_same_moment_counts_once(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            root = await client.post("ada", "first")
            made = await asyncio.gather(
                *(client.retweet("bob", root.id, idempotency_key="the same") for _ in range(50))
            )
            assert len({tweet.id for tweet in made}) == 1
            assert (await client.tweet(root.id)).count_retweet == 1


async def test_everyone_can_retweet_while_others_delete(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            root = await client.post("ada", "first")

            async def retweet_and_maybe_delete(number: int) -> None:
                tweet = await client.retweet(f"user{number}", root.id)
                if number % 2:
                    await client.delete_tweet(f"@user{number}", tweet.id)

            await each(((number,) for number in range(100)), retweet_and_maybe_delete)
            assert (await client.tweet(root.id)).count_retweet == 50
