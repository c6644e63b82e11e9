"""Writing to shards: one operation decides, atomically with all that lies in its shard, and others follow from it.

What follows in other shards, as there are on a cluster, is owed: noted where it was decided, in the same step. Whoever
writes does it and takes the note off; if he dies before, a sweep does it. So a write happens as a whole or not at all.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum

from rookery.adapters.redis.calling import Library, Shard, all_of
from rookery.adapters.redis.rows import millis
from rookery.adapters.redis.shards import Shards
from rookery.domain.errors import Conflict, Failure, Unavailable, unknown_tweet, unknown_user
from rookery.domain.idempotency import KEPT_MILLIS, Once, reused
from rookery.domain.ids import ZERO, id_at
from rookery.ports.clock import Clock

_log = logging.getLogger(__name__)

_SWEPT_AT_ONCE = 100
_TURNS = 5
"""How often a key is looked at again when somebody else with the same key came to another end meanwhile."""


class _Again(Exception):
    """Somebody else with the same claim was refused, or was not, while this one was about to be told the other."""


def unavailable(error: Exception | None = None) -> Unavailable:
    """What is told when Redis can't do it now."""
    made = Unavailable("store_unavailable", "The store can't be read or written now.")
    made.__cause__ = error
    return made


LIBRARY = Library(
    "store",
    2,
    {
        "name_taken": lambda: Conflict("name_taken", "This name is taken."),
        "too_many_followees": lambda: Conflict("too_many_followees", "A user can't follow more others."),
        "unknown_user": unknown_user,
        "unknown_tweet": unknown_tweet,
        "idempotency_key_reused": reused,
        "released": _Again,
    },
    unavailable,
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One of `store.lua`, in the shard that it is about."""

    shard: Shard
    name: str
    arguments: tuple[bytes | str | int, ...]

    def parts(self) -> list[bytes | str | int]:
        """As functions take it."""
        return [self.shard.base, self.name, len(self.arguments), *self.arguments]


HAD = b"had"
"""What is decided of a bare retweet whose author has one already; the one that they have follows."""


class Tells(IntEnum):
    """What of a decision is told to whoever asks again with the same key."""

    NOTHING = 0
    WHETHER_NEW = 1
    """One byte, 1 if it was."""
    HAD = 2
    """The id of the tweet that an author had already; nothing where they had none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a write with an idempotency key."""

    decided: Sequence[bytes]
    made: bytes
    """What the key stands for: the id that this write made, or the first one with its key."""
    told: bytes | None = None
    """What was told with it, if this was done before."""


Plan = Callable[[bytes, bool], Awaitable[Sequence[Operation]]]
"""The operations of a write that makes this id, the one that decides first; True if that was decided before."""


class Writing:
    """Writes to these shards. `seconds` bounds each write."""

    def __init__(self, shards: Shards, clock: Clock, seconds: float) -> None:
        self._shards = shards
        self._by_base = {shard.base: shard for shard in shards.all}
        self._clock = clock
        self._seconds = seconds
        self._behind: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._answered = asyncio.Event()
        self._closed = False

    async def write(self, first: Operation, *then: Operation) -> Sequence[bytes]:
        """Do what is decided by the first of these, and what follows from it; what was decided.

        Raises:
            Failure: what was refused.
            Unavailable: `store_unavailable`.
        """
        async with self.bounded():
            return (await self._write([first, *then]))[0]

    async def write_once(
        self, once: Once | None, made: bytes, home: Shard, plan: Plan, *, tells: Tells = Tells.NOTHING
    ) -> Outcome:
        """The same, but once for a key, where it is `home` that decides."""
        async with self.bounded():
            if once is None:
                return Outcome((await self._write(await plan(made, False)))[0], made)
            if len(self._shards.all) == 1:
                return await self._write_recorded(once, made, plan, tells=tells)
            for _ in range(_TURNS):
                with suppress(_Again):
                    return await self._write_claimed(once, made, home, plan, tells=tells)
            raise unavailable()

    async def _write_recorded(self, once: Once, made: bytes, plan: Plan, *, tells: Tells) -> Outcome:
        """With the key in the same shard as all else, and so in the same step."""
        row = await self.row_of(once)
        if row is None:
            operations = await plan(made, False)
            note = self._note(once, made, tells=tells)
            decided, row = await self._write([*operations, note], key=once.key, digest=once.digest, since=_since(once))
            if row is None:
                return Outcome(decided, made)
        return Outcome([], row[0], row[2])

    async def _write_claimed(self, once: Once, made: bytes, home: Shard, plan: Plan, *, tells: Tells) -> Outcome:
        """With the key in a shard of its own: it is claimed first, for an id that whoever asks again makes too."""
        shard = self._shards.of_key(once.key)
        row = (once.key, once.digest, _since(once), millis(once.at), made, self._clock.random(16))
        first_made, state, told = await shard.call_and_copy("claim", *row)
        if state == b"D":
            return Outcome([], first_made, told)
        claim = told
        try:
            is_decided = state == b"C" and await home.call("is_begun", claim) == 1
            operations = await plan(first_made, is_decided)
            decided, _ = await self._write([*operations, self._note(once, first_made, tells=tells)], key=claim)
        except Unavailable:
            raise
        except _Again:  # whoever was refused may have died before he gave it up
            await shard.call_and_copy("release", once.key, claim)
            raise
        except Failure:
            if not await home.call_and_copy("refuse", claim):  # so that nobody who holds this claim goes on with it
                raise _Again from None
            await shard.call_and_copy("release", once.key, claim)
            raise
        return Outcome(decided, first_made)

    async def row_of(self, once: Once) -> Sequence[bytes] | None:
        """What a key's write made, its state (C while it is begun, D when done) and what was told; None if none was."""
        shard = self._shards.of_key(once.key)
        row: Sequence[bytes] | None = await shard.call("recall", once.key, once.digest, _since(once))
        return row

    async def note(self, once: Once, made: bytes) -> None:
        """Record a key with what it stands for, unless a later one is there."""
        await self.follow_up([self._note(once, made, tells=Tells.NOTHING)], [])

    async def sweep(self, before: int) -> None:
        """Do what is owed by writes that were decided before a time (milliseconds since 1970).

        Raises:
            Unavailable: some of it can't be done now; the rest is done.
        """
        if len(self._shards.all) > 1:
            await all_of(self._sweep(shard, id_at(before, bytes(10))) for shard in self._shards.all)

    async def close(self) -> None:
        """Refuse new writes, and wait for those that are under way."""
        self._closed = True
        while self._under_way:
            self._answered.clear()
            await self._answered.wait()
        await asyncio.gather(*self._behind, return_exceptions=True)

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """A write that `close` waits for, in as much time as one may take."""
        if self._closed:
            raise unavailable()
        self._under_way += 1
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError as error:
            raise unavailable(error) from error
        finally:
            self._under_way -= 1
            self._answered.set()

    async def _write(
        self, operations: Sequence[Operation], *, key: bytes = b"", digest: bytes = b"", since: int = 0
    ) -> tuple[Sequence[bytes], Sequence[bytes] | None]:
        entry = id_at(self._clock.now(), self._clock.random(10))
        shard = operations[0].shard
        parts = [part for operation in operations for part in operation.parts()]
        answer = await shard.call_and_copy("write", entry, key, digest, since, len(operations), *parts)
        decided, owed = answer[:2]
        if owed:
            await self._follow_up([one for one in operations if one.shard is not shard], decided)
            self._pay(shard, entry)
        return decided, answer[2] if len(answer) > 2 else None

    async def follow_up(self, operations: Iterable[Operation], decided: Sequence[bytes]) -> None:
        """Do what follows from a decision, without any note of it."""
        async with self.bounded():
            await self._follow_up(operations, decided)

    async def _follow_up(self, operations: Iterable[Operation], decided: Sequence[bytes]) -> None:
        parts: defaultdict[Shard, list[Operation]] = defaultdict(list)
        for operation in operations:
            parts[operation.shard].append(operation)

        async def call(shard: Shard, some: Sequence[Operation]) -> None:
            flat = [part for operation in some for part in operation.parts()]
            await shard.call_and_copy("follow_up", len(decided), *decided, len(some), *flat)

        await all_of(call(shard, some) for shard, some in parts.items())

    def _pay(self, shard: Shard, entry: bytes) -> None:
        """Take a note off. Nobody waits for it, and what is left a sweep takes off."""

        async def pay() -> None:
            with suppress(Unavailable):
                await shard.call("paid", entry)

        task = asyncio.create_task(pay())
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _sweep(self, shard: Shard, before: bytes) -> None:
        after, waits = ZERO, None
        while True:
            found = await shard.call("owed", after, before, _SWEPT_AT_ONCE)
            for entry, decided, owed in found:
                after = entry
                operations = [
                    Operation(self._by_base[base], name.decode(), tuple(arguments)) for base, name, *arguments in owed
                ]
                try:
                    await self._follow_up(operations, decided)
                    await shard.call("paid", entry)
                except Unavailable as error:
                    waits = error
                except Exception:  # noqa: BLE001 - one that can't be done must not keep the others
                    _log.exception("what a write owes can't be done")
            if len(found) < _SWEPT_AT_ONCE:
                break
        if waits is not None:
            raise waits

    def _note(self, once: Once, made: bytes, *, tells: Tells) -> Operation:
        arguments = (once.key, once.digest, millis(once.at), made, int(tells))
        return Operation(self._shards.of_key(once.key), "note_key", arguments)


def _since(once: Once) -> int:
    return once.at - KEPT_MILLIS
