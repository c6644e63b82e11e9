"""Following and unfollowing, and who follows whom."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from rookery.domain.cursors import Page, read_cursor, write_cursor
from rookery.domain.errors import BrokenRule, NotFound
from rookery.domain.idempotency import Once
from rookery.domain.ids import UserId
from rookery.domain.promises import Promise, Work
from rookery.domain.users import User, UserRecord
from rookery.ports.clock import Clock
from rookery.ports.steps import Steps, unwatched
from rookery.ports.store import Store
from rookery.services.accounts import Accounts
from rookery.services.callers import Caller
from rookery.services.filling import EXCEPTIONS, RELATION, TIMELINE, Filler
from rookery.services.paging import full_page
from rookery.services.promises import Promises

FOLLOWEES = "e"
FOLLOWERS = "r"


@dataclass(frozen=True, slots=True)
class Follows:
    """Who follows whom. `most` is how many one may follow."""

    store: Store
    filler: Filler
    clock: Clock
    accounts: Accounts
    promises: Promises
    most: int
    reached: Steps = unwatched

    async def follow(self, caller: Caller, follower: UserRecord, followee: UserRecord, once: Once | None) -> None:
        """Let one follow another. Doing it twice changes nothing.

        Raises:
            Forbidden: `not_yours`.
            BrokenRule: `self_follow`.
            Conflict: `too_many_followees`.
        """
        self._check(caller, follower.id, followee.id)
        promise = self.promises.make(Work.FOLLOWS, follower.id)
        await self.store.follow(follower.id, followee.id, self.clock.now(), self.most, once, promise=promise)
        self.reached("follow.written")
        await self._changed(follower.id, followee.id, promise)

    async def is_done(self, once: Once, follower: str) -> bool:
        """Whether the follow of this key was done: then it is answered alike, also if a user is gone since.

        Its effect on what is cached is made again: who did it first may have ended before that. `follower` is the
        reference in the request.

        Raises:
            BrokenRule: `idempotency_key_reused`.
        """
        if await self.store.recall(once) is None:
            return False
        with suppress(NotFound):
            await drop_relation(self.filler, await self.accounts.find_id(follower))
        return True

    async def unfollow(self, caller: Caller, follower: UserRecord, followee: UserRecord) -> None:
        """End that one follows another. Doing it twice changes nothing.

        Raises:
            Forbidden: `not_yours`.
            BrokenRule: `self_follow`.
        """
        self._check(caller, follower.id, followee.id)
        promise = self.promises.make(Work.FOLLOWS, follower.id)
        await self.store.unfollow(follower.id, followee.id, self.clock.now(), promise)
        self.reached("unfollow.written")
        await self._changed(follower.id, followee.id, promise)

    async def followees(self, user: UserRecord, limit: int, cursor: str | None) -> Page[User]:
        """Whom a user follows, the newest members first."""
        return await self._page(FOLLOWEES, partial(self.store.followees, user.id), limit, cursor)

    async def followers(self, user: UserRecord, limit: int, cursor: str | None) -> Page[User]:
        """Who follows a user, the newest members first."""
        return await self._page(FOLLOWERS, partial(self.store.followers, user.id), limit, cursor)

    def _check(self, caller: Caller, follower: UserId, followee: UserId) -> None:
        caller.require_self(follower)
        if follower == followee:
            raise BrokenRule("self_follow", "A user can't follow or unfollow himself.")

    async def _changed(self, follower: UserId, followee: UserId, promise: Promise | None) -> None:
        await drop_relation(self.filler, follower)
        self.promises.keep(promise)
        self.accounts.forget_counts(follower, followee)

    async def _page(
        self,
        kind: str,
        read: Callable[[UserId | None, int], Awaitable[Sequence[UserId]]],
        limit: int,
        cursor: str | None,
    ) -> Page[User]:
        below = UserId(read_cursor(kind, cursor)) if cursor is not None else None
        users, last = await full_page(limit, below, read, self.accounts.show_all, lambda user: user)
        return Page(users, write_cursor(kind, last) if last is not None else None)


async def drop_relation(filler: Filler, follower: UserId) -> None:
    """What was made from the relation goes, in this order: a timeline filled after its drop reads the new one."""
    await filler.drop([RELATION + follower, EXCEPTIONS + follower])
    await filler.drop([TIMELINE + follower])
