"""What a community did and saw, and what its answers may be: a model with the time that each write took.

Each write is retried until it is answered, under one key where it has one, so in the end each is known to be done.
Until then it may have taken effect at any moment since it was begun. An answer is judged by the moments at which it was
asked for and received.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass
class Span:
    """When a write was begun and when it was answered, by the monotonic clock."""

    begun: float
    ended: float = math.inf

    def is_before(self, moment: float) -> bool:
        """Whether it had surely taken effect."""
        return self.ended < moment

    def may_be_before(self, moment: float) -> bool:
        """Whether it may have taken effect."""
        return self.begun < moment


@dataclass
class Posted:
    """A tweet, known by its body, which is its own."""

    author: str
    parent: str | None
    post: Span
    delete: Span | None = None
    id: str = ""

    def is_there(self, asked: float, received: float) -> bool:
        """Whether each answer must show it."""
        return self.post.is_before(asked) and not (self.delete and self.delete.may_be_before(received))

    def may_be_there(self, asked: float, received: float) -> bool:
        """Whether an answer may show it."""
        return self.post.may_be_before(received) and not (self.delete and self.delete.is_before(asked))


@dataclass
class Change:
    """A follow or an unfollow."""

    follows: bool
    span: Span


@dataclass
class Community:
    """All that was done so far."""

    tweets: dict[str, Posted] = field(default_factory=dict)
    relations: dict[tuple[str, str], list[Change]] = field(default_factory=dict)
    """The changes of each (follower, followee), which one client makes one after the other."""
    checked: dict[str, int] = field(default_factory=dict)
    """How many answers of each kind were judged."""

    def judge_authored(self, author: str, shown: Sequence[Mapping[str, Any]], asked: float, received: float) -> None:
        """A whole list of one author's tweets."""
        self._count("authored")
        bodies = self._judge_shown(shown, asked, received)
        wanted = {
            body for body, tweet in self.tweets.items() if tweet.author == author and tweet.is_there(asked, received)
        }
        assert wanted <= bodies, f"tweets of {author} are missing from the author's list: {sorted(wanted - bodies)}"

    def judge_feed(self, reader: str, shown: Sequence[Mapping[str, Any]], asked: float, received: float) -> None:
        """A whole feed. Of what was posted since the reader's follow nothing need be there yet."""
        self._count("feeds")
        bodies = self._judge_shown(shown, asked, received)
        for body in bodies:
            author = self.tweets[body].author
            assert self._may_follow(reader, author, asked, received), f"{reader} unfollowed {author}: {body}"
        for (follower, author), changes in self.relations.items():
            since = _followed_since(changes, asked, received) if follower == reader else None
            if since is not None:
                wanted = {
                    body
                    for body, tweet in self.tweets.items()
                    if tweet.author == author and tweet.post.ended < since and tweet.is_there(asked, received)
                }
                assert wanted <= bodies, f"the follow of {author} has no effect yet: {sorted(wanted - bodies)}"

    def judge_counts(self, shown: Iterable[Mapping[str, Any]], asked: float, received: float) -> None:
        """The counts of some tweets: right, or null."""
        for item in shown:
            if item["count_retweet"] is None:
                self._count("nulls")
                continue
            self._count("counts")
            retweets = list(self._retweets_of(item["body"]))
            least = sum(tweet.is_there(asked, received) for tweet in retweets)
            most = sum(tweet.may_be_there(asked, received) for tweet in retweets)
            assert least <= item["count_retweet"] <= most, (
                f"{item['body']} shows {item['count_retweet']} retweets instead of {least} to {most}"
            )

    def judge_top(self, shown: Sequence[Mapping[str, Any]], asked: float, received: float) -> None:
        """The top list: in the order of the counts that it shows, ties newest first."""
        self._count("tops")
        self._judge_shown(shown, asked, received, descending=False)
        places = [(item["count_retweet"], UUID(item["id"]).bytes) for item in shown]
        assert None not in [count for count, _ in places], "the list is made of counts"
        assert places == sorted(places, reverse=True), f"not in its order: {places}"

    def feed(self, reader: str) -> list[str]:
        """What a feed holds in the end, newest first."""
        authors = {author for (one, author), changes in self.relations.items() if one == reader and changes[-1].follows}
        return self._newest(tweet for tweet in self.tweets.values() if tweet.author in authors)

    def authored(self, author: str) -> list[str]:
        """What an author's list holds in the end, newest first."""
        return self._newest(tweet for tweet in self.tweets.values() if tweet.author == author)

    def counts(self) -> dict[str, int]:
        """The counts of all tweets that are there in the end, by id."""
        return {
            tweet.id: sum(each.delete is None for each in self._retweets_of(body))
            for body, tweet in self.tweets.items()
            if tweet.delete is None
        }

    def _judge_shown(
        self, shown: Sequence[Mapping[str, Any]], asked: float, received: float, *, descending: bool = True
    ) -> set[str]:
        bodies = [item["body"] for item in shown]
        assert len(bodies) == len(set(bodies)), f"a tweet is there twice: {bodies}"
        for body in bodies:
            assert self.tweets[body].may_be_there(asked, received), f"a deleted tweet came back: {body}"
        ids = [UUID(item["id"]).bytes for item in shown]
        assert not descending or ids == sorted(ids, reverse=True), "not newest first"
        return set(bodies)

    def _may_follow(self, reader: str, author: str, asked: float, received: float) -> bool:
        changes = self.relations.get((reader, author), [])
        settled = [change for change in changes if change.span.is_before(asked)]
        open_still = [change for change in changes[len(settled) :] if change.span.may_be_before(received)]
        return any(change.follows for change in (*settled[-1:], *open_still))

    def _retweets_of(self, body: str) -> Iterator[Posted]:
        for tweet in self.tweets.values():
            above = tweet.parent
            while above is not None:
                if above == body:
                    yield tweet
                    break
                above = self.tweets[above].parent

    def _newest(self, tweets: Iterable[Posted]) -> list[str]:
        live = [tweet.id for tweet in tweets if tweet.delete is None]
        return sorted(live, key=lambda text: UUID(text).bytes, reverse=True)

    def _count(self, kind: str) -> None:
        self.checked[kind] = self.checked.get(kind, 0) + 1


def _followed_since(changes: Sequence[Change], asked: float, received: float) -> float | None:
    """When the follow was begun that surely holds during an answer; None where there is no such."""
    begun = [change for change in changes if change.span.may_be_before(received)]
    if begun and begun[-1].follows and begun[-1].span.is_before(asked):
        return begun[-1].span.begun
    return None
