"""A store in one file, and a store from such a file. The file tells itself whether it is whole."""

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from shlex import quote
from typing import BinaryIO

import msgspec

from rookery.domain.copies import (
    Copy,
    FollowCopy,
    KeyCopy,
    Part,
    TokenCopy,
    TweetCopy,
    Unfinished,
    UnfollowCopy,
    UserCopy,
)
from rookery.domain.errors import Conflict, Malformed
from rookery.domain.ids import UserId, millis_of
from rookery.domain.tweets import TweetRecord
from rookery.ports.clock import Clock
from rookery.ports.ranking import Progress
from rookery.ports.steps import Steps, unwatched
from rookery.ports.store import Shown, Store
from rookery.services.copying import AT_ONCE, Digest, copies_differ, counts, digest_of, finish_writes, sync_folder
from rookery.services.unfinished import begun_before, holds_users, note_filled

MAGIC = b"rookery backup 1\n"
_LENGTH_BYTES = 4
_MOST_BYTES = 64 << 20
"""No page is nearly as long: whatever says so is not one of ours."""
MOST_SKEW_MILLIS = 1_000
"""More than the clocks of two servers may differ."""
SETTLE_SECONDS = 6.0
"""Longer than any write takes: what was begun before is then written, or promised."""


class Head(msgspec.Struct, frozen=True, tag="head"):
    """What a backup begins with. `made_at`, in milliseconds since 1970, is the moment that it shows."""

    version: str
    made_at: int
    secret: bytes


class Page(msgspec.Struct, frozen=True, tag="page"):
    """Some rows of a part."""

    part: Part
    copies: list[Copy]


class End(msgspec.Struct, frozen=True, tag="end"):
    """What a backup ends with: rows and digest of each part, and the SHA-256 of all bytes before."""

    parts: dict[str, tuple[int, str]]
    sha256: bytes


Frame = Head | Page | End

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def digests_of(end: End) -> Mapping[Part, Digest]:
    """How many rows each part has, and their digest."""
    return {Part(name): Digest(rows, int(total, 16)) for name, (rows, total) in end.parts.items()}


class _Writer:
    """Writes frames, and knows the digest of what was written."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self._seen = sha256()
        self._digests = dict.fromkeys(Part, Digest())

    def write(self, frame: Head | Page) -> None:
        raw = _encode(frame)
        self._seen.update(raw)
        self._put(raw)
        if isinstance(frame, Page):
            for copy in frame.copies:
                self._digests[frame.part] = self._digests[frame.part].plus(copy)

    def end(self) -> End:
        parts = {part.value: (digest.rows, f"{digest.total:x}") for part, digest in self._digests.items()}
        end = End(parts, self._seen.digest())
        self._put(_encode(end))
        return end

    def _put(self, raw: bytes) -> None:
        self._file.write(len(raw).to_bytes(_LENGTH_BYTES, "big") + raw)


@dataclass(frozen=True, slots=True)
class Backups:
    """Backups of one store, and restores into it."""

    store: Store
    clock: Clock
    version: str
    reached: Steps = unwatched

    async def write(self, path: Path, progress: Progress) -> End:
        """Write all that the store holds into a new file, while servers go on. It is there when it is whole.

        It shows one moment: all that was acknowledged before is in it, and of what came later nothing. A store without
        snapshots is read row after row; then that holds for users and tweets, give or take a second, and a follow, an
        unfollow or a delete that comes meanwhile may be in it or not.

        Raises:
            Conflict: `file_exists`.
            Malformed: `unwritable_file`.
        """
        with created(path) as raw:
            raw.write(MAGIC)
            with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=3, mtime=0) as packed:
                end = await self._fill(_Writer(packed), progress)
        return end

    async def _fill(self, writer: _Writer, progress: Progress) -> End:
        await finish_writes(self.store, self.clock)
        async with self.store.snapshot() as shown:
            made_at = self.clock.now()
            kept = _Everything() if shown.is_moment else _Before(self.store, self.clock, made_at + MOST_SKEW_MILLIS)
            if not shown.is_moment:
                await asyncio.sleep(SETTLE_SECONDS)
                await finish_writes(self.store, self.clock)
            await asyncio.to_thread(writer.write, Head(self.version, made_at, await self.store.secret()))
            for part in Part:
                async for copies in _pages(shown, part):
                    some = [copy for copy in copies if counts(copy, made_at) and await kept.holds(copy)]
                    await asyncio.to_thread(writer.write, Page(part, some))
                    progress(len(some))
        return writer.end()

    async def restore(self, path: Path, progress: Progress) -> End:
        """Fill the store, which is empty, with what a file holds, once all of that was found to be whole.

        It may be stopped and run again, by any process, until `finished`; nobody else can use the store before.

        Raises:
            Conflict: `not_empty`; `store_unfinished`, when another restore or copy has begun to fill it;
                `copies_differ`, when it was not empty after all.
            Malformed: `unreadable_file`, `not_a_backup`, `broken_backup`.
        """
        head, end = await asyncio.to_thread(verify, path)
        mine = Unfinished(identity(head, end), _advice(path))
        begun = await begun_before(self.store, mine)
        if begun is None:
            if await holds_users(self.store):
                raise Conflict("not_empty", "The store holds something already; a restore never overwrites it.")
            await self.store.note_unfinished(mine)
            self.reached("restore.noted")
        elif begun.is_filled:
            return end
        await self.store.adopt_secret(head.secret)
        self.reached("restore.adopted")
        expected = dict.fromkeys(Part, Digest())
        now = self.clock.now()
        with _opened(path) as packed:
            for frame, _ in _frames(packed):
                if isinstance(frame, Page):
                    copies = [copy for copy in frame.copies if counts(copy, now)]
                    await self.store.restore(copies)
                    for copy in copies:
                        expected[frame.part] = expected[frame.part].plus(copy)
                    progress(len(copies))
                    self.reached("restore.page")
        for part in Part:
            if await digest_of(self.store, part, now, progress) != expected[part]:
                raise copies_differ()
        self.reached("restore.compared")
        await note_filled(self.store, mine)
        self.reached("restore.filled")
        return end

    async def finished(self) -> None:
        """Note that all that follows from a restore is done as well: now the store is one that holds something."""
        await self.store.note_unfinished(None)
        self.reached("restore.finished")


def identity(head: Head, end: End) -> bytes:
    """What tells a restore of this backup from one of another (32 bytes)."""
    return sha256(b"restore" + head.secret + end.sha256).digest()


def _advice(path: Path) -> str:
    command = f"rookery restore {quote(str(path.absolute()))}"
    return (
        f"{command} did not end. Run it again; or begin anew, with --force for SQLite, and else in another "
        "store.keyspace."
    )


def verify(path: Path) -> tuple[Head, End]:
    """Read a whole backup: what it begins and ends with, when all between is as it was written.

    Raises:
        Malformed: `unreadable_file`, `not_a_backup`, `broken_backup`.
    """
    head: Head | None = None
    end: End | None = None
    seen = sha256()
    digests = dict.fromkeys(Part, Digest())
    with _opened(path) as packed:
        for frame, raw in _frames(packed):
            if end is not None or isinstance(frame, Head) != (head is None):
                raise _broken(path)
            match frame:
                case Head():
                    head = frame
                case Page():
                    for copy in frame.copies:
                        digests[frame.part] = digests[frame.part].plus(copy)
                case End():
                    end = frame
            if end is None:
                seen.update(raw)
    if head is None or end is None or end.sha256 != seen.digest() or digests_of(end) != digests:
        raise _broken(path)
    return head, end


@contextmanager
def created(path: Path) -> Iterator[BinaryIO]:
    """A new file for its owner alone, which gets its name when all of it is written; never another's name.

    Raises:
        Conflict: `file_exists`.
        Malformed: `unwritable_file`.
    """
    fresh = path.with_name(f"{path.name}.{token_hex(8)}.part")
    with _complaining(path, "unwritable_file"):
        if path.exists():
            raise _exists(path)
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR
        try:
            with os.fdopen(os.open(fresh, flags, 0o600), "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.link(fresh, path)  # unlike renaming it refuses where there is one now
            sync_folder(path.parent)
        except FileExistsError as error:
            raise _exists(path) from error
        finally:
            fresh.unlink(missing_ok=True)


def _exists(path: Path) -> Conflict:
    return Conflict("file_exists", f"{path} exists; nothing is ever overwritten.")


@contextmanager
def _opened(path: Path) -> Iterator[gzip.GzipFile]:
    with _complaining(path, "unreadable_file"), path.open("rb") as raw:
        if raw.read(len(MAGIC)) != MAGIC:
            raise Malformed("not_a_backup", f"{path} is no backup of Rookery, or one of a newer version.")
        try:
            with gzip.GzipFile(fileobj=raw) as packed:
                yield packed
        except (EOFError, zlib.error, gzip.BadGzipFile, msgspec.DecodeError, ValueError) as error:
            raise _broken(path) from error


def _frames(packed: gzip.GzipFile) -> Iterator[tuple[Frame, bytes]]:
    while prefix := packed.read(_LENGTH_BYTES):
        length = int.from_bytes(prefix, "big")
        if len(prefix) < _LENGTH_BYTES or length > _MOST_BYTES:
            raise EOFError
        raw = packed.read(length)
        if len(raw) < length:
            raise EOFError
        yield _decode(raw), raw


def _broken(path: Path) -> Malformed:
    return Malformed("broken_backup", f"{path} is not as it was written: nothing was restored.")


@contextmanager
def _complaining(path: Path, code: str) -> Iterator[None]:
    try:
        yield
    except gzip.BadGzipFile:  # an OSError of its own, which says more
        raise
    except OSError as error:
        raise Malformed(code, f"{path}: {(error.strerror or 'an error').lower()}") from error


async def _pages(shown: Shown, part: Part) -> AsyncIterator[list[Copy]]:
    position: bytes | None = b""
    while position is not None:
        copies, position = await shown.dump(part, position, AT_ONCE)
        yield list(copies)


class _Everything:
    """What of a snapshot is kept."""

    async def holds(self, _: Copy) -> bool:
        return True


class _Before:
    """What is kept of a store that is read row after row: what was there before a moment (milliseconds since 1970).

    All that it keeps speaks of what it keeps as well. Users come first; an id tells when it was made, by the clock of
    its maker, but for tweets that were loaded: those have dates of their own, which may be to come.
    """

    def __init__(self, store: Store, clock: Clock, moment: int) -> None:
        self._store = store
        self._clock = clock
        self._moment = moment
        self._users: set[UserId] = set()

    async def holds(self, copy: Copy) -> bool:
        match copy:
            case UserCopy():
                if self._is_new(copy.user.id):
                    return False
                self._users.add(copy.user.id)
                return True
            case TokenCopy():
                return copy.user in self._users
            case FollowCopy() | UnfollowCopy():
                return copy.follower in self._users and copy.followee in self._users
            case TweetCopy():
                return copy.tweet.author in self._users and await self._holds_chain(copy.tweet)
            case KeyCopy():
                return copy.at < self._moment and not self._is_new(copy.made)

    def _is_new(self, made: bytes) -> bool:
        return self._moment <= millis_of(made) <= self._clock.now() + MOST_SKEW_MILLIS

    async def _holds_chain(self, tweet: TweetRecord) -> bool:
        """Whether a tweet is kept, and with it all that it retweets, which another clock may have dated later."""
        while not self._is_new(tweet.id):
            if tweet.retweet is None or millis_of(tweet.id) < self._moment - 2 * MOST_SKEW_MILLIS:
                return True
            tweet = (await self._store.tweets([tweet.retweet]))[tweet.retweet]
        return False
