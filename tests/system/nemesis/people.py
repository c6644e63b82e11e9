"""Clients who post, retweet, delete, follow, unfollow and read while everything fails around them."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.system.nemesis.community import Change, Community, Posted, Span
from tests.system.nemesis.place import Place, now

ANSWER_SECONDS = 3.0
"""How long a client waits before it asks the other server."""
WRITE_SECONDS = 60.0
"""How long a write is retried; more is a server that does not come back."""
_PAUSE = 0.03


@dataclass
class People:
    """Everyone's names, and what they share."""

    place: Place
    http: httpx.AsyncClient
    names: list[str]
    community: Community = field(default_factory=Community)
    stopped: bool = False
    refused: dict[str, int] = field(default_factory=dict)
    """Codes of answers that were not what a healthy server gives."""

    async def act(self, name: str, chance: random.Random) -> None:
        """One person, step by step, until all stop."""
        number = 0
        while not self.stopped:
            number += 1
            match chance.choices(("post", "retweet", "delete", "follow", "unfollow"), (6, 5, 2, 3, 2))[0]:
                case "post":
                    await self._post(name, number, None)
                case "retweet" if known := self._known():
                    await self._post(name, number, chance.choice(known))
                case "delete" if own := [body for body in self._known() if self.community.tweets[body].author == name]:
                    await self._delete(chance.choice(own))
                case "follow":
                    await self._follow(name, chance.choice([other for other in self.names if other != name]))
                case "unfollow":
                    await self._unfollow(name, chance)
            await asyncio.sleep(_PAUSE)

    async def look(self, chance: random.Random) -> None:
        """Someone who reads what everyone wrote, until all stop."""
        while not self.stopped:
            name, at = chance.choice(self.names), chance.randrange(2)
            match chance.choice(("feed", "feed", "author", "top")):
                case "feed":
                    await self._judge(at, f"/feed/@{name}?limit=100", "feed", name)
                case "author":
                    await self._judge(at, f"/tweet/@{name}?limit=100", "author", name)
                case "top":
                    await self._judge(at, "/top?limit=10", "top", name)
            await asyncio.sleep(_PAUSE / 3)

    async def _judge(self, at: int, path: str, kind: str, name: str) -> None:
        asked = now()
        answer = await self._ask(at, "GET", path)
        if answer is None or answer.status_code != 200:
            return
        received, shown, community = now(), answer.json(), self.community
        if len(shown) < 100 and kind == "feed":
            community.judge_feed(name, shown, asked, received)
        elif len(shown) < 100 and kind == "author":
            community.judge_authored(name, shown, asked, received)
        elif kind == "top":
            community.judge_top(shown, asked, received)
        community.judge_counts(shown, asked, received)

    def _known(self) -> list[str]:
        return [body for body, tweet in self.community.tweets.items() if tweet.id and tweet.delete is None]

    async def _post(self, name: str, number: int, parent: str | None) -> None:
        body = f"{name} {number}"
        sent = {"user_name": name, "body": body}
        path = "/tweet"
        if parent is not None:
            path, sent["retweet"] = "/retweet", self.community.tweets[parent].id
        posted = Posted(name, parent, Span(now()))
        self.community.tweets[body] = posted
        answer = await self._until_answered("POST", path, {201, 404}, json=sent)
        if answer.status_code == 404:  # its parent was deleted first
            assert answer.json()["code"] in ("deleted_tweet", "unknown_tweet"), answer.text
            assert parent is not None
            assert self.community.tweets[parent].delete is not None, f"{parent} is gone: {answer.text}"
            del self.community.tweets[body]
            return
        posted.post.ended, posted.id = now(), answer.json()["id"]

    async def _delete(self, body: str) -> None:
        tweet = self.community.tweets[body]
        tweet.delete = Span(now())
        await self._until_answered("DELETE", f"/tweet/@{tweet.author}?tweet_id={tweet.id}", {204})
        tweet.delete.ended = now()

    async def _follow(self, name: str, other: str) -> None:
        """Whom a person unfollowed they follow no more: see `_unfollow`."""
        changes = self.community.relations.setdefault((name, other), [])
        if changes and not changes[-1].follows:
            return
        change = Change(follows=True, span=Span(now()))
        changes.append(change)
        await self._until_answered("POST", f"/follow/@{name}", {204}, json={"followee_id": f"@{other}"})
        change.span.ended = now()

    async def _unfollow(self, name: str, chance: random.Random) -> None:
        """An unfollow has no key: one that was not answered may take effect after a later follow of the same author."""
        followed = [
            other
            for (one, other), changes in self.community.relations.items()
            if one == name and all(change.follows for change in changes)
        ]
        if not followed:
            return
        other = chance.choice(followed)
        change = Change(follows=False, span=Span(now()))
        self.community.relations[name, other].append(change)
        await self._until_answered("DELETE", f"/follow/@{name}?followee_id=@{other}", {204})
        change.span.ended = now()

    async def _until_answered(self, method: str, path: str, wanted: set[int], **sent: Any) -> httpx.Response:
        key = {"Idempotency-Key": uuid4().hex} if method == "POST" else {}
        at = len(key.get("Idempotency-Key", path)) % 2 if not key else int(key["Idempotency-Key"], 16) % 2
        async with asyncio.timeout(WRITE_SECONDS):
            while True:
                answer = await self._ask(at, method, path, headers=key, **sent)
                if answer is not None and answer.status_code in wanted:
                    return answer
                at = 1 - at
                await asyncio.sleep(0.05)

    async def _ask(self, at: int, method: str, path: str, **sent: Any) -> httpx.Response | None:
        try:
            answer = await self.http.request(method, self.place.servers[at].url + path, **sent)
        except httpx.HTTPError:
            return None
        if answer.status_code >= 500 or answer.status_code in (401, 403, 409, 422, 429):
            code = answer.json()["code"]
            self.refused[code] = self.refused.get(code, 0) + 1
            assert answer.status_code == 503, f"{method} {path}: {answer.text}"
        return answer

    async def found(self) -> None:
        """Make everyone, by a first tweet of each."""
        for name in self.names:
            await self._post(name, 0, None)

    async def until(self, at: int, path: str, wanted: list[str], seconds: float) -> None:
        """Until a whole list holds these ids in this order."""
        found: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                while (found := [item["id"] for item in await self._all(at, path)]) != wanted:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            bodies = {tweet.id: body for body, tweet in self.community.tweets.items()}
            missing = [bodies.get(each, each) for each in wanted if each not in found]
            extra = [bodies.get(each, each) for each in found if each not in wanted]
            raise AssertionError(
                f"{path} at server {at} after {self.place.told}: missing {missing}, extra {extra}"
            ) from None

    async def until_counted(self, at: int, counts: dict[str, int], seconds: float) -> None:
        """Until a server shows these counts, by id."""
        wrong: dict[str, tuple[int | None, int]] = {}
        try:
            async with asyncio.timeout(seconds):
                while wrong := await self._counted_wrong(at, counts):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"at server {at} after {self.place.told}: shown, right: {wrong}") from None

    async def _counted_wrong(self, at: int, counts: dict[str, int]) -> dict[str, tuple[int | None, int]]:
        shown: dict[str, int | None] = {}
        for name in self.names:
            shown |= {item["id"]: item["count_retweet"] for item in await self._all(at, f"/tweet/@{name}")}
        return {each: (shown.get(each), count) for each, count in counts.items() if shown.get(each) != count}

    async def _all(self, at: int, path: str) -> list[Any]:
        found: list[Any] = []
        following = f"{path}?limit=100"
        while following:
            answer = await self._ask(at, "GET", following)
            if answer is None or answer.status_code != 200:
                return []
            found += answer.json()
            following = answer.links.get("next", {}).get("url", "")
        return found
