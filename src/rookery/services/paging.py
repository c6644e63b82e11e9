"""Pages that are full while there is more, though some of what was listed is not shown."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Listed = TypeVar("Listed")
Shown = TypeVar("Shown")
Position = TypeVar("Position")

MOST_REFILL = 100
"""Items looked at together at most, to fill a page up: as many as the greatest page has."""


async def full_page(
    limit: int,
    below: Position | None,
    read: Callable[[Position | None, int], Awaitable[Sequence[Listed]]],
    show: Callable[[Sequence[Listed]], Awaitable[Sequence[Shown | None]]],
    position_of: Callable[[Listed], Position],
) -> tuple[list[Shown], Position | None]:
    """The next `limit` shown items below a position, and the position behind them; None when nothing is left to show.

    `read` lists so many items below a position, fewer only at the end. `show` gives None for an item that is not to be
    seen. Where some are not, twice as many are read each time, so that a long run of them takes few rounds.
    """
    items: list[Shown] = []
    want = limit
    while True:
        found = await read(below, want + 1)
        for item, shown in zip(found[:want], await show(found[:want]), strict=True):
            if shown is not None and len(items) == limit:
                return items, below  # read over: it is the next page's
            below = position_of(item)
            if shown is not None:
                items.append(shown)
        if len(found) <= want:
            return items, None
        if len(items) == limit:
            return items, below
        want = max(limit - len(items), min(2 * want, MOST_REFILL))
        await asyncio.sleep(0)
