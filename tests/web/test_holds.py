"""No request holds the event loop for more than 20 ms of CPU time: each endpoint and header, with the largest input.

A guard against the next parser that is quadratic. It knows nothing of any parser: routes, fields, parameters and
headers are asked of the application. `DATA` adds what is costly to answer rather than to read.
"""

import asyncio
import gc
import os
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable, Iterator
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import pytest

from rookery.domain.ids import TweetId
from rookery.domain.users import UserRecord
from rookery.services.callers import ANYONE
from rookery.services.tweets import Draft
from rookery.web.options import Services
from tests.web.holding import LIMIT_SECONDS, PROXY, Ask, Held, holding
from tests.web.largest import (
    PROXIED,
    headers_read,
    operations,
    with_largest_body,
    with_largest_header,
    with_largest_target,
)

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

LONG = os.environ.get("TEST_LONG") == "1"
WHOLE = {("GET", "/"), ("POST", "/api/v1/tweet/{user_id}")}
"""Endpoints whose requests are all sent in the short form, too; of the others it sends some, the same each time."""
SAMPLE = 8
"""The short form sends one of so many."""
OPERATIONS = operations(everywhere=LONG)
"""The long form asks the aliases and by HEAD, too."""
T = TypeVar("T")
Operation = tuple[str, str, dict[str, Any]]
SCALE = 10 if LONG else 1


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    with holding(tmp_path_factory.mktemp("held") / "data", trusted_proxies=(ip_network(PROXY),)) as server:
        yield server


@pytest.fixture(scope="module")
def auth(held: Held) -> dict[bytes, bytes]:
    """Ada's token. Bob is there to be followed."""
    ada = held.run(lambda: held.services.accounts.register(ANYONE, "ada", None))
    held.run(lambda: held.services.accounts.register(ANYONE, "bob", None))
    return {b"authorization": f"Bearer {ada.token}".encode()}


def require_short(found: Iterable[tuple[str, float]]) -> None:
    long = [f"{name}: {cost * 1000:.0f} ms" for name, cost in found if cost > LIMIT_SECONDS]
    assert not long, "\n".join(long)


def chosen(operation: Operation, asks: Iterable[T]) -> Iterator[T]:
    """The requests of an endpoint that this form sends."""
    lot = Random(shown(operation))
    whole = LONG or operation[:2] in WHOLE
    return (ask for ask in asks if lot.randrange(SAMPLE) == 0 or whole)


def shown(operation: Operation) -> str:
    return f"{operation[0]} {operation[1]}"


def test_the_headers_that_are_read_are_found_in_the_source() -> None:
    known = {b"accept", b"authorization", b"content-type", b"host", b"idempotency-key", b"origin", b"x-forwarded-for"}
    assert known <= headers_read()


@pytest.mark.parametrize("operation", OPERATIONS, ids=shown)
def test_no_header_holds_the_loop(held: Held, auth: dict[bytes, bytes], operation: Operation) -> None:
    sent = {} if operation[1].endswith("/token") else auth  # it would end with the first
    require_short(
        (ask.name, held.cost(ask, PROXY if name in PROXIED else "127.0.0.1"))
        for name, ask in chosen(operation, with_largest_header(*operation, sent))
    )


@pytest.mark.parametrize("operation", OPERATIONS, ids=shown)
def test_no_target_holds_the_loop(held: Held, auth: dict[bytes, bytes], operation: Operation) -> None:
    sent = {} if operation[1].endswith("/token") else auth
    require_short((ask.name, held.cost(ask)) for ask in chosen(operation, with_largest_target(*operation, sent)))


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if "requestBody" in each[2]], ids=shown)
def test_no_body_holds_the_loop(held: Held, auth: dict[bytes, bytes], operation: Operation) -> None:
    require_short((ask.name, held.cost(ask)) for ask in chosen(operation, with_largest_body(*operation, auth)))


def test_no_request_stays_in_memory(held: Held, auth: dict[bytes, bytes]) -> None:
    """However large, wrong and often sent: what is kept of one would be a cheap way to fill the server."""
    lot, ours = Random("stays"), headers_read()
    known = [each for each in OPERATIONS if not each[1].endswith(("/token", "/password"))]
    with_body = [each for each in known if "requestBody" in each[2]]
    asks: list[Ask] = []
    for operation in (*lot.sample(known, SCALE), lot.choice(with_body)):
        read = [ask for name, ask in with_largest_header(*operation, auth) if name in ours]
        asks += lot.sample(read, 6) + lot.sample(list(with_largest_target(*operation, auth)), 2)
        asks += lot.sample(list(with_largest_body(*operation, auth)), 2) if operation in with_body else []
    tracemalloc.start()
    try:
        for ask in asks:
            before = _kept_after(held, ask, 2)
            assert _kept_after(held, ask, 6) - before < 2 * len(ask.sent()), ask.name
    finally:
        tracemalloc.stop()


def _kept_after(held: Held, ask: Ask, times: int) -> int:
    for _ in range(times):
        held.send(ask)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


# --- what is costly to answer ----------------------------------------------------------------------------------------


async def many_followees(services: Services) -> list[str]:
    """A user who follows hundreds of authors: the feed is read by pulling, wherever it goes on."""
    reader = await _user(services, "reader")
    authors = await asyncio.gather(*(_user(services, f"author{number}") for number in range(500 * SCALE)))
    await asyncio.gather(*(services.follows.follow(ANYONE, reader, author, None) for author in authors))
    await asyncio.gather(*(services.tweets.post(ANYONE, author, Draft("", "x")) for author in authors))
    return ["/feed/@reader?limit=100", "/follow/@reader?limit=100", "/user?name=reader"]


async def a_deleted_leader(services: Services) -> list[str]:
    """All that led the top list is of a user who was just deleted."""
    leader, other = await _user(services, "leader"), await _user(services, "other")
    for _ in range(20 * SCALE):
        await asyncio.gather(*(services.tweets.post(ANYONE, leader, Draft("", "x", initial=1_000)) for _ in range(100)))
    await services.tweets.post(ANYONE, other, Draft("", "x", initial=1))
    await services.accounts.delete(ANYONE, leader)
    return ["/top?limit=100", "/top"]


async def long_texts(services: Services) -> list[str]:
    """A page of the longest texts that may be."""
    author = await _user(services, "author")
    text = "👩\u200d👩\u200d👧\u200d👦" * 280
    drafts = [Draft(text[:980], text[:1_960]) for _ in range(101)]
    await asyncio.gather(*(services.tweets.post(ANYONE, author, draft) for draft in drafts))
    return ["/tweet/@author?limit=100", "/top?limit=100"]


async def a_long_chain(services: Services) -> list[str]:
    """Retweets of retweets."""
    author = await _user(services, "chained")
    last: TweetId | None = None
    for _ in range(100 * SCALE):
        entry = await services.tweets.post(ANYONE, author, Draft("", "x", last))
        last = TweetId(UUID(msgspec.json.decode(entry)["id"]).bytes)
    assert last is not None
    return [f"/api/v1/chain?limit=100&tweet_id={UUID(bytes=last)}", f"/tweet?tweet_id={UUID(bytes=last)}"]


DATA: list[Callable[[Services], Awaitable[list[str]]]] = [many_followees, a_deleted_leader, long_texts, a_long_chain]
"""Each makes data and names what to read then. A new kind of costly data is a new function here."""


@pytest.mark.parametrize("make", DATA, ids=lambda make: make.__name__)
def test_no_data_holds_the_loop(tmp_path: Path, make: Callable[[Services], Awaitable[list[str]]]) -> None:
    with holding(tmp_path / "data") as server:
        paths = server.run(lambda: make(server.services))
        require_short(_read(server, [*paths, "/"]))


def _read(server: Held, paths: Iterable[str]) -> Iterator[tuple[str, float]]:
    """What reading costs, and what the page after it does."""
    for first in paths:
        path = first
        while path:
            ask = Ask(path, "GET", path.encode())
            yield path, server.cost(ask)
            status, head, _ = server.send(ask)
            assert status == 200, (path, status)
            path = _next(head)


def _next(head: bytes) -> str:
    after = head.lower().partition(b"\r\nlink: <")[2]
    return head[len(head) - len(after) :].partition(b">")[0].decode() if after else ""


async def _user(services: Services, name: str) -> UserRecord:
    await services.accounts.register(ANYONE, name, None)
    return await services.accounts.find_name(name)
