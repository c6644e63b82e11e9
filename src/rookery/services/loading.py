"""Loading graphs and tweets from elsewhere. Every step can be done twice: what is there already is left as it is."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NewType

from rookery.domain.errors import BrokenRule, Conflict, half_made_user, unknown_user
from rookery.domain.ids import TweetId, UserId, id_at
from rookery.domain.promises import Work
from rookery.domain.text import clean_body, clean_title
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord, check_name, name_key
from rookery.ports.clock import Clock
from rookery.ports.store import Credentials, Store
from rookery.services.promises import Promises
from rookery.services.top import Top
from rookery.services.tweets import MAX_INITIAL

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class FoundTweet:
    """A tweet of a file. `key` names it within its source: the same key and date give the same id, so it loads once."""

    author: str
    title: str
    body: str
    millis: int
    key: str
    initial: int = 0


CheckedTweet = NewType("CheckedTweet", FoundTweet)
"""One whose text is clean, and which may be a tweet: what `check` gives."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading some rows did."""

    read: int = 0
    added: int = 0
    users: int = 0
    skipped: int = 0

    def __add__(self, other: "Loaded") -> "Loaded":
        return Loaded(
            self.read + other.read,
            self.added + other.added,
            self.users + other.users,
            self.skipped + other.skipped,
        )


class Loading:
    """Loads rows in batches. It remembers whom it has met, so one is used for one file."""

    def __init__(self, store: Store, clock: Clock, top: Top, promises: Promises) -> None:
        self._store = store
        self._clock = clock
        self._top = top
        self._promises = promises
        self._known: dict[str, UserId] = {}

    async def follows(self, pairs: Sequence[tuple[str, str]]) -> Loaded:
        """Load (follower, followee) by handle; who does not exist is made. Following oneself is skipped.

        Raises:
            BrokenRule: `name_invalid`.
            NotFound: `unknown_user`, for the handle of a deleted user.
            Unavailable: `busy`, for that of one who is being made.
        """
        users = await self._resolve(name for pair in pairs for name in pair)
        found = [(self._id(follower), self._id(followee)) for follower, followee in pairs]
        real = [pair for pair in found if pair[0] != pair[1]]
        added = await self._store.add_follows(real, self._clock.now())
        return Loaded(len(pairs), added, users, len(found) - len(real))

    async def tweets(self, found: Sequence[CheckedTweet]) -> Loaded:
        """Load tweets with their dates and initial counts; an author who does not exist is made.

        Raises:
            NotFound: `unknown_user`, for the handle of a deleted user.
            Unavailable: `busy`, for that of one who is being made.
        """
        users = await self._resolve(tweet.author for tweet in found)
        written = await self._store.add_tweets([self._record(tweet) for tweet in found])
        owed = [one.tweet for one in written if one.owes_count]
        for tweet in owed:
            await self._top.count(tweet)
        await self._promises.note((Work.POST, tweet.id) for tweet in owed)
        return Loaded(len(found), sum(not one.repeated for one in written), users)

    def _record(self, found: CheckedTweet) -> TweetRecord:
        entropy = sha256(f"{name_key(found.author)}\0{found.key}".encode()).digest()
        return TweetRecord(
            id=TweetId(id_at(found.millis, entropy)),
            author=self._id(found.author),
            title=found.title,
            body=found.body,
            initial=found.initial,
        )

    def _id(self, name: str) -> UserId:
        return self._known[name_key(name)]

    async def _resolve(self, names: Iterable[str]) -> int:
        """Know the ids of all these, making who is missing; how many were made."""
        new = {name_key(name): name for name in names}
        missing = [name for key, name in new.items() if key not in self._known]
        made = 0
        for start in range(0, len(missing), _AT_ONCE):
            made += sum(await asyncio.gather(*map(self._find_or_make, missing[start : start + _AT_ONCE])))
        return made

    async def _find_or_make(self, name: str) -> bool:
        user = UserRecord(id=self._clock.new_user_id(), name=check_name(name), display_name=name)
        found = await self._store.user_by_name(name)
        if found is None:
            try:
                self._known[name_key(name)] = await self._store.add_user(user, Credentials())
                return True
            except Conflict:  # beside us someone registered under it
                found = await self._store.user_by_name(name)
        if found is None:
            raise half_made_user()
        if found.deleted:
            raise unknown_user()
        self._known[name_key(name)] = found.id
        return False


def check(found: FoundTweet) -> CheckedTweet:
    """The tweet with its text cleaned, if it may be one.

    Raises:
        BrokenRule: what it breaks.
        Malformed: `malformed_date`.
    """
    if not 0 <= found.initial <= MAX_INITIAL:
        raise BrokenRule("initial_count_range", f"count_retweet starts from 0 to {MAX_INITIAL}.")
    id_at(found.millis, bytes(10))
    return CheckedTweet(
        FoundTweet(
            check_name(found.author),
            clean_title(found.title),
            clean_body(found.body, may_be_empty=False),
            found.millis,
            found.key,
            found.initial,
        )
    )
