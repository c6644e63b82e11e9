"""The client against a real server, and against real faults: lost answers, restarts, refusals and nonsense."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import pytest

from rookery.client import Client, Retries, RookeryError, RookeryUnreachable
from tests.serving import Server, running_server

DOCS = Path(__file__).parents[2] / "docs" / "client.md"


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


def new_name() -> str:
    return f"u{uuid4().hex[:20]}"


class Pauses(list[float]):
    """Stands for sleeping: what was to be waited is written down, and no time goes by."""

    async def sleep(self, seconds: float) -> None:
        self.append(seconds)

    def retries(self, **options: float) -> Retries:
        settings: dict[str, float] = {"total": 1_000_000.0} | options
        return Retries(tries=int(settings.pop("tries", 5)), sleep=self.sleep, chance=lambda: 1.0, **settings)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


# Servers that fail

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[str]:
    """A listening socket whose connections are handled so; gives its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side went away, which it may
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Proxy:
    """Stands between client and server. It passes all on but the first `losing` answers: of these it takes the first
    bytes, so that the request has had its effect, and ends the connection."""

    def __init__(self, port: int, losing: int) -> None:
        self._port = port
        self.losing = losing
        self.connections = 0
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Proxy"]:
        async with listening(self._serve) as self.url:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        passing = asyncio.create_task(self._pass(reader, to_server))
        try:
            while answer := await from_server.read(65_536):
                if self.losing:
                    self.losing -= 1
                    return
                writer.write(answer)
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
            to_server.close()

    async def _pass(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        while request := await reader.read(65_536):
            to_server.write(request)
        to_server.write_eof()


@asynccontextmanager
async def losing(server: Server, answers: int = 1, token: str | None = None) -> AsyncIterator[Client]:
    """A client of a server behind a proxy that loses its first answers, all of them in the end."""
    pauses = Pauses()
    proxy = Proxy(server.port, answers)
    async with proxy.open(), Client(proxy.url, token=token, retries=pauses.retries()) as client:
        yield client
    assert proxy.losing == 0, "nothing was lost, so nothing was shown"
    assert len(pauses) == answers, "each lost answer was waited for once"


class Asked(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """A server that gives these answers in turn, whatever it is asked, and then goes silent."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.asked: list[Asked] = []
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Scripted"]:
        async with listening(self._serve) as self.url:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            line, *lines = head.strip().split("\r\n")
            headers = dict(each.lower().split(": ", 1) for each in lines)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.asked.append(Asked(line, headers, body))
            if not self._answers:
                await asyncio.Event().wait()
            writer.write(self._answers.pop(0))


def answer(status: int, body: object = None, content_type: str = "application/json", **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Told", f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def problem(status: int, code: str, **headers: str) -> bytes:
    return answer(
        status, {"code": code, "detail": "It is so.", "status": status}, "application/problem+json", **headers
    )


OK = answer(200, [])


@asynccontextmanager
async def told(retries: Retries, *answers: bytes, timeout: float = 10.0) -> AsyncIterator[tuple[Client, Scripted]]:
    server = Scripted(*answers)
    async with server.open(), Client(server.url, retries=retries, timeout=timeout) as client:
        yield client, server


# What people do


async def test_a_user_lives_a_whole_life_through_it(visitor: Client) -> None:
    ada_name, bob_name = new_name(), new_name()
    made = await visitor.register(ada_name, "correct horse", "Ada Lovelace")
    ada = visitor.as_user(made.token)
    bob = visitor.as_user((await visitor.register(bob_name)).token)
    assert (await visitor.user(made.user_id)).display_name == "Ada Lovelace"

    await bob.follow(f"@{bob_name}", made.user_id)
    tweet = await ada.post(ada_name, "Hello, world", "Greeting")
    second = await ada.post_as(made.user_id, "And again")
    retweet = await bob.retweet(bob_name, tweet.id, "Look")

    assert (tweet.title, tweet.body, tweet.user_name) == ("Greeting", "Hello, world", ada_name)
    assert [each.id async for each in bob.feed(f"@{bob_name}")] == [second.id, tweet.id]
    assert (await visitor.tweet(tweet.id)).count_retweet == 1
    assert [each.id async for each in visitor.chain(retweet.id)] == [retweet.id, tweet.id]
    assert (await visitor.top(1))[0].id == tweet.id
    assert [each.name async for each in visitor.followees(f"@{bob_name}")] == [ada_name]
    assert [each.name async for each in visitor.followers(made.user_id)] == [bob_name]

    await ada.delete_tweet(made.user_id, tweet.id)
    assert [each.id async for each in visitor.tweets(made.user_id)] == [second.id]
    assert [each.deleted async for each in visitor.chain(retweet.id)] == [False, True]
    await bob.unfollow(f"@{bob_name}", made.user_id)
    assert [each async for each in bob.feed(f"@{bob_name}")] == []
    await ada.delete_user(made.user_id)
    with pytest.raises(RookeryError, match="There is no such user"):
        await visitor.user(made.user_id)


async def test_a_token_is_good_from_signing_in_to_signing_out(visitor: Client) -> None:
    name = new_name()
    await visitor.register(name, "correct horse")
    me = visitor.as_user(await visitor.sign_in(name, "correct horse"))
    await me.post(name, "In")
    await me.sign_out()
    with pytest.raises(RookeryError) as caught:
        await me.post(name, "Out")
    assert (caught.value.status, caught.value.code) == (401, "token_invalid")


async def test_in_open_mode_a_post_makes_its_author_and_may_start_from_any_count(client: Client) -> None:
    name = new_name()
    tweet = await client.post(name, "Hello", count_retweet=7)
    assert (await client.retweet(name, tweet.id, count_retweet=3)).count_retweet == 3
    assert (await client.tweet(tweet.id)).count_retweet == 8
    assert (await client.register(new_name())).token is None


async def test_the_state_of_the_server_is_told(client: Client) -> None:
    status = await client.status()
    assert (status.ready, status.store, status.ranking) == (True, "ok", "ok")


async def test_clients_of_many_users_share_their_connections(open_server: Server) -> None:
    proxy = Proxy(open_server.port, losing=0)
    async with proxy.open(), Client(proxy.url) as client:
        for token in ("one", "two", None):
            async with client.as_user(token) as other:
                await other.status()
        await client.status()
    assert proxy.connections == 1


async def test_many_tasks_use_one_client_at_once(client: Client) -> None:
    name = new_name()
    await client.register(name)
    bodies = {f"Tweet {number}" for number in range(100)}
    await asyncio.gather(*(client.post(name, body) for body in bodies))
    assert {tweet.body async for tweet in client.tweets(f"@{name}")} == bodies


# Lists


async def test_every_list_is_gone_through_page_by_page(client: Client) -> None:
    reader, *authors = [new_name() for _ in range(6)]
    await client.register(reader)
    tweet_id = None
    for author in authors:
        tweet = await (client.retweet(author, tweet_id) if tweet_id else client.post(author, "First"))
        tweet_id = tweet.id
        await client.follow(f"@{reader}", f"@{author}")
        await client.follow(f"@{author}", f"@{reader}")
        await client.post(reader, f"I follow {author}")
    assert tweet_id
    newest_first = authors[::-1]
    me = f"@{reader}"
    for limit in (1, 2, 5, 100):
        assert [each.name async for each in client.followees(me, limit)] == newest_first
        assert [each.name async for each in client.followers(me, limit)] == newest_first
        assert [each.user_name async for each in client.feed(me, limit)] == newest_first
        assert [each.user_name async for each in client.chain(tweet_id, limit)] == newest_first
        assert [each.body async for each in client.tweets(me, limit)] == [f"I follow {who}" for who in newest_first]
    for page in (
        await client.followees_page(me, 2),
        await client.followers_page(me, 2),
        await client.feed_page(me, 2),
        await client.chain_page(tweet_id, 2),
        await client.tweets_page(me, 2),
    ):
        assert len(page.items) == 2
        assert page.next is not None


async def test_a_page_goes_on_where_the_last_one_ended(client: Client) -> None:
    name = new_name()
    tweets = [await client.post(name, f"Tweet {number}") for number in range(5)][::-1]
    first = await client.tweets_page(f"@{name}", 2)
    second = await client.tweets_page(f"@{name}", 2, first.next)
    third = await client.tweets_page(f"@{name}", 2, second.next)
    assert first.items + second.items + third.items == tweets
    assert third.next is None


async def test_a_page_is_fetched_only_when_it_is_come_to(client: Client) -> None:
    name = new_name()
    oldest, *_, newest = [await client.post(name, f"Tweet {number}") for number in range(4)]
    seen = []
    async for tweet in client.tweets(f"@{name}", limit=2):
        if tweet.id == newest.id:
            await client.delete_tweet(f"@{name}", oldest.id)
        seen.append(tweet.body)
    assert seen == ["Tweet 3", "Tweet 2", "Tweet 1"]


async def test_a_list_is_not_followed_to_another_server(pauses: Pauses) -> None:
    foreign = Scripted(OK)
    async with foreign.open():
        for link in (f"{foreign.url}/api/v1/feed/@ada", foreign.url.removeprefix("http:"), "ftp://127.0.0.1/"):
            page = answer(200, [], Link=f'<{link}>; rel="next"')
            async with told(pauses.retries(), page) as (client, _):
                with pytest.raises(RookeryError) as caught:
                    [each async for each in client.as_user("secret").feed("@ada")]
                assert caught.value.code == "foreign_link"
    assert foreign.asked == [], "the token stays here"


# Refusals


async def test_a_refusal_is_told_at_once_with_its_code(open_server: Server, pauses: Pauses) -> None:
    async with Client(open_server.url, retries=pauses.retries()) as client:
        name = (await client.register(new_name())).name
        with pytest.raises(RookeryError) as caught:
            await client.user("@nobody_here")
        error = caught.value
        assert (error.status, error.code, error.detail) == (404, "unknown_user", "There is no such user.")
        assert error.retry_after is None
        assert str(error) == "There is no such user. [404 unknown_user]"
        with pytest.raises(RookeryError, match="self_follow"):
            await client.follow(f"@{name}", f"@{name}")
    assert pauses == []


@pytest.mark.parametrize("ref", ["..", ".", "nonsense", "@no/../body", "@%2e", "ä", "a?b", "a#b"])
async def test_an_odd_reference_reaches_the_path_it_was_meant_for(client: Client, ref: str) -> None:
    with pytest.raises(RookeryError) as caught:
        await client.post_as(ref, "Hello")
    assert caught.value.code in ("malformed_id", "unknown_user", "unknown_path")


async def test_an_answer_that_is_no_problem_document_is_an_error_with_its_status(pauses: Pauses) -> None:
    page = answer(500, b"<h1>Oops</h1>", "text/html")
    torn = answer(500, b"{", "application/problem+json; charset=utf-8")
    elsewhere = answer(302, b"", Location="/api/v1/top")
    async with told(pauses.retries(), page, torn, elsewhere) as (client, server):
        for code in ("http_500", "http_500", "http_302"):
            with pytest.raises(RookeryError) as caught:
                await client.top()
            assert caught.value.code == code
    assert len(server.asked) == 3
    assert pauses == []


@pytest.mark.parametrize("body", [b"[", b"{}", b'[{"id": 1}]', b'["\xff"]', b""])
async def test_an_answer_that_holds_something_else_is_an_error(body: bytes, pauses: Pauses) -> None:
    async with told(pauses.retries(), answer(200, body)) as (client, _):
        with pytest.raises(RookeryError) as caught:
            await client.top()
    assert (caught.value.status, caught.value.code) == (200, "unreadable_answer")


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:5000", "ftp://host", "http://", "http://host/api/v1", "http://u:p@host", "http://h?q", "http://h#f"],
)
def test_a_base_url_is_an_origin(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        Client(url)


# Faults


async def test_a_post_whose_answer_was_lost_takes_effect_once(open_server: Server, client: Client) -> None:
    name = new_name()
    await client.register(name)
    async with losing(open_server, 3) as unlucky:
        tweet = await unlucky.post(name, "Once")
    assert [each async for each in client.tweets(f"@{name}")] == [tweet]


async def test_a_retweet_whose_answer_was_lost_counts_once(open_server: Server, client: Client) -> None:
    tweet = await client.post(new_name(), "Count me")
    async with losing(open_server) as unlucky:
        await unlucky.retweet(new_name(), tweet.id)
    assert (await client.tweet(tweet.id)).count_retweet == 1


async def test_a_registration_whose_answer_was_lost_gives_a_token_that_works(token_server: Server) -> None:
    name = new_name()
    async with losing(token_server) as unlucky:
        made = await unlucky.register(name, "correct horse")
        await unlucky.as_user(made.token).post(name, "Here I am")
    async with losing(token_server) as unlucky:
        token = await unlucky.sign_in(name, "correct horse")
        await unlucky.as_user(token).post(name, "Here I am again")


async def test_following_and_unfollowing_survive_a_lost_answer(open_server: Server, client: Client) -> None:
    reader, author = new_name(), new_name()
    await client.register(reader)
    await client.register(author)
    async with losing(open_server) as unlucky:
        await unlucky.follow(f"@{reader}", f"@{author}")
    assert [each.name async for each in client.followers(f"@{author}")] == [reader]
    async with losing(open_server) as unlucky:
        await unlucky.unfollow(f"@{reader}", f"@{author}")
    assert [each async for each in client.followers(f"@{author}")] == []


async def test_deleting_survives_a_lost_answer(open_server: Server, token_server: Server, client: Client) -> None:
    name = new_name()
    tweet = await client.post(name, "Short-lived")
    async with losing(open_server) as unlucky:
        await unlucky.delete_tweet(f"@{name}", tweet.id)
    async with losing(open_server) as unlucky:
        await unlucky.delete_user(f"@{name}")
    with pytest.raises(RookeryError, match="unknown_user"):
        await client.user(f"@{name}")
    async with Client(token_server.url) as visitor:
        token = (await visitor.register(new_name())).token
    async with losing(token_server, token=token) as unlucky:
        await unlucky.sign_out()


async def test_reading_survives_lost_answers_in_the_middle_of_a_list(open_server: Server, client: Client) -> None:
    name = new_name()
    tweets = [await client.post(name, f"Tweet {number}") for number in range(6)][::-1]
    proxy = Proxy(open_server.port, losing=0)
    seen = []
    async with proxy.open(), Client(proxy.url, retries=Pauses().retries()) as unlucky:
        async for tweet in unlucky.tweets(f"@{name}", limit=2):
            seen.append(tweet)
            proxy.losing = 1
    assert seen == tweets


async def test_a_request_waits_for_a_server_that_was_killed_and_comes_back(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:

        async def bring_back(_: float) -> None:
            if not server.is_running():
                await asyncio.to_thread(server.start, server.port)

        async with Client(server.url, retries=Retries(sleep=bring_back)) as client:
            first = await client.post("ada", "Before")
            server.kill()
            second = await client.post("ada", "After")
            assert [tweet async for tweet in client.tweets("@ada")] == [second, first]


async def test_a_server_that_is_full_is_left_alone_as_long_as_it_asks(tmp_path: Path, pauses: Pauses) -> None:
    with running_server(tmp_path, "--rate-limit", "on", "--rate-limit-address", "3") as server:
        async with Client(server.url, retries=pauses.retries(tries=2)) as client:

            async def ask_on() -> None:
                for _ in range(20):
                    await client.top()

            with pytest.raises(RookeryError) as caught:
                await ask_on()
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.retry_after is not None
    assert 1 <= caught.value.retry_after <= 60
    assert pauses
    assert pauses[-1] >= caught.value.retry_after


async def test_a_wait_that_the_server_asks_for_is_kept(pauses: Pauses) -> None:
    busy = problem(503, "store_unavailable", Retry_After="7")
    tweet = {
        "id": str(uuid4()), "user_id": str(uuid4()), "title": "", "body": "Hi", "retweet": None,
        "created_at": "2031-05-04T10:00:00Z", "user_name": "ada", "count_retweet": None,
    }  # fmt: skip
    async with told(pauses.retries(), busy, answer(201, tweet)) as (client, server):
        assert (await client.post("ada", "Hi")).body == "Hi"
    assert pauses == [7.1]
    assert server.asked[0] == server.asked[1], "the same request, under the same key"
    assert server.asked[0].headers["idempotency-key"]


async def test_two_posts_have_two_keys_and_a_key_may_be_given(pauses: Pauses) -> None:
    refused = problem(404, "unknown_user")
    async with told(pauses.retries(), *[refused] * 4) as (client, server):
        for key in (None, None, "my own", ""):
            with pytest.raises(RookeryError):
                await client.post("ada", "Hi", idempotency_key=key)
    first, second, own, empty = [asked.headers["idempotency-key"] for asked in server.asked]
    assert first != second
    assert (own, empty) == ("my own", ""), "what the caller gives is for the server to judge"


async def test_waits_double_and_tries_end(pauses: Pauses) -> None:
    statuses = (503, 429, 502, 504, 503)
    async with told(pauses.retries(), *[answer(status, b"busy", "text/plain") for status in statuses]) as (client, _):
        with pytest.raises(RookeryError) as caught:
            await client.top()
    assert (caught.value.status, caught.value.code) == (503, "http_503")
    assert pauses == [0.1, 0.2, 0.4, 0.8]


async def test_waits_are_spread_by_chance() -> None:
    pauses = Pauses()
    retries = Retries(sleep=pauses.sleep)
    async with told(retries, *[problem(503, "busy")] * 4, OK) as (client, _):
        await client.top()
    assert len(set(pauses)) == 4
    assert all(0 <= pause <= most for pause, most in zip(pauses, (0.1, 0.2, 0.4, 0.8), strict=True))


async def test_a_wait_never_grows_over_its_bound(pauses: Pauses) -> None:
    async with told(pauses.retries(longest_wait=0.3, tries=6), *[problem(503, "busy")] * 5, OK) as (client, _):
        await client.top()
    assert pauses == [0.1, 0.2, 0.3, 0.3, 0.3]


@pytest.mark.parametrize("bounds", [{"longest_wait": 10.0}, {"total": 10.0}])
async def test_too_long_a_wait_is_not_begun(bounds: dict[str, float], pauses: Pauses) -> None:
    async with told(pauses.retries(**bounds), problem(503, "busy", Retry_After="11")) as (client, server):
        with pytest.raises(RookeryError) as caught:
            await client.top()
    assert (caught.value.code, caught.value.retry_after) == ("busy", 11)
    assert len(server.asked) == 1
    assert pauses == []


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 400, "\u00b2"])
async def test_a_wait_that_cannot_be_read_is_as_none(value: str, pauses: Pauses) -> None:
    async with told(pauses.retries(), problem(503, "busy", Retry_After=value), OK) as (client, _):
        await client.top()
    assert pauses == [0.1]


async def test_a_server_that_never_answers_is_given_up(pauses: Pauses) -> None:
    async with told(pauses.retries(tries=3), timeout=0.1) as (client, server):
        with pytest.raises(RookeryUnreachable) as caught:
            await client.top()
    assert (caught.value.status, caught.value.code) == (0, "unreachable")
    assert len(server.asked) == 3
    async with told(Retries(total=0.2)) as (client, _):
        with pytest.raises(RookeryUnreachable):
            await asyncio.wait_for(client.top(), 10)


async def test_a_server_that_is_not_there_is_given_up(pauses: Pauses) -> None:
    async with listening(lambda *_: asyncio.sleep(0)) as url:
        pass
    async with Client(url, retries=pauses.retries(tries=2)) as client:
        with pytest.raises(RookeryUnreachable, match="There is no answer"):
            await client.status()
    assert len(pauses) == 1


async def test_a_request_that_cannot_be_sent_is_not_tried_again(pauses: Pauses) -> None:
    async with told(pauses.retries(), OK) as (client, server):
        with pytest.raises(httpx.LocalProtocolError):
            await client.as_user("two\nlines").top()
    assert server.asked == []
    assert pauses == []


async def test_a_user_who_never_was_is_not_taken_for_deleted(pauses: Pauses) -> None:
    gone = problem(404, "unknown_user")
    async with told(pauses.retries(), problem(429, "rate_limited"), gone, problem(503, "busy"), gone) as (client, _):
        with pytest.raises(RookeryError, match="unknown_user"):
            await client.delete_user("@ada")
        await client.delete_user("@ada")
    async with told(pauses.retries(), problem(503, "busy"), gone) as (client, _):
        with pytest.raises(RookeryError, match="unknown_user"):
            await client.user("@ada")


# The page


BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", DOCS.read_text(), re.DOTALL)


def test_the_page_has_examples() -> None:
    assert len(BLOCKS) == DOCS.read_text().count("```python")
    assert BLOCKS


@pytest.mark.parametrize(("program", "shown"), BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_an_example_in_the_docs_runs_and_prints_what_is_shown(program: str, shown: str, token_server: Server) -> None:
    assert "http://127.0.0.1:5000" in program
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program.replace("http://127.0.0.1:5000", token_server.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == shown
