"""Servers and clients that several files of tests share."""

from collections.abc import AsyncIterator, Iterator

import pytest

from rookery.client import Client
from tests.serving import Server, running_server
from tests.system.clients import Pauses


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture(scope="module")
def token_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("token"), "--auth", "token") as server:
        yield server


@pytest.fixture
async def client(open_server: Server) -> AsyncIterator[Client]:
    async with Client(open_server.url) as client:
        yield client


@pytest.fixture
async def visitor(token_server: Server) -> AsyncIterator[Client]:
    async with Client(token_server.url) as client:
        yield client


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()
