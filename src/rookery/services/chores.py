"""What is done without anyone asking: purging deleted users, moving celebrities, forgetting what is past its time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from rookery.domain.errors import Unavailable
from rookery.domain.ids import UserId
from rookery.domain.promises import Work
from rookery.domain.tallies import Reading, Tally
from rookery.ports.clock import Clock
from rookery.ports.store import Store
from rookery.services.accounts import Accounts
from rookery.services.fanout import Fanout
from rookery.services.filling import TWEET, Filler
from rookery.services.repeating import Repeating
from rookery.services.sweeping import Sweeping
from rookery.services.telling import Telling
from rookery.services.timekeeping import NOTED_SECONDS, Timekeeping
from rookery.services.top import Top

_log = logging.getLogger(__name__)

_OFTEN_SECONDS = 1.0
_SELDOM_SECONDS = 60.0
_PURGE_STEP = 200
_PURGED_USERS = 10
_HIDDEN_USERS = 100


@dataclass(frozen=True, slots=True)
class Chores:
    """The background jobs. Each is resumable: what it finds to do is in the store."""

    store: Store
    filler: Filler
    clock: Clock
    accounts: Accounts
    fanout: Fanout
    top: Top
    sweeping: Sweeping
    telling: Telling
    timekeeping: Timekeeping
    hidden: dict[UserId, bytes | None] = field(default_factory=dict)
    """Deleted users whose tweets this process has hidden from the top list, while they wait for `purge`, each with the
    run of the ranking in which that was."""
    failed: Tally[str] = field(default_factory=Tally)

    async def run(self) -> None:
        """Do them all, again and again, until cancelled."""
        async with asyncio.TaskGroup() as group:  # some take minutes now and then, which the others must not wait for
            for name, chore, seconds in (
                ("sweep", self.sweep, _OFTEN_SECONDS),
                ("hide", self.hide, _OFTEN_SECONDS),
                ("purge", self.purge, _OFTEN_SECONDS),
                ("tell", self.telling.tell_again, _OFTEN_SECONDS),
                ("note", self.timekeeping.note, NOTED_SECONDS),
                ("review", self.fanout.review, _SELDOM_SECONDS),
                ("tidy", self.tidy, _SELDOM_SECONDS),
            ):
                group.create_task(self._repeat(name, chore, seconds), name=name)

    def readings(self) -> Iterable[Reading]:
        """How often each failed."""
        for name, many in self.failed.items():
            yield Reading(
                "chore_failures_total", "How often a regular task failed; it is tried again.", many, {"chore": name}
            )

    async def _repeat(self, name: str, chore: Callable[[], Awaitable[None]], seconds: float) -> None:
        failures = Repeating()
        while True:
            failure = await self._try(chore)
            if failure is not None:
                self.failed.add(name)
                if failures.is_due(type(failure).__name__):
                    _tell(name, failure)
            await asyncio.sleep(seconds)

    async def do_all(self) -> None:
        """Do each once."""
        await self.telling.tell_again()
        await self.hide()
        await self.purge()
        await self.sweep()
        await self.fanout.review()
        await self.tidy()

    async def sweep(self) -> None:
        """Keep what was promised and not kept in time."""
        await self.sweeping.sweep()

    async def tidy(self) -> None:
        """Forget what is past its time."""
        await self.store.tidy(self.clock.now())

    async def _try(self, chore: Callable[[], Awaitable[None]]) -> Exception | None:
        """Why it failed, if it did."""
        try:
            await chore()
        except Exception as error:  # noqa: BLE001 - one chore's mistake must not end the others
            return error
        return None

    async def hide(self) -> None:
        """Take the tweets of deleted users out of the top list, as `purge` takes minutes for those of one who has many.

        After a start this is done once more for each who waits, as it may have been broken off; and for all when the
        ranking was told anew, as of what it had before.
        """
        run = self.telling.run
        waiting = set(await self.store.users_to_purge(len(self.hidden) + _HIDDEN_USERS))
        for user in self.hidden.keys() - waiting:
            del self.hidden[user]
        for user in waiting:
            if user in self.hidden and self.hidden[user] == run:
                continue
            try:
                await self.top.hide(user)
                self.hidden[user] = run
            except Unavailable:  # one whose rows can't be reached holds up nobody
                pass
            except Exception:  # noqa: BLE001 - nor does another mistake
                _log.exception("the tweets of a deleted user can't be taken out of the top list")

    async def purge(self) -> None:
        """Take the rows of deleted users away, in short steps. One whose rows can't be reached holds up nobody."""
        waiting: set[UserId] = set()
        while users := set(await self.store.users_to_purge(_PURGED_USERS + len(waiting))) - waiting:
            for user in users:
                try:
                    await self.purge_user(user)
                except Unavailable:
                    waiting.add(user)
                except Exception:  # noqa: BLE001 - one must not keep the others
                    _log.exception("the rows of a deleted user can't be taken away")
                    waiting.add(user)
        if waiting:
            _log.warning("the rows of %d deleted users wait for the store", len(waiting))

    async def purge_user(self, user: UserId) -> None:
        """Take one deleted user's rows away."""
        promises = self.sweeping.promises
        while (
            deleted := await self.store.purge_user(user, _PURGE_STEP, partial(promises.make, Work.DELETE))
        ) is not None:
            await self.filler.drop([TWEET + written.tweet.id for written in deleted])
            for written in deleted:
                if written.owes_count:
                    await self.top.uncount(written.tweet)
                promises.keep(written.promise)
            await asyncio.sleep(0)
        self.accounts.forget_all_counts()


def _tell(name: str, failure: Exception) -> None:
    """Log why a regular task failed."""
    if isinstance(failure, Unavailable):
        _log.warning("the task %s waits: %s", name, failure.message, exc_info=failure.__cause__)
    else:
        _log.error("the task %s failed; it is tried again", name, exc_info=failure)
