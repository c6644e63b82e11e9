"""Promises in Cassandra: what a write is about to change, written down first, so that it is never left half done.

A row of `pending` holds everything that is needed to do a write's rows again, with the timestamp that they have. Rows
are found by ten seconds of wall time, so that a sweep never reads over what was taken off long ago.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec

from rookery.adapters.cassandra.session import AHEAD_MICROS, Row, Session
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId, UserId, id_at, millis_of
from rookery.domain.promises import Promise, ToldRun, Work
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.clock import Clock

_log = logging.getLogger(__name__)

_BUCKET_MILLIS = 10_000
# What was counted is read seldom, and then for a long time back.
_COUNTED_MILLIS = 60_000
COUNTED_KEPT_SECONDS = 26 * 60 * 60
_DAY_BUCKETS = 24 * 60 * 60 * 1000 // _BUCKET_MILLIS
_SHARDS = 16
_DAYS = -1
_OWN = 0
"""The work of an entry that nothing outside the store waits for."""
# A bucket that is found empty so long after its end is taken off the list. A promise is written within a second or two
# of its own time; whoever writes one later than `_KNOWN` puts its bucket on the list again.
_SETTLED_MILLIS = 20_000
_KNOWN_MILLIS = 5_000
_KNOWN_BUCKETS = 64
_MARGIN_BUCKETS = 12
_REDONE = 100_000
# So long after its begin a write is over, done or given up. Until then its maker may decide what is to be finished.
_MAKING_MILLIS = 10_000
_REMEMBERED_BUCKETS = 60


class UserRows(msgspec.Struct, frozen=True, tag="user"):
    """A new user and what he signs in with."""

    user: UserRecord
    password_hash: str | None
    token_hash: bytes | None


class NoUserRows(msgspec.Struct, frozen=True, tag="no user"):
    """A user who is to be deleted."""

    user: UserId


class TweetRows(msgspec.Struct, frozen=True, tag="tweets"):
    """New tweets."""

    tweets: Sequence[TweetRecord]


class NoTweetRows(msgspec.Struct, frozen=True, tag="no tweet"):
    """A tweet that is to be deleted."""

    tweet: TweetId


class FollowRows(msgspec.Struct, frozen=True, tag="follows"):
    """Pairs of a follower and others that are being changed."""

    follower: UserId
    followees: Sequence[UserId]


Rows = UserRows | NoUserRows | TweetRows | NoTweetRows | FollowRows

_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Rows] = msgspec.msgpack.Decoder(Rows).decode


@dataclass(frozen=True, slots=True)
class Entry:
    """One promise with the rows that it is about, and the timestamp (microseconds since 1970) that they get."""

    promise: Promise | None
    id: bytes
    rows: Rows
    stamp: int


class Journal:
    """The list of promises. `redo` does an entry's rows again, whatever of it was done."""

    def __init__(self, session: Session, clock: Clock, redo: Callable[[Entry], Awaitable[None]]) -> None:
        self._session = session
        self._clock = clock
        self._redo = redo
        self._opened: dict[int, None] = {}
        self._lowest: dict[int, int] = {}
        self._forget_at = 0
        self._redone: dict[bytes, None] = {}

    async def add(self, promise: Promise | None, rows: Rows, stamp: int | None = None) -> Entry:
        """Write down what a write is about to change. It is listed under its promise, or one of the store's own.

        From now on new tweets and deletes are done for certain; who gets a handle, and who follows whom, is finished
        once it is decided.
        """
        made = promise.id if promise else id_at(self._clock.now(), self._clock.random(10))
        entry = Entry(promise, made, rows, stamp or self._session.stamp())
        bucket, shard = _place(made)
        work, subject = (promise.work, promise.subject) if promise else (_OWN, b"")
        await self._session.each(
            [
                partial(self._open, bucket),
                partial(
                    self._session.write,
                    "INSERT INTO pending (bucket, shard, id, work, subject, rows, stamp) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    *(bucket, shard, made, int(work), subject, _encode(rows), entry.stamp),
                    stamp=self._session.stamp(),
                ),
            ]
        )
        if self._is_late(bucket):
            await self._open(bucket)  # once more, now that the row is there: it may have been closed meanwhile
        return entry

    async def remove(self, entries: Sequence[bytes]) -> None:
        """Take entries off the list by their ids."""

        async def remove(entry: bytes) -> None:
            await self._session.write(
                "DELETE FROM pending WHERE bucket = ? AND shard = ? AND id = ?",
                *(*_place(entry), entry),
                stamp=self._session.stamp(),
            )

        await self._session.each([partial(remove, entry) for entry in entries])

    async def oldest(self, before: int, after: bytes, limit: int) -> list[Promise]:
        """See `Store.promises`. The rows of each are done again first; old entries of the store's own end with that.

        What can't be done now stays on the list, and holds up nothing else.
        """
        high = id_at(before, bytes(10))
        found: list[Promise] = []
        for bucket in await self._buckets(after, high):
            low, more = after, True
            while more and len(found) < limit:
                rows = await self._rows(bucket, low, high, limit)
                is_past = _first_of(bucket + 1) < min(high, id_at(self._clock.now(), bytes(10)))
                if not rows and low == after < _first_of(bucket) and is_past:
                    await self._close(bucket)
                done = await self._session.each([partial(self._try, row) for row in rows])
                found += [entry.promise for entry in done if entry and entry.promise]
                await self.remove([entry.id for entry in done if entry and not entry.promise and self._is_over(entry)])
                more = len(rows) == limit
                low = rows[-1][0] if rows else low
        return found[:limit]

    async def note_counted(self, counted: Sequence[Promise]) -> None:
        """See `Store.note_counted`."""
        query = "INSERT INTO counted (bucket, shard, id, work, subject) VALUES (?, ?, ?, ?, ?)"
        await self._session.each(
            [
                partial(
                    self._session.write,
                    query,
                    *(millis_of(one.id) // _COUNTED_MILLIS, one.id[-1] % _SHARDS, one.id, int(one.work), one.subject),
                    stamp=self._session.stamp(),
                )
                for one in counted
            ]
        )

    async def counted(self, since: int, after: bytes, limit: int) -> list[Promise]:
        """See `Store.counted`."""
        now = self._clock.now()
        low = max(after, max(since, now - COUNTED_KEPT_SECONDS * 1000).to_bytes(6, "big"))
        query = "SELECT id, work, subject FROM counted WHERE bucket = ? AND shard = ? AND id > ? LIMIT ?"
        found: list[Promise] = []
        for bucket in range(millis_of(low) // _COUNTED_MILLIS, now // _COUNTED_MILLIS + 2):
            rows = await self._of_all_shards(query, bucket, low, limit)
            found += [Promise(one, Work(work), subject) for one, work, subject in rows]
            if len(found) >= limit:
                break
        return found[:limit]

    async def told_run(self) -> ToldRun | None:
        """See `Store.told_run`."""
        rows = await self._session.read("SELECT value FROM meta WHERE name = 'told run'")
        return msgspec.msgpack.decode(rows[0][0], type=ToldRun) if rows else None

    async def note_told_run(self, told: ToldRun) -> None:
        """See `Store.note_told_run`."""
        query = "INSERT INTO meta (name, value) VALUES ('told run', ?)"
        await self._session.write(query, msgspec.msgpack.encode(told), stamp=self._session.stamp())

    async def _rows(self, bucket: int, low: bytes, high: bytes, limit: int) -> list[Row]:
        """The oldest entries of one bucket between two ids."""
        query = (
            "SELECT id, work, subject, rows, stamp FROM pending"
            " WHERE bucket = ? AND shard = ? AND id > ? AND id < ? LIMIT ?"
        )
        return (await self._of_all_shards(query, bucket, low, high, limit))[:limit]

    async def _of_all_shards(self, query: str, bucket: int, *values: object) -> list[Row]:
        """The rows of a bucket in the order of their ids, which come first in each."""
        parts = await self._session.each(
            [partial(self._session.read, query, bucket, shard, *values) for shard in range(_SHARDS)]
        )
        return sorted(row for part in parts for row in part)

    async def _try(self, row: Row) -> Entry | None:
        """Do an entry's rows again, once in this process; None if that can't be done now."""
        made, work, subject, written, stamp = row
        promise = Promise(made, Work(work), subject) if work != _OWN else None
        try:
            entry = Entry(promise, made, _decode(written), stamp)
            if made not in self._redone:
                await self._redo(entry)
        except Unavailable:
            _log.warning("rows that were promised wait for the store")
            return None
        except Exception:  # noqa: BLE001 - one that can't be done must not keep the others
            _log.exception("rows that were promised could not be written")
            return None
        if self._is_over(entry):
            self._redone[made] = None
            if len(self._redone) > _REDONE:
                del self._redone[next(iter(self._redone))]
        return entry

    def _is_over(self, entry: Entry) -> bool:
        """Whether its maker is no more at work, so that doing it again was the last of it."""
        return self._clock.now() - millis_of(entry.id) >= _MAKING_MILLIS

    # --- which buckets there are -------------------------------------------------------------------------------------

    async def _open(self, bucket: int) -> None:
        """Have a bucket found by all who sweep. Remembered for as long as nobody can have closed it."""
        late = self._is_late(bucket)
        if bucket in self._opened and not late:
            return
        # Who is late may be so by a stopped clock: he must win over whoever closed it meanwhile.
        stamp = self._session.stamp() + (AHEAD_MICROS if late else 0)
        day = bucket // _DAY_BUCKETS
        query = "INSERT INTO pending_bucket (list_of, number) VALUES (?, ?)"
        await self._session.each(
            [partial(self._session.write, query, *row, stamp=stamp) for row in ((_DAYS, day), (day, bucket))]
        )
        if day in self._lowest:
            self._lowest[day] = min(bucket, self._lowest[day])
        if not late:
            self._opened[bucket] = None
            if len(self._opened) > _KNOWN_BUCKETS:
                del self._opened[next(iter(self._opened))]

    def _is_late(self, bucket: int) -> bool:
        return self._clock.now() >= (bucket + 1) * _BUCKET_MILLIS + _KNOWN_MILLIS

    async def _close(self, bucket: int) -> None:
        """Take an empty bucket off the list, when nobody writes to it any more."""
        if self._clock.now() > (bucket + 1) * _BUCKET_MILLIS + _SETTLED_MILLIS:
            self._opened.pop(bucket, None)
            await self._unlist(bucket // _DAY_BUCKETS, bucket)

    async def _buckets(self, low: bytes, high: bytes) -> list[int]:
        """The buckets that may hold entries between two ids, in order."""
        first, last = millis_of(low.ljust(6, b"\0")) // _BUCKET_MILLIS, millis_of(high) // _BUCKET_MILLIS
        now = self._clock.now() // _BUCKET_MILLIS
        if now >= self._forget_at:  # somebody whose clock is wrong may have opened one that we would pass over
            self._lowest.clear()
            self._forget_at = now + _REMEMBERED_BUCKETS
        found: list[int] = []
        for day in await self._listed(_DAYS, first // _DAY_BUCKETS):
            if day > last // _DAY_BUCKETS:
                break
            # Not from the day's begin: where buckets were taken off the list their tombstones are in the way.
            lowest = self._lowest.get(day, day * _DAY_BUCKETS)
            buckets = await self._listed(day, lowest)
            if not buckets and now // _DAY_BUCKETS > day + 1:
                await self._unlist(_DAYS, day)
            # Others whose clocks are behind may yet open buckets a little below.
            unsettled = min(now, (day + 1) * _DAY_BUCKETS) - _MARGIN_BUCKETS
            if self._lowest.get(day, lowest) >= lowest:  # else one of ours was opened below meanwhile
                self._lowest[day] = max(lowest, min([*buckets, unsettled]))
            found += [bucket for bucket in buckets if first <= bucket <= last]
        return found

    async def _listed(self, list_of: int, first: int) -> list[int]:
        rows = await self._session.read(
            "SELECT number FROM pending_bucket WHERE list_of = ? AND number >= ?", list_of, first
        )
        return [number for (number,) in rows]

    async def _unlist(self, list_of: int, number: int) -> None:
        await self._session.write(
            "DELETE FROM pending_bucket WHERE list_of = ? AND number = ?", list_of, number, stamp=self._session.stamp()
        )


def _first_of(bucket: int) -> bytes:
    """Below every id of a bucket, and above those before."""
    return (bucket * _BUCKET_MILLIS).to_bytes(6, "big")


def _place(entry: bytes) -> tuple[int, int]:
    """The bucket and shard of an entry."""
    return millis_of(entry) // _BUCKET_MILLIS, entry[-1] % _SHARDS
