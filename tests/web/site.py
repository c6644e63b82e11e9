"""A whole server in the test's own process, and the people who use it. Its database is a real file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
from litestar.types import ASGIApp

from rookery.config import Settings
from rookery.domain.tallies import Metered, Spread
from rookery.services.callers import ANYONE
from rookery.wiring import Sharing, open_rookery, open_server

API = "/api/v1"
NOBODY = "00000000-0000-7000-8000-000000000000"
"""A well-formed id that was never given to a user or a tweet."""
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Json = dict[str, Any]


class Site:
    """A running server. Paths are those below `/api/v1`; `client` takes any."""

    def __init__(
        self, app: ASGIApp, settings: Settings, client: httpx.AsyncClient, parts: Sequence[Metered] = ()
    ) -> None:
        self.app = app
        self.parts = parts
        self.settings = settings
        self.client = client

    def client_at(self, address: str, **options: Any) -> httpx.AsyncClient:
        """A client that comes from another address. The server it talks to is the same."""
        return client_of(self.app, address, **options)

    def calls(self, name: str) -> int:
        """How often the store was called so."""
        found = [
            reading.value
            for part in self.parts
            for reading in part.readings()
            if reading.name == "store_seconds" and reading.labels.get("call") == name
        ]
        return sum(sum(spread.counts) for spread in found if isinstance(spread, Spread))

    async def ask(
        self,
        method: str,
        path: str,
        who: "Person | None" = None,
        headers: Mapping[str, str | bytes] | None = None,
        **more: Any,
    ) -> httpx.Response:
        sent = httpx.Headers(who.auth if who else {})
        sent.update(cast("dict[str, str]", dict(headers or {})))
        return await self.client.request(method, API + path, headers=sent, **more)

    async def get(self, path: str, who: "Person | None" = None, **more: Any) -> httpx.Response:
        return await self.ask("GET", path, who, **more)

    async def post(self, path: str, who: "Person | None" = None, **more: Any) -> httpx.Response:
        return await self.ask("POST", path, who, **more)

    async def delete(self, path: str, who: "Person | None" = None, **more: Any) -> httpx.Response:
        return await self.ask("DELETE", path, who, **more)

    async def register(self, name: str, **more: str) -> "Person":
        return Person(self, done(await self.post("/user", json={"name": name, **more}), 201))

    async def register_all(self, *names: str) -> "list[Person]":
        return [await self.register(name) for name in names]

    async def add_admin(self, name: str = "root") -> "Person":
        """As `rookery user add --admin` does beside the running server."""
        async with open_rookery(self.settings, Sharing.ANYONE) as beside:
            made = await beside.services.accounts.register(ANYONE, name, None, is_admin=True)
        return Person(self, {"user_id": str(made.user_id), "name": made.name, "token": made.token})

    async def user(self, name: str) -> Json:
        return found(await self.get("/user", params={"name": name}))

    async def tweet(self, tweet_id: str) -> Json:
        return found(await self.get("/tweet", params={"tweet_id": tweet_id}))

    async def count(self, tweet: Json) -> int:
        count: int = (await self.tweet(tweet["id"]))["count_retweet"]
        return count

    async def all_pages(self, path: str, **params: Any) -> list[list[Json]]:
        """Every page of a list, by its `Link` headers."""
        response = await self.get(path, params=params)
        pages = [listed(response)]
        while link := next_page(response):
            response = await self.client.get(link)
            pages.append(listed(response))
            assert len(pages) < 1_000, "the pages never end"
        return pages


class Person:
    """A registered user."""

    def __init__(self, site: Site, registered: Json) -> None:
        self.site = site
        self.id: str = registered["user_id"]
        self.name: str = registered["name"]
        self.token: str | None = registered["token"]

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def posts(self, body: str, **more: Any) -> Json:
        return done(await self.site.post("/tweet", self, json={"user_name": self.name, "body": body, **more}), 201)

    async def retweets(self, tweet: Json, body: str = "", **more: Any) -> Json:
        asked = {"user_name": self.name, "retweet": tweet["id"], "body": body, **more}
        return done(await self.site.post("/retweet", self, json=asked), 201)

    async def follows(self, *others: "Person") -> None:
        for other in others:
            response = await self.site.post(f"/follow/{self.id}", self, json={"followee_id": other.id})
            assert response.status_code == 204, response.text

    async def unfollows(self, other: "Person") -> None:
        response = await self.site.delete(f"/follow/{self.id}", self, params={"followee_id": other.id})
        assert response.status_code == 204, response.text

    async def deletes(self, tweet: Json) -> None:
        response = await self.site.delete(f"/tweet/{self.id}", self, params={"tweet_id": tweet["id"]})
        assert response.status_code == 204, response.text

    async def leaves(self) -> None:
        response = await self.site.delete("/user", self, params={"user_id": self.id})
        assert response.status_code == 204, response.text

    async def feed(self, **params: Any) -> list[Json]:
        return listed(await self.site.get(f"/feed/{self.id}", params=params))

    async def profile(self) -> Json:
        return await self.site.user(self.name)


def client_of(app: ASGIApp, address: str = "127.0.0.1", **options: Any) -> httpx.AsyncClient:
    """A client that reaches an application without a socket, as if it came from this address."""
    transport = httpx.ASGITransport(app=cast("Any", app), client=(address, 40_000))
    return httpx.AsyncClient(transport=transport, **{"base_url": "http://127.0.0.1", **options})


@asynccontextmanager
async def open_site(data: Path, **settings: Any) -> AsyncIterator[Site]:
    """Run a server on a folder, without rate limits unless they are asked for."""
    chosen = Settings(data=data, **{"rate_limit": "off", **settings})
    async with open_server(chosen) as opened, client_of(opened.app) as client:
        yield Site(opened.app, chosen, client, opened.parts)


# --- reading answers -------------------------------------------------------------------------------------------------


def done(response: httpx.Response, status: int) -> Json:
    """What an accepted request is answered with."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    answer: Json = response.json()
    return answer


def found(response: httpx.Response) -> Json:
    return done(response, 200)


def listed(response: httpx.Response) -> list[Json]:
    """A list, which is a bare array."""
    answer: Any = done(response, 200)
    assert isinstance(answer, list)
    return answer


def next_page(response: httpx.Response) -> str | None:
    """Where the list goes on, by its `Link` header (RFC 8288)."""
    return response.links.get("next", {}).get("url")


def problem(response: httpx.Response) -> Json:
    """The problem (RFC 9457) that a refused request is answered with."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    said: Json = response.json()
    assert said.keys() == {"type", "title", "status", "detail", "code"}
    assert said["status"] == response.status_code
    assert said["type"] == f"urn:rookery:problem:{said['code']}"
    assert said["title"]
    assert said["detail"]
    assert response.headers["cache-control"] == "no-store"
    return said


def refused(response: httpx.Response, status: int, code: str) -> Json:
    said = problem(response)
    assert (response.status_code, said["code"]) == (status, code), said["detail"]
    return said


def said(response: httpx.Response) -> tuple[int, str]:
    """The status and code of a refusal, to compare many at once. An accepted one has no code."""
    return response.status_code, problem(response)["code"] if response.status_code >= 400 else ""


def bodies(tweets: list[Json]) -> list[str]:
    return [tweet["body"] for tweet in tweets]


def names(users: list[Json]) -> list[str]:
    return [user["name"] for user in users]
