"""Redis as the store, stopped under load: what was acknowledged is in the followers' feeds as soon as it is back."""

import asyncio
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from rookery.client import Client, Retries, RookeryError
from tests.servers import started
from tests.serving import running_server
from tools.servers import Redis

_log = logging.getLogger(__name__)

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

AWAY_SECONDS = 36.0 if os.environ.get("TEST_LONG") == "1" else 8.0
AUTHORS, READERS = 6, 12
DONE_SECONDS = 5.0
"""After the store's return. It is one on a quiet machine; what waits ever longer for itself comes after seven."""


async def post_on(client: Client, number: int, acknowledged: set[UUID], stopped: asyncio.Event) -> None:
    """Post until told to stop, each tweet under a key of its own, again and again until it is answered."""
    sent = 0
    while not stopped.is_set():
        sent += 1
        while not stopped.is_set():
            with suppress(RookeryError):
                body = f"{number}: {sent}"
                acknowledged.add((await client.post(f"author{number}", body, idempotency_key=body)).id)
                break
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.02)


async def feed_of(client: Client, reader: int) -> set[UUID]:
    return {tweet.id async for tweet in client.feed(f"@reader{reader}")}


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
async def test_tweets_are_in_feeds_soon_after_the_store_is_back(tmp_path: Path, is_killed: bool) -> None:
    with started(Redis(tmp_path / "redis", fsync="always")) as keeping:
        flags = ["--store", "redis", "--store-servers", keeping.address, "--rate-limit", "off"]
        with running_server(tmp_path, *flags, measured=False) as server:
            async with Client(server.url, retries=Retries(tries=1)) as client:
                for reader in range(READERS):
                    await client.register(f"reader{reader}")
                for author in range(AUTHORS):
                    await client.register(f"author{author}")
                    for reader in range(READERS):
                        await client.follow(f"@reader{reader}", f"@author{author}")
                    await client.post(f"author{author}", "before")
                for reader in range(READERS):
                    assert len(await feed_of(client, reader)) == AUTHORS
                acknowledged: set[UUID] = set()
                stopped = asyncio.Event()
                posting = [
                    asyncio.create_task(post_on(client, author, acknowledged, stopped)) for author in range(AUTHORS)
                ]
                await asyncio.sleep(1)  # under way
                if is_killed:
                    keeping.kill()
                    await asyncio.sleep(AWAY_SECONDS)
                    await asyncio.to_thread(keeping.start)
                else:
                    keeping.pause()
                    await asyncio.sleep(AWAY_SECONDS)
                    keeping.resume()
                stopped.set()
                back = time.monotonic()
                await asyncio.gather(*posting)
                assert acknowledged
                for reader in range(READERS):
                    missing = acknowledged
                    while missing:
                        with suppress(RookeryError):
                            missing = acknowledged - await feed_of(client, reader)
                        assert time.monotonic() - back < DONE_SECONDS, f"{len(missing)} of {len(acknowledged)} missing"
                        await asyncio.sleep(0.05)
                _log.info("%d tweets were in the feeds %.1f s after", len(acknowledged), time.monotonic() - back)
