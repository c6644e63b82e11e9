"""Background jobs, and their owner."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

Job = Callable[[], Awaitable[None]]
"""A job that never ends by itself."""


class RunJobs(Protocol):
    """Owns jobs."""

    async def __call__(self, jobs: Mapping[str, Job], /) -> None:
        """Run all of these side by side, by their names, until cancelled. One that ends is started again."""
        ...
