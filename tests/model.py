"""The rules of the domain by brute force: what every answer must equal, however it was cached, merged or counted."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rookery.domain.ids import TweetId, parse_id


@dataclass
class Posted:
    author: str
    retweet: bytes | None
    initial: int
    deleted: bool = False


@dataclass
class Model:
    """Users go by any name; tweets by their ids, which sort by time."""

    tweets: dict[bytes, Posted] = field(default_factory=dict)
    following: dict[str, set[str]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)

    def post(self, tweet: bytes, author: str, retweet: bytes | None = None, initial: int = 0) -> None:
        self.tweets[tweet] = Posted(author, retweet, initial)

    def delete(self, tweet: bytes) -> None:
        self.tweets[tweet].deleted = True

    def delete_user(self, user: str) -> None:
        self.gone.add(user)
        for posted in self.tweets.values():
            posted.deleted |= posted.author == user
        self.following.pop(user, None)
        for followees in self.following.values():
            followees.discard(user)

    def follow(self, follower: str, followee: str) -> None:
        self.following.setdefault(follower, set()).add(followee)

    def unfollow(self, follower: str, followee: str) -> None:
        self.following.setdefault(follower, set()).discard(followee)

    def live(self) -> list[bytes]:
        return sorted((tweet for tweet, posted in self.tweets.items() if not posted.deleted), reverse=True)

    def feed(self, user: str) -> list[bytes]:
        return self.feeds([user])[user]

    def feeds(self, users: Iterable[str]) -> dict[str, list[bytes]]:
        """Those of many, from what each author wrote: one by one takes a minute for thousands."""
        written: dict[str, list[bytes]] = {}
        for tweet in self.live():
            written.setdefault(self.tweets[tweet].author, []).append(tweet)
        return {
            user: sorted(
                (tweet for followee in self.following.get(user, ()) for tweet in written.get(followee, ())),
                reverse=True,
            )
            for user in users
        }

    def by_author(self, user: str) -> list[bytes]:
        return [tweet for tweet in self.live() if self.tweets[tweet].author == user]

    def chain(self, tweet: bytes) -> list[bytes]:
        found = [tweet]
        while (above := self.tweets[found[-1]].retweet) is not None:
            found.append(above)
        return found

    def counts(self) -> dict[bytes, int]:
        counts = {tweet: posted.initial for tweet, posted in self.tweets.items()}
        for tweet in self.live():
            for above in self.chain(tweet)[1:]:
                counts[above] += 1
        return counts

    def top(self, limit: int) -> list[bytes]:
        counts = self.counts()
        return sorted(self.live(), key=lambda tweet: (counts[tweet], tweet), reverse=True)[:limit]


def id_of(item: bytes) -> TweetId:
    """The id in a tweet's JSON, where it comes first."""
    return TweetId(parse_id(item[7:43].decode()))
