"""The whole document against a running server: whatever fits it is taken, whatever does not is refused, nothing breaks.

Short and always the same by default; `TEST_LONG=1` tries many more, and others each time (the seed is in the report).
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import httpx
import pytest
import requests
import schemathesis
import uvicorn
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import positive_data_acceptance

from rookery.adapters.system import SystemClock
from rookery.config import Settings
from rookery.web.app import create_routes
from rookery.web.document import document_of
from rookery.wiring import open_server, web_options
from tests.web.site import API, Json

LONG = bool(os.environ.get("TEST_LONG"))
SETTINGS = Settings(data=Path("never-made"), rate_limit="off")
CONFIG: dict[str, Any] = {
    "generation": {"max-examples": 400 if LONG else 12},
    **({} if LONG else {"seed": 2026}),
}

# Valid as far as a schema can say, and yet refused: (operation, code of the refusal), and why no schema can say it.
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
        self.ada = self.register("ada")
        self.bob = self.register("bob")
        auth = {"Authorization": f"Bearer {self.ada['token']}"}
        self.tweets = [self.post("/tweet", {"user_name": "ada", "body": str(n)}, auth)["id"] for n in range(12)]
        self.post("/retweet", {"user_name": "ada", "retweet": self.tweets[0]}, auth)
        self._made = 0

    def post(self, path: str, body: Json, headers: dict[str, str] | None = None) -> Json:
        response = self.client.post(path, json=body, headers=headers)
        assert response.status_code == 201, response.text
        made: Json = response.json()
        return made

    def register(self, name: str) -> Json:
        return self.post("/user", {"name": name})

    def someone(self) -> Json:
        self._made += 1
        return self.register(f"someone_{self._made}")

    def close(self) -> None:
        self.session.close()
        self.client.close()


async def _serve(listener: socket.socket, data: Path, ready: "list[uvicorn.Server]") -> None:
    async with open_server(Settings(data=data, rate_limit="off")) as app:
        config = uvicorn.Config(
            cast("Any", app),
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        ready.append(uvicorn.Server(config))
        await ready[0].serve(sockets=[listener])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on a real socket, in a thread of its own. Who connects before it accepts waits in the backlog."""
    ready: list[uvicorn.Server] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as thread:
        served = thread.submit(asyncio.run, _serve(listener, tmp_path_factory.mktemp("data"), ready))
        running = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield running
        running.close()
        ready[0].should_exit = True
        served.result(20)


def _document() -> Json:
    return document_of(create_routes(None, web_options(SETTINGS), SystemClock()))


load_all_checks()
schema = schemathesis.openapi.from_dict(_document(), config=SchemathesisConfig.from_dict(CONFIG))


@schema.parametrize()
def test_the_server_does_as_its_document_says(case: Any, server: Server) -> None:
    name = case.operation.definition.raw["operationId"]
    me = server.someone() if name in FRESH else server.ada
    acquaint(case, server, me)
    sent = {
        "base_url": server.url,
        "session": server.session,
        "headers": {"Authorization": f"Bearer {me['token']}"},
        "timeout": 30,
    }
    response = case.call(**sent)
    excluded = [positive_data_acceptance] if refusal(response) in unsayable(name) else []
    case.validate_response(response, headers=sent["headers"], excluded_checks=excluded, transport_kwargs=sent)


def refusal(response: Any) -> str | None:
    """The code of the problem with which valid-looking data was refused."""
    return str(response.json()["code"]) if response.status_code in (400, 422) else None


def unsayable(operation: str) -> set[str]:
    return {*UNSAYABLE["*"], *UNSAYABLE.get(operation, {})}


def acquaint(case: Any, server: Server, me: Json) -> None:
    """Name users and tweets that exist, in most of the valid requests: chance would never find one."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    users = [f"@{me['name']}", me["user_id"], "@bob", server.bob["user_id"]]
    known: dict[str, list[str]] = {
        "user_id": users,
        "follower_id": users,
        "followee_id": users,
        "user_name": [me["name"], "bob"],
        "tweet_id": server.tweets,
        "retweet": server.tweets,
    }
    for part in (case.path_parameters, case.query, case.body):
        if not isinstance(part, dict):
            continue
        for name, value in list(part.items()):
            chance = crc32(repr(value).encode())
            if name in known and isinstance(value, str) and chance % 4:
                part[name] = known[name][chance // 4 % len(known[name])]
