"""Posting, retweeting, deleting and reading tweets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from rookery.domain.cursors import Page, foreign_cursor, read_cursor, write_cursor
from rookery.domain.errors import BrokenRule, Forbidden, deleted_tweet, unknown_tweet
from rookery.domain.idempotency import Once
from rookery.domain.ids import ID_BYTES, TweetId, millis_of
from rookery.domain.promises import Work
from rookery.domain.text import clean_body, clean_title
from rookery.domain.timeline import tweet_of
from rookery.domain.tweets import TweetRecord, in_chain, place_of
from rookery.domain.users import UserRecord
from rookery.ports.clock import Clock
from rookery.ports.steps import Steps, unwatched
from rookery.ports.store import Store
from rookery.services.accounts import Accounts
from rookery.services.callers import Caller
from rookery.services.counting import Counting
from rookery.services.fanout import Fanout
from rookery.services.filling import TWEET, Filler
from rookery.services.paging import full_page
from rookery.services.promises import Promises
from rookery.services.showing import Showing
from rookery.services.top import Top

BY_AUTHOR = "t"
CHAIN = "c"
MAX_INITIAL = 10**12
_PROMISED_MILLIS = 60_000
"""Age of a tweet whose promise was surely kept, so that it is not delivered again when its author asks again."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What someone wants to post. `initial` is the count it starts from."""

    title: str
    body: str
    retweet: TweetId | None = None
    initial: int = 0


@dataclass(frozen=True, slots=True)
class Posted:
    """A tweet that was asked for."""

    json: bytes
    """The `Tweet`, as its author was answered first."""
    had: bool
    """Whether it is a retweet that they had already, so that nothing was made."""


@dataclass(frozen=True, slots=True)
class Tweets:
    """Writes tweets and shows single ones. `most_depth` bounds how many may be above one in its chain."""

    store: Store
    filler: Filler
    clock: Clock
    accounts: Accounts
    showing: Showing
    fanout: Fanout
    top: Top
    promises: Promises
    most_depth: int
    counting: Counting
    reached: Steps = unwatched

    async def post(self, caller: Caller, author: UserRecord, draft: Draft, once: Once | None = None) -> bytes:
        """Write a tweet and bring it to its followers; returns the JSON of the `Tweet`.

        Raises:
            Forbidden: `not_yours`, `initial_count_refused`.
            BrokenRule: what the text breaks; `initial_count_range`.
            NotFound: `unknown_tweet`, `deleted_tweet`, for what is to be retweeted.
            Conflict: `chain_too_long`.
            Unavailable: `busy`, when too many tweets are on their way to their followers.
        """
        caller.require_self(author.id)
        return (await self._write(caller, author, _checked(caller, draft), once)).json

    async def post_as(self, caller: Caller, name: str, draft: Draft, once: Once | None = None) -> Posted:
        """As `post`, by the author's handle. In open mode a user who does not exist is made, if the draft is good.

        Outside open mode a retweet without title and text is made once for each author and tweet, while it is live.

        Raises:
            NotFound: `unknown_user`, and as `post`.
        """
        checked = _checked(caller, draft)
        author = await self.accounts.find_or_make(caller, name)
        caller.require_self(author.id)
        return await self._write(caller, author, checked, once)

    async def _write(self, caller: Caller, author: UserRecord, draft: Draft, once: Once | None) -> Posted:
        await self.fanout.admit(author.id)
        delivering = False
        try:
            # Its id is drawn only now, so that it is about as new as the tweet itself.
            tweet = TweetRecord(
                self.clock.new_tweet_id(), author.id, draft.title, draft.body, draft.retweet, initial=draft.initial
            )
            promise = self.promises.make(Work.POST, tweet.id)
            with self.showing.withheld(tweet.id):
                written = await self.store.add_tweet(tweet, self.most_depth, once, promise, single=not caller.anyone)
                # A repeated write is delivered and counted again: the first attempt may have ended between. Both take
                # it once. It has no promise of its own, as the first one's is on the list or was kept.
                if not (written.had and written.repeated) or self._is_new(written.tweet):
                    counted = not written.owes_count or await self.counting.tell(self.top.count, written.tweet)
                    delivering = True
                    kept = written.promise if counted else None  # else it stays on the list
                    await self.fanout.deliver(written.tweet.id, author.id, author.fanout, kept)
                    if not counted:
                        await self.counting.tell_late(self.top.count, written.tweet)
        finally:
            if not delivering:
                self.fanout.withdraw(author.id)
        self.showing.release(written.tweet.id)  # the first request for it may be under way still
        self.accounts.forget_counts(author.id)
        # The answer is the first one's, also if the tweet was deleted since: the same request had the same text.
        answer = await self.showing.show_new(msgspec.structs.replace(tweet, id=written.tweet.id), author.name)
        return Posted(answer, written.had)

    def _is_new(self, tweet: TweetRecord) -> bool:
        """Whether a tweet's first writer may have ended before it was delivered, and its promise not be kept yet."""
        return millis_of(tweet.id) > self.clock.now() - _PROMISED_MILLIS

    async def delete(self, caller: Caller, author: UserRecord, tweet: TweetId) -> None:
        """Hide a tweet everywhere at once and take its 1 back along its chain. Doing it twice changes nothing.

        Raises:
            Forbidden: `not_yours`.
            NotFound: `unknown_tweet`, also when it is another author's.
        """
        caller.require_self_or_admin(author.id)
        record = (await self.store.tweets([tweet])).get(tweet)
        if record is None or record.author != author.id:
            raise unknown_tweet()
        promise = self.promises.make(Work.DELETE, tweet)
        written = await self.store.delete_tweet(tweet, promise)
        self.reached("delete_tweet.written")
        await self.filler.drop([TWEET + tweet])
        counted = not written.owes_count or await self.counting.tell(self.top.uncount, written.tweet)
        if counted or await self.counting.tell_late(self.top.uncount, written.tweet):
            self.promises.keep(promise)
        self.accounts.forget_counts(author.id)

    async def get(self, tweet: TweetId) -> bytes:
        """The JSON of one `Tweet`.

        Raises:
            NotFound: `unknown_tweet`, `deleted_tweet`.
        """
        record = await self._live(tweet)
        shown = (await self.showing.show_records([record]))[0]
        if shown is None:
            raise deleted_tweet()
        return shown

    async def by_author(self, author: UserRecord, limit: int, cursor: str | None) -> Page[bytes]:
        """A page of one author's tweets, newest first. It is full while there are more."""

        async def read(below: TweetId | None, want: int) -> Sequence[bytes]:
            return (await self.store.tails([(author.id, below)], want))[0]

        below = TweetId(read_cursor(BY_AUTHOR, cursor)) if cursor is not None else None
        items, last = await full_page(limit, below, read, self.showing.show, tweet_of)
        return Page(items, write_cursor(BY_AUTHOR, last) if last is not None else None)

    async def chain(self, tweet: TweetId, limit: int, cursor: str | None) -> Page[bytes]:
        """A page of the JSON of `ChainedTweet`s: the tweet, the one it retweets, and so on up to the root.

        Raises:
            NotFound: `unknown_tweet`, `deleted_tweet`, for the first.
        """
        if cursor is not None:
            position = read_cursor(CHAIN, cursor, ids=2)
            if position[:ID_BYTES] != tweet:
                raise foreign_cursor()
            above: TweetId | None = (await self._record(TweetId(position[ID_BYTES:]))).retweet
        else:
            above = (await self._live(tweet)).id
        records: list[TweetRecord] = []
        while above is not None and len(records) < limit:
            records.append(await self._record(above))
            above = records[-1].retweet
        shown = await self.showing.show_records(records)
        items = [
            in_chain(item) if item is not None else place_of(record)
            for record, item in zip(records, shown, strict=True)
        ]
        return Page(items, write_cursor(CHAIN, tweet + records[-1].id) if above is not None else None)

    async def originals(self, tweets: Mapping[TweetId, TweetId]) -> dict[TweetId, bytes | None]:
        """What each retweet (the key) retweets (the value), as the JSON of a `Tweet`; None where it is gone."""
        records = await self.store.tweets(list(tweets.values()))
        known = [records[parent] for parent in tweets.values() if parent in records]
        shown = dict(zip([record.id for record in known], await self.showing.show_records(known), strict=True))
        return {tweet: shown.get(parent) for tweet, parent in tweets.items()}

    async def _record(self, tweet: TweetId) -> TweetRecord:
        record = (await self.store.tweets([tweet])).get(tweet)
        if record is None or self.showing.is_withheld(tweet):
            raise unknown_tweet()
        return record

    async def _live(self, tweet: TweetId) -> TweetRecord:
        record = await self._record(tweet)
        if record.deleted or not await self.showing.is_alive(record.author):
            raise deleted_tweet()
        return record


def _checked(caller: Caller, draft: Draft) -> Draft:
    """The draft with its text cleaned, if this caller may post it."""
    if not 0 <= draft.initial <= MAX_INITIAL:
        raise BrokenRule("initial_count_range", f"count_retweet starts from 0 to {MAX_INITIAL}.")
    if draft.initial and not caller.may_administer:
        raise Forbidden("initial_count_refused", "Only an administrator may start count_retweet from more than 0.")
    body = clean_body(draft.body, may_be_empty=draft.retweet is not None)
    return Draft(clean_title(draft.title), body, draft.retweet, draft.initial)
