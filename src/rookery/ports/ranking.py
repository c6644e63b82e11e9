"""The ranking: how often each tweet was retweeted along its chains, and which lead."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link

Progress = Callable[[int], None]
"""Told how many more items are done."""


Place = tuple[TweetId, TweetId]
"""A tweet, and the root of its chain, with which it may lie: the tweet itself if it retweets nothing."""


@dataclass(frozen=True, slots=True)
class Recount:
    """What a recount found."""

    tweets: int
    """Tweets of the store."""
    drifted: int
    """Tweets that were missing or too many, or whose count, initial count or state was wrong. They are right now."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A tweet in the top list."""

    tweet: TweetId
    count: int


class Links(Protocol):
    """The links of the store, which are the truth that a recount goes by."""

    def walk(self) -> AsyncIterator[Sequence[Link]]:
        """All of them in batches, those of deleted tweets too, each as it stands when it is read."""
        ...

    async def of(self, tweets: Sequence[TweetId]) -> Sequence[Link]:
        """Those of these tweets that the store has, as they are now."""
        ...


class Ranking(Protocol):
    """`count(t) = initial(t) + live tweets whose chain holds t`, for every tweet it was told of.

    Each tweet goes from absent to live to gone and never back. A change is atomic along the whole chain and counts once
    however often it is retried; `remove` before `add` leaves a tweet gone. Every method raises `Unavailable` when the
    ranking can't be reached.
    """

    async def add(self, link: Link) -> bool:
        """Count a live tweet: it starts from its initial count, and each tweet above it gets 1.

        False when a tweet of its chain is missing here: then nothing changed, and the caller adds those above it first.
        A link that is not live is put in its place in the chain and counts for nobody.
        """
        ...

    async def remove(self, link: Link) -> bool:
        """Take a deleted tweet out of the top list and its 1 back from each above it. False as for `add`."""
        ...

    async def counts(self, tweets: Sequence[Place]) -> list[int]:
        """The counts in the order asked, 0 for a tweet it was never told of."""
        ...

    async def top(self, limit: int, after: Ranked | None = None) -> list[Ranked]:
        """The live tweets of the greatest counts, the newest first where they are equal, going on behind `after`.

        Hidden ones are left out. Where one server or file has the whole ranking, all of the list is of one moment.
        """
        ...

    async def hide(self, tweets: Sequence[Place]) -> None:
        """Leave tweets out of the top list. They count as before, and `remove` takes them back as before.

        Hiding one twice, or one that is gone or was never told of, changes nothing. A recount leaves hidden ones so.
        """
        ...

    async def recount(self, links: Links, progress: Progress) -> Recount:
        """Make every count right by the links of the store, while others go on adding and removing.

        Tweets that the store does not know are forgotten. One that is gone here comes back only if the store, asked
        again, still has it.
        """
        ...

    async def run(self) -> bytes:
        """What is another one whenever the ranking may have forgotten the last that it was told; b"" if it never does.

        Whoever sees it change tells again what was counted within ten minutes.
        """
        ...

    @property
    def failures(self) -> int:
        """How many calls of this process the ranking could not answer; 0 for one that never forgets."""
        ...

    @property
    def is_vouched(self) -> bool:
        """Whether no call failed since `vouch`; True for a ranking that never forgets."""
        ...

    def vouch(self, run: bytes, failures: int) -> None:
        """Declare that a run has all that it was to be told, as of the moment when so many calls had failed.

        A ranking that may forget can be opened so that it needs this. Then `counts` and `top` raise `Unavailable`
        before it, in every other run, and after a call of this process failed: some counts may be behind then.
        """
        ...

    async def check(self) -> None:
        """Return if it can serve.

        Raises:
            Unavailable: `ranking_unavailable`.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...
