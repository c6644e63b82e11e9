"""A machine's clock that is set back, with and without a restart of the server: new tweets are the newest."""

from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import do_without, running
from tests.serving import Server
from tests.system.nemesis.place import clock_environment, write_clock
from tools.servers import Missing, Redis

HOUR = 3_600


@pytest.fixture(params=["sqlite", "redis"])
def flags(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "sqlite":
        return ()
    return ("--store", "redis", "--store-servers", running(Redis).address, "--store-keyspace", "clock_steps")


def post(server: Server, body: str) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/tweet", data={"user_name": "ada", "body": body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def listed(server: Server) -> list[str]:
    return [tweet["body"] for tweet in httpx.get(f"{server.url}/tweet/@ada").json()]


def test_new_tweets_are_the_newest_though_the_clock_was_set_back(tmp_path: Path, flags: tuple[str, ...]) -> None:
    clock = tmp_path / "clock"
    write_clock(clock, 0)
    try:
        environment = clock_environment(clock)
    except Missing as missing:
        do_without(missing)
    server = Server(tmp_path / "data", *flags, env=environment)
    server.start()
    try:
        bodies = ["before"]
        first = post(server, "before")
        write_clock(clock, -HOUR)
        for number in range(3):
            bodies.append(f"set back {number}")
            post(server, bodies[-1])
        assert listed(server) == bodies[::-1]
        server.stop()
        server.start()
        assert "may have been set back" in server.out() + server.err()
        bodies.append("after a restart")
        last = post(server, bodies[-1])
        assert listed(server) == bodies[::-1]
        assert datetime.fromisoformat(last["created_at"]) > datetime.fromisoformat(first["created_at"])
        server.kill()
        write_clock(clock, -2 * HOUR)
        server.start()
        bodies.append("after a kill")
        post(server, bodies[-1])
        assert listed(server) == bodies[::-1]
    finally:
        server.stop()


def test_a_clock_that_is_days_behind_the_newest_tweet_is_believed_and_told_of(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    write_clock(clock, 48 * HOUR)
    try:
        environment = clock_environment(clock)
    except Missing as missing:
        do_without(missing)
    server = Server(tmp_path / "data", env=environment)
    server.start()
    try:
        post(server, "from the future")
        server.stop()
        write_clock(clock, 0)
        server.start()
        assert "new tweets come before it" in server.out() + server.err()
        post(server, "now")
        assert listed(server) == ["from the future", "now"]
    finally:
        server.stop()
