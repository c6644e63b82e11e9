"""A server killed between a write and its effect on the cache: asked again, another one makes the effect first."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from rookery.adapters.system.faults import KILL_VARIABLE
from tests.servers import running
from tests.serving import Server
from tools.servers import Memcached


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Two on one SQLite file and one memcached; the first may be killed at a step."""
    memcached = running(Memcached)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").symlink_to(tmp_path / "one")
    flags = ("--cache", "memcached", "--cache-servers", memcached.address)
    made = Server(tmp_path / "one", *flags, measured=False), Server(tmp_path / "two", *flags, measured=False)
    with ExitStack() as stack:
        for server in made:
            server.start()
            stack.callback(server.stop)
        yield made


STEPS = ["follow.written", "unfollow.written", "delete_tweet.written", "delete_user.written"]


@pytest.mark.parametrize("step", STEPS)
def test_a_repeated_write_has_its_effect_before_it_is_answered(servers: tuple[Server, Server], step: str) -> None:
    first, second = servers
    with httpx.Client(timeout=20) as http:

        def post(server: Server, path: str, key: str = "", **form: str) -> int:
            headers = {"Idempotency-Key": key} if key else {}
            return http.post(server.url + path, data=form, headers=headers).status_code

        def feed(server: Server) -> list[str]:
            return [tweet["body"] for tweet in http.get(f"{server.url}/feed/@bob").json()]

        posted = http.post(f"{first.url}/tweet", data={"user_name": "ada", "body": "hello"})
        assert posted.status_code == 201
        assert post(first, "/tweet", user_name="bob", body="I read") == 201
        is_follow = step == "follow.written"
        if not is_follow:
            assert post(first, "/follow/@bob", followee_id="@ada") == 204
        before, after = ([], ["hello"]) if is_follow else (["hello"], [])
        for _ in range(3):
            assert feed(second) == before  # so that it is cached
        first.stop()
        first.env[KILL_VARIABLE] = step
        first.start()

        deletes = {
            "unfollow.written": "/follow/@bob?followee_id=@ada",
            "delete_tweet.written": f"/tweet/@ada?tweet_id={posted.json()['id']}",
            "delete_user.written": "/user?user_id=@ada",
        }

        def write(server: Server) -> int:
            if is_follow:
                return post(server, "/follow/@bob", "a key of twenty letters", followee_id="@ada")
            return http.delete(server.url + deletes[step]).status_code

        with pytest.raises(httpx.HTTPError):
            write(first)
        assert first.process.wait(20) == -9
        assert write(second) == (404 if step == "delete_user.written" else 204)
        assert feed(second) == after
