"""Servers to ask: `site` is one as it comes, `serve` makes any."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from rookery.adapters.system import SystemClock
from tests.web.listening import Server, serving
from tests.web.site import Site, open_site

Serve = Callable[..., Awaitable[Site]]


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """Printing the log line of each request takes longer than the request. `capture_logs` hears them all the same."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Run a server with these settings, each on a folder of its own, until the test ends."""
    async with AsyncExitStack() as stack:
        folders = iter(range(100))

        async def start(**settings: Any) -> Site:
            return await stack.enter_async_context(open_site(tmp_path / f"data{next(folders)}", **settings))

        yield start


@pytest.fixture
async def site(serve: Serve) -> Site:
    """A server as it comes, but for the rate limits."""
    return await serve()


@pytest.fixture
async def open_mode(serve: Serve) -> Site:
    """A server that takes no tokens."""
    return await serve(auth="open")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One server for all tests of a file, which has to say `pytest.mark.asyncio(loop_scope="module")`.

    To make one takes a fifth of a second, and a request that is refused leaves no trace.
    """
    async with open_site(tmp_path_factory.mktemp("shared")) as running:
        yield running


class Clock:
    """The seconds that the server goes by. They stand still, so that no test falls across the end of a minute."""

    def __init__(self) -> None:
        self.now = 6_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    held = Clock()
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: held.now)
    return held


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server
