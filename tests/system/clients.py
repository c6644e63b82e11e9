"""Clients whose waits take no time, of servers that fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from rookery.client import Client, Retries, RookeryError
from rookery.domain.tweets import Tweet
from tests.faults import Proxy, Scripted
from tests.serving import Server

VOUCHED_SECONDS = 60.0
"""Until a server that started, or whose Redis did, vouches for all counts: it tells what was not told first."""


async def leading(client: Client, limit: int) -> list[Tweet]:
    """The top list, as soon as the ranking is vouched for: until then it is 503."""
    async with asyncio.timeout(VOUCHED_SECONDS):
        while True:
            try:
                return await client.top(limit)
            except RookeryError as refused:
                if refused.code != "ranking_unavailable":
                    raise
                await asyncio.sleep(0.1)


def new_name() -> str:
    return f"u{uuid4().hex[:20]}"


class Pauses(list[float]):
    """Stands for sleeping: what was to be waited is written down, and no time goes by."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)

    def retries(self, **options: float) -> Retries:
        settings: dict[str, float] = {"total": 1_000_000.0} | options
        return Retries(tries=int(settings.pop("tries", 5)), sleep=self.sleep, chance=lambda: 1.0, **settings)


@asynccontextmanager
async def losing(server: Server, answers: int = 1, token: str | None = None) -> AsyncIterator[Client]:
    """A client of a server behind a proxy that loses its first answers, all of them in the end."""
    pauses = Pauses()
    proxy = Proxy(server.port, answers)
    async with proxy.open(), Client(proxy.url, token=token, retries=pauses.retries()) as client:
        yield client
    assert proxy.losing == 0, "nothing was lost, so nothing was shown"
    assert len(pauses) == answers, "each lost answer was waited for once"


@asynccontextmanager
async def told(retries: Retries, *answers: bytes, timeout: float = 10.0) -> AsyncIterator[tuple[Client, Scripted]]:
    server = Scripted(*answers)
    async with server.open(), Client(server.url, retries=retries, timeout=timeout) as client:
        yield client, server
