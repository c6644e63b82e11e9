"""Waiting for what happens in the background, with a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(holds: Callable[[], Awaitable[bool]], timeout: float = 10.0) -> None:
    """Ask again and again until it holds."""
    until = time.monotonic() + timeout
    while not await holds():
        assert time.monotonic() < until, f"it did not come to hold within {timeout} s"
        await asyncio.sleep(0.01)
