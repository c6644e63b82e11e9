"""The whole document against a running server: whatever fits it is taken, whatever does not is refused, nothing breaks.

Short and always the same by default; `TEST_LONG=1` tries many more, and others each time. A failure shows the seed,
which `TEST_SEED` takes.

There is no state machine: schemathesis replays its steps, and a server that has taken a name once answers otherwise.
"""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import randbits
from typing import Any, cast
from zlib import crc32

import httpx
import pytest
import requests
import schemathesis
import uvicorn
import uvloop
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rookery.adapters.system import SystemClock
from rookery.config import Settings
from rookery.web.app import create_routes
from rookery.web.connections import Connections
from rookery.wiring import open_server, web_options
from tests.web.site import API, Json

LONG = bool(os.environ.get("TEST_LONG"))
SETTINGS = Settings(data=Path("never-made"), rate_limit="off")
SEED = int(os.environ.get("TEST_SEED") or (randbits(32) if LONG else 2026))
CONFIG: dict[str, Any] = {"seed": SEED, "generation": {"max-examples": 400 if LONG else 12, "database": "none"}}
PASSWORD = "correct horse"

# Valid as far as a schema can say, and yet refused: operation, code of the refusal, and why no schema can say it.
UNSAYABLE: dict[str, dict[str, str]] = {
    "*": {
        "idempotency_key_reused": "whether a key was used before is not in the request",
        "malformed_cursor": "a cursor is opaque: what one looks like is nobody's business",
        "body_too_long": "280 characters as a reader counts them (UAX #29), after NFC",
        "title_too_long": "140 characters, likewise",
        "display_name_too_long": "50 characters, likewise",
    },
    "follow": {
        "self_follow": "two names of one user need not look alike",
        "missing_field": "in the query or in the body, in one of the two: a schema sees one place at a time",
        "duplicate_field": "likewise",
    },
    "unfollow": {
        "self_follow": "two names of one user need not look alike",
        "missing_field": "in the query or in the body, in one of the two",
        "duplicate_field": "likewise",
    },
    "deleteTweet": {
        "missing_field": "in the query or in the body, in one of the two",
        "duplicate_field": "likewise",
    },
    "deleteUser": {
        "missing_field": "in the query or in the body, in one of the two",
        "duplicate_field": "likewise",
    },
    "getUser": {"missing_field": "one of two parameters: OpenAPI describes each for itself"},
}
FRESH = {"signOut", "deleteUser"}
"""What ends the token that it is asked with."""


class Server:
    """A running server, and what is on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.client = httpx.Client(base_url=url + API)
        self.ada = self.post("/user", {"name": "ada", "password": PASSWORD})
        self.bob = self.register("bob")
        self.tweets = [self.tweet(str(number)) for number in range(12)]
        self._made = 0

    def post(self, path: str, body: Json, headers: dict[str, str] | None = None) -> Json:
        response = self.client.post(path, json=body, headers=headers)
        assert response.status_code == 201, response.text
        made: Json = response.json()
        return made

    def register(self, name: str) -> Json:
        return self.post("/user", {"name": name})

    def tweet(self, body: str) -> str:
        auth = {"Authorization": f"Bearer {self.ada['token']}"}
        return str(self.post("/tweet", {"user_name": "ada", "body": body}, auth)["id"])

    def someone(self) -> Json:
        self._made += 1
        return self.register(f"someone_{self._made}")

    def close(self) -> None:
        self.session.close()
        self.client.close()


async def _serve(listener: socket.socket, data: Path, ready: "list[uvicorn.Server]") -> None:
    async with open_server(Settings(data=data, rate_limit="off")) as opened:
        config = uvicorn.Config(
            cast("Any", opened.app),
            http=cast("Any", Connections()),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        ready.append(uvicorn.Server(config))
        await ready[0].serve(sockets=[listener])


def _run(listener: socket.socket, data: Path, ready: "list[uvicorn.Server]") -> None:
    # As `rookery serve` does. asyncio's own loop leaves Nagle's algorithm on here, and each request takes 45 ms.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listener, data, ready))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a real socket, in a thread of its own. Who connects before it accepts waits in the backlog."""
    ready: list[uvicorn.Server] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        served = thread.submit(_run, listener, tmp_path_factory.mktemp("data"), ready)
        try:
            running = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
            yield running
            running.close()
        finally:
            for each in ready:
                each.should_exit = True
            served.result(20)


def _document() -> Json:
    document: Json = json.loads(create_routes(None, web_options(SETTINGS), SystemClock()).state.document)
    return document


load_all_checks()
schema = schemathesis.openapi.from_dict(_document(), config=SchemathesisConfig.from_dict(CONFIG))


@schema.parametrize()
def test_the_server_does_as_its_document_says(case: Any, server: Server) -> None:
    print(f"TEST_SEED={SEED}")  # noqa: T201 - shown with a failure
    sent = sending(case, server)
    judge(case, case.call(**sent), sent)


def sending(case: Any, server: Server) -> dict[str, Any]:
    """How a request is sent, and by whom. What it names is made to exist."""
    operation = operation_of(case)
    me = server.someone() if operation in FRESH else server.ada
    acquaint(case, operation, server, me)
    headers = {"Authorization": f"Bearer {me['token']}"}
    return {"base_url": server.url, "session": server.session, "headers": headers, "timeout": 30}


def judge(case: Any, response: Any, sent: dict[str, Any]) -> None:
    """All checks there are, but for the valid-looking data that no schema can tell from the valid."""
    known = refusal(response) in unsayable(operation_of(case), case.body)
    excluded = [positive_data_acceptance] if known else []
    case.validate_response(response, headers=sent["headers"], excluded_checks=excluded, transport_kwargs=sent)


def operation_of(case: Any) -> str:
    return str(case.operation.definition.raw["operationId"])


def refusal(response: Any) -> str | None:
    """The code of the problem with which valid-looking data was refused."""
    return str(response.json()["code"]) if response.status_code in (400, 422) and response.content else None


def unsayable(operation: str, body: object) -> set[str]:
    codes = {*UNSAYABLE["*"], *UNSAYABLE.get(operation, {})}
    # JSON Schema counts 7.0 among the integers, and has no word for 7 alone.
    return codes | {"wrong_type"} if isinstance(body, dict) and isinstance(body.get("count_retweet"), float) else codes


def acquaint(case: Any, operation: str, server: Server, me: Json) -> None:
    """Make most of the valid requests ones that can succeed: chance would never name a user or tweet that exists."""
    phase = case.meta.phase.name.value if case.meta else None
    if phase in (None, "coverage") or not case.meta.generation.mode.is_positive:
        return
    mine, others = [f"@{me['name']}", me["user_id"]], ["@bob", server.bob["user_id"]]
    reading = case.method == "GET"
    known: dict[str, list[str]] = {
        "user_id": mine + others if reading else mine,
        "follower_id": mine + others if reading else mine,
        "followee_id": others,
        "user_name": [me["name"]],
        "tweet_id": [server.tweet("to be deleted")] if operation == "deleteTweet" else server.tweets,
        "retweet": server.tweets,
    }
    if operation == "signIn":
        known = {"name": ["ada"], "password": [PASSWORD]}
    parts = [part for part in (case.path_parameters, case.query, case.body) if isinstance(part, dict)]
    chance = crc32(repr(parts).encode())
    if isinstance(case.query, dict):
        for name in {*case.query} & ({"cursor", *case.body} if isinstance(case.body, dict) else {"cursor"}):
            if chance % 4:
                del case.query[name]
    for part in parts:
        for name, value in list(part.items()):
            if name in known and isinstance(value, str) and (chance := chance // 4 or crc32(value.encode())) % 4:
                part[name] = known[name][chance % len(known[name])]
