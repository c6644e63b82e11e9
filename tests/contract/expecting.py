"""Ways of asking that several suites share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest

from rookery.domain.errors import Failure, Unavailable

T = TypeVar("T")


@contextmanager
def refused(kind: type[Failure], code: str) -> Iterator[None]:
    """What happens inside is refused with just this kind and code."""
    with pytest.raises(Failure) as caught:
        yield
    assert (type(caught.value), caught.value.code) == (kind, code)


@contextmanager
def unavailable(code: str = "store_unavailable") -> Iterator[None]:
    """What happens inside can't be done now, and the message tells nothing of files and queries."""
    with pytest.raises(Unavailable) as caught:
        yield
    assert caught.value.code == code
    assert (caught.value.retry_after or 0) > 0
    assert not any(tell in caught.value.message for tell in ("/", "SELECT", "INSERT", "sqlite", "SQL"))


async def assert_ends_when_cancelled(ask: Callable[[], Awaitable[object]]) -> None:
    """Whoever asks and asks again ends when he is told to, in whichever moment of it.

    `asyncio.wait_for` of Python 3.11 takes no notice of that when what it waits for was done just then.
    """

    async def go_on() -> None:
        while True:
            await ask()
            await asyncio.sleep(0)

    await ask()  # so that everything is connected
    for steps in range(60):
        task = asyncio.create_task(go_on())
        for _ in range(steps // 2):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=10)
        assert done, f"goes on after it was cancelled in step {steps // 2}"
        assert task.cancelled(), task.exception()


async def in_pages(read: Callable[[T | None, int], Awaitable[Sequence[T]]], limit: int) -> list[T]:
    """A whole list, read page by page: each goes on below the last of the one before, until one is not full."""
    found: list[T] = []
    last: T | None = None
    while True:
        page = await read(last, limit)
        assert len(page) <= limit
        assert not any(item in found for item in page), "what was on an earlier page comes again"
        found += page
        if len(page) < limit:
            return found
        last = page[-1]
