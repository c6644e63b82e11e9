"""A small typed client of the HTTP API. Answers are the server's own types; docs/client.md has examples that run.

Every request can be sent twice without harm: a POST carries an `Idempotency-Key`, and the other methods are idempotent
by themselves. So what fails in passing is tried again, whether or not the lost try took effect.
"""

import asyncio
import copy
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import quote
from uuid import UUID

import httpx
import msgspec
from msgspec import Struct

from rookery.domain.cursors import DEFAULT_LIMIT, MAX_LIMIT, Page
from rookery.domain.status import Status
from rookery.domain.tweets import ChainedTweet, Tweet
from rookery.domain.users import NewUser, User

T = TypeVar("T")
UserRef = UUID | str
"""A user's id, or `@name`."""
TweetRef = UUID | str
Key = str | None
"""An `Idempotency-Key`. None makes a random one; give one to repeat a request after this program's end."""

_Url = httpx.URL | str
_Fields = Mapping[str, object] | None
_API = "/api/v1"
_PROBLEM = "application/problem+json"
_UNANSWERED = 0
_OVERLOADED = 429
# 502 and 504 come from a proxy that lost the server: to the caller no different from a lost connection.
_PASSING = frozenset({_UNANSWERED, _OVERLOADED, 502, 503, 504})


class RookeryError(Exception):
    """The server refused, or what came back is no answer of a Rookery.

    Attributes:
        status: the HTTP status.
        code: the problem's stable code, such as `unknown_user`. `http_…` with the status for an answer that is no
            problem document, `unreadable_answer` and `foreign_link` for one that does not hold what it should.
        detail: a sentence for people.
        retry_after: seconds after which trying again may help, where the server told.
    """

    def __init__(self, status: int, code: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(status, code, detail, retry_after)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.detail} [{self.status} {self.code}]"


class RookeryUnreachable(RookeryError):
    """No answer came, in all the tries allowed; `status` is 0. What was asked may have taken effect or not.

    To go on after this with a write, send it again under the same `idempotency_key` of one's own.
    """


class _Problem(Struct, frozen=True):
    code: str
    detail: str


class _Token(Struct, frozen=True):
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How long to go on with a request that fails in passing: no answer, or 429, 502, 503 or 504.

    Waits are exponential with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
    2015), on top of what `Retry-After` asks for. A request is given up at once when its wait would be longer than
    `longest_wait` or would end after `total`: asking sooner than the server said only adds to its load.
    """

    tries: int = 5
    """How often a request is sent at most; 1 means no retries."""
    first_wait: float = 0.1
    """Seconds that the first wait may last; each further one twice as long."""
    longest_wait: float = 60.0
    """Seconds. A rate limit's window is a minute, and fits."""
    total: float = 120.0
    """Seconds for a request with all its tries and waits."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    """Evenly spread over [0, 1)."""


class Client:
    """A client of one server. It may be used by many tasks at once, and `async with` closes its connections.

    Args:
        base_url: the server, such as `http://127.0.0.1:5000`: scheme, host and port only.
        token: who acts; None is nobody, or anyone where the server is in open mode.
        timeout: seconds for connecting, and for each wait for the server to take or give something.
        retries: how often and how long a request is tried.
        transport: instead of the network, such as `httpx.ASGITransport`.

    Raises:
        ValueError: for a base_url of another form.

    All methods raise RookeryError for what the server refuses, and RookeryUnreachable when it does not answer.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        timeout: float = 10.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        base = httpx.URL(base_url)
        bare = base.raw_path == b"/" and not base.userinfo and not base.fragment
        if base.scheme not in ("http", "https") or not base.host or not bare:
            raise ValueError("a base_url is of the form http://host:port")
        self._token = token
        self._retries = retries or Retries()
        self._http = httpx.AsyncClient(base_url=base.join(_API), timeout=timeout, transport=transport)
        self._owns_http = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; on a client from `as_user` this does nothing."""
        if self._owns_http:
            await self._http.aclose()

    def as_user(self, token: str | None) -> "Client":
        """A client that acts by another token over the same connections, for as long as this one is open."""
        other = copy.copy(self)
        other._token = token
        other._owns_http = False
        return other

    async def register(
        self, name: str, password: str | None = None, display_name: str | None = None, *, idempotency_key: Key = None
    ) -> NewUser:
        """Make a user. His token is in the answer (none in open mode): `client.as_user(made.token)` acts for him."""
        optional = {"password": password, "display_name": display_name}
        body = {"name": name} | {field: value for field, value in optional.items() if value is not None}
        return _read(await self._post("/user", body, idempotency_key), NewUser)

    async def sign_in(self, name: str, password: str, *, idempotency_key: Key = None) -> str:
        """A new token for a name and password. This client goes on as before; see `as_user`."""
        body = {"name": name, "password": password}
        return _read(await self._post("/token", body, idempotency_key), _Token).token

    async def sign_out(self, *, everywhere: bool = False) -> None:
        """Revoke the token that this client acts by, or all tokens of its user."""
        await self._send("DELETE", "/token", {"all": "true"} if everywhere else None, gone="token_invalid")

    async def change_password(self, password: str | None, new_password: str, *, idempotency_key: Key = None) -> None:
        """Change the user's password, and revoke all tokens but the one that this client acts by.

        `password` is the present one, None where the user has none.
        """
        body = {"new_password": new_password} | ({"password": password} if password is not None else {})
        await self._post("/password", body, idempotency_key)

    async def user(self, ref: UserRef) -> User:
        """A user with his counts."""
        return await self._get("/user", User, user_id=ref)

    async def delete_user(self, ref: UserRef) -> None:
        """Delete a user and everything of theirs."""
        await self._send("DELETE", "/user", {"user_id": str(ref)}, gone="unknown_user")

    async def follow(self, follower: UserRef, followee: UserRef, *, idempotency_key: Key = None) -> None:
        """Let one follow another. Doing it twice changes nothing."""
        await self._post(f"/follow/{_segment(follower)}", {"followee_id": str(followee)}, idempotency_key)

    async def unfollow(self, follower: UserRef, followee: UserRef) -> None:
        """End that one follows another. Doing it twice changes nothing."""
        await self._send("DELETE", f"/follow/{_segment(follower)}", {"followee_id": str(followee)})

    def followees(self, ref: UserRef, limit: int = MAX_LIMIT) -> AsyncIterator[User]:
        """All whom a user follows, the newest members first, fetched `limit` at a time as they are asked for."""
        return self._all(f"/follow/{_segment(ref)}", list[User], limit)

    async def followees_page(self, ref: UserRef, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[User]:
        """One page of `followees`; the next begins at the cursor in its `next`."""
        return await self._page(f"/follow/{_segment(ref)}", list[User], limit, cursor)

    def followers(self, ref: UserRef, limit: int = MAX_LIMIT) -> AsyncIterator[User]:
        """All who follow a user, the newest members first, fetched `limit` at a time as they are asked for."""
        return self._all(f"/followers/{_segment(ref)}", list[User], limit)

    async def followers_page(self, ref: UserRef, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[User]:
        """One page of `followers`; the next begins at the cursor in its `next`."""
        return await self._page(f"/followers/{_segment(ref)}", list[User], limit, cursor)

    async def post(
        self, user_name: str, body: str, title: str = "", *, count_retweet: int = 0, idempotency_key: Key = None
    ) -> Tweet:
        """Post a tweet by its author's name; in open mode a user who does not exist is made."""
        fields = {"user_name": user_name, "body": body, "title": title, "count_retweet": count_retweet}
        return _read(await self._post("/tweet", fields, idempotency_key), Tweet)

    async def post_as(self, ref: UserRef, body: str, title: str = "", *, idempotency_key: Key = None) -> Tweet:
        """Post a tweet as a user who exists."""
        fields = {"body": body, "title": title}
        return _read(await self._post(f"/tweet/{_segment(ref)}", fields, idempotency_key), Tweet)

    async def retweet(
        self,
        user_name: str,
        tweet_id: TweetRef,
        body: str = "",
        title: str = "",
        *,
        count_retweet: int = 0,
        idempotency_key: Key = None,
    ) -> Tweet:
        """Retweet: a new tweet, and 1 more for every tweet along the chain above it.

        Without title and body it is the one that the user has, if they have one, but in open mode.
        """
        fields = {"user_name": user_name, "retweet": str(tweet_id), "body": body, "title": title}
        return _read(await self._post("/retweet", fields | {"count_retweet": count_retweet}, idempotency_key), Tweet)

    async def delete_tweet(self, ref: UserRef, tweet_id: TweetRef) -> None:
        """Delete a tweet of a user. Doing it twice changes nothing."""
        await self._send("DELETE", f"/tweet/{_segment(ref)}", {"tweet_id": str(tweet_id)})

    async def tweet(self, tweet_id: TweetRef) -> Tweet:
        """One tweet."""
        return await self._get("/tweet", Tweet, tweet_id=tweet_id)

    def tweets(self, ref: UserRef, limit: int = MAX_LIMIT) -> AsyncIterator[Tweet]:
        """All tweets of a user, newest first, fetched `limit` at a time as they are asked for."""
        return self._all(f"/tweet/{_segment(ref)}", list[Tweet], limit)

    async def tweets_page(self, ref: UserRef, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[Tweet]:
        """One page of `tweets`; the next begins at the cursor in its `next`."""
        return await self._page(f"/tweet/{_segment(ref)}", list[Tweet], limit, cursor)

    def chain(self, tweet_id: TweetRef, limit: int = MAX_LIMIT) -> AsyncIterator[ChainedTweet]:
        """A tweet and what it retweets, up to the root, fetched `limit` at a time as they are asked for."""
        return self._all("/chain", list[ChainedTweet], limit, tweet_id=tweet_id)

    async def chain_page(
        self, tweet_id: TweetRef, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[ChainedTweet]:
        """One page of `chain`; the next begins at the cursor in its `next`."""
        return await self._page("/chain", list[ChainedTweet], limit, cursor, tweet_id=tweet_id)

    def feed(self, ref: UserRef, limit: int = MAX_LIMIT) -> AsyncIterator[Tweet]:
        """The tweets of all whom a user follows, newest first, fetched `limit` at a time as they are asked for."""
        return self._all(f"/feed/{_segment(ref)}", list[Tweet], limit)

    async def feed_page(self, ref: UserRef, limit: int = DEFAULT_LIMIT, cursor: str | None = None) -> Page[Tweet]:
        """One page of `feed`; the next begins at the cursor in its `next`."""
        return await self._page(f"/feed/{_segment(ref)}", list[Tweet], limit, cursor)

    async def top(self, limit: int = DEFAULT_LIMIT) -> list[Tweet]:
        """The tweets with the greatest `count_retweet`, ties newest first."""
        return await self._get("/top", list[Tweet], limit=limit)

    async def status(self) -> Status:
        """The state of the server's parts."""
        return await self._get("/status", Status)

    async def _post(self, path: str, body: _Fields, key: Key) -> httpx.Response:
        # As long as a token: under a registration the key is as secret as the token that follows from it.
        return await self._send("POST", path, body=body, key=secrets.token_urlsafe(32) if key is None else key)

    async def _get(self, path: str, kind: type[T], **query: object) -> T:
        return _read(await self._send("GET", path, query), kind)

    async def _page(self, path: str, kind: type[list[T]], limit: int, cursor: str | None, **query: object) -> Page[T]:
        response = await self._send("GET", path, query | {"limit": limit, "cursor": cursor})
        further = _next(response)
        return Page(_read(response, kind), further.params.get("cursor") if further else None)

    async def _all(self, path: str, kind: type[list[T]], limit: int, **query: object) -> AsyncIterator[T]:
        response = await self._send("GET", path, query | {"limit": limit})
        while True:
            for item in _read(response, kind):
                yield item
            further = _next(response)
            if further is None:
                return
            response = await self._send("GET", further)

    async def _send(
        self, method: str, url: _Url, query: _Fields = None, body: _Fields = None, key: Key = None, *, gone: str = ""
    ) -> httpx.Response:
        """Ask until there is an answer that stands.

        `gone` is the code by which a deletion that was done before is refused: after a try that may have done it, that
        is success.
        """
        bearer = f"Bearer {self._token}" if self._token is not None else None
        headers = _words({"Idempotency-Key": key, "Authorization": bearer})
        params = _words(query) if query is not None else None  # httpx would drop a link's own query for an empty one
        request = self._http.build_request(method, url, params=params, json=body, headers=headers)
        loop, retries = asyncio.get_running_loop(), self._retries
        deadline = loop.time() + retries.total
        tried, unsure = 0, False
        while True:
            try:
                return await self._try(request, deadline)
            except RookeryError as error:
                tried += 1
                if unsure and gone and error.code == gone:
                    return httpx.Response(204)
                asked = error.retry_after or 0
                backoff = min(retries.first_wait * 2 ** min(tried - 1, 32), retries.longest_wait)
                wait = asked + retries.chance() * backoff
                too_long = asked > retries.longest_wait or loop.time() + wait >= deadline
                if error.status not in _PASSING or tried >= retries.tries or too_long:
                    raise
                unsure = unsure or error.status != _OVERLOADED
            await retries.sleep(wait)

    async def _try(self, request: httpx.Request, deadline: float) -> httpx.Response:
        """Ask once.

        Raises:
            RookeryError: for every answer that is no success.
            RookeryUnreachable: when there is no answer.
        """
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._http.send(request)
        except httpx.LocalProtocolError:
            raise  # a request that can't be sent, such as a token with a newline, is the caller's mistake
        except (TimeoutError, httpx.RequestError) as error:
            reason = str(error) or type(error).__name__
            raise RookeryUnreachable(_UNANSWERED, "unreachable", f"There is no answer: {reason}.") from error
        if response.is_success:
            return response
        raise _refusal(response)


def _next(response: httpx.Response) -> httpx.URL | None:
    """Where a list goes on, by its `Link` header; never on another server, which would be sent the token."""
    link = response.links.get("next", {}).get("url")
    if link is None:
        return None
    here, there = response.url, response.url.join(link)
    if (there.scheme, there.host, there.port) != (here.scheme, here.host, here.port):
        raise RookeryError(response.status_code, "foreign_link", "The next page is said to be on another server.")
    return there


def _segment(ref: UserRef) -> str:
    # Dots too: a part of a path that is only dots would be resolved away, and another path asked.
    return quote(str(ref), safe="@").replace(".", "%2E")


def _words(query: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def _read(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except ValueError as error:  # a DecodeError, or text that is not UTF-8
        raise RookeryError(response.status_code, "unreadable_answer", f"The answer can't be read: {error}.") from error


def _refusal(response: httpx.Response) -> RookeryError:
    status = response.status_code
    problem = _Problem(f"http_{status}", f"The answer was {status} {response.reason_phrase}.")
    if response.headers.get("Content-Type", "").partition(";")[0].strip() == _PROBLEM:
        with suppress(ValueError):
            problem = msgspec.json.decode(response.content, type=_Problem)
    # Only the form in seconds, which is all that Rookery sends; a date would need a clock set like the server's.
    after = response.headers.get("Retry-After", "")
    retry_after = int(after) if after.isascii() and after.isdigit() and len(after) < 10 else None
    return RookeryError(status, problem.code, problem.detail, retry_after)
