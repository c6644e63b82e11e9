"""Moving everything from one store to another, and telling whether two hold the same."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from rookery.domain.copies import Copy, KeyCopy, Part, Unfinished, UnfollowCopy
from rookery.domain.errors import Conflict, Malformed
from rookery.domain.idempotency import KEPT_MILLIS
from rookery.ports.clock import Clock
from rookery.ports.ranking import Progress
from rookery.ports.steps import Steps, unwatched
from rookery.ports.store import Store, not_the_same
from rookery.services.unfinished import begun_before, holds_users, note_filled

AT_ONCE = 500
UNFOLLOWS_MILLIS = 28 * 60 * 60 * 1000
"""Stores keep unfollows for so long at least; what one of them keeps longer is not compared."""
_MODULUS = 1 << 256

_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows a part has, and the sum of their SHA-256 (modulo 2^256): the same in whatever order they come."""

    rows: int = 0
    total: int = 0

    def plus(self, copy: Copy) -> "Digest":
        """With one more."""
        return Digest(self.rows + 1, (self.total + int.from_bytes(sha256(_encode(copy)).digest(), "big")) % _MODULUS)


def copies_differ() -> Conflict:
    """The answer to two stores that should hold the same. What was there is never taken away or changed by a copy."""
    return Conflict("copies_differ", "The stores do not hold the same: copy into an empty one.")


@dataclass(frozen=True, slots=True)
class Copying:
    """Copies from `source` to `target`. No server may write to either meanwhile.

    That a copy has not ended is noted in the target, and how far it has come in the folder `notes`, in a file for each
    source: so it may be stopped and run again, until `finished`. `command` is what runs it.
    """

    source: Store
    target: Store
    clock: Clock
    notes: Path
    command: str
    reached: Steps = unwatched

    async def run(self, progress: Progress) -> int:
        """Copy all that is not copied yet; how many rows. Into what is a finished copy nothing is copied.

        Raises:
            Conflict: `not_the_same`, when the target belongs to others; `copies_differ`, when the source changed since
                its copy was begun, which may have been another day; `store_unfinished`, when another copy or a restore
                has begun to fill the target.
            Malformed: `broken_note`, when the target does not know how far the copy has come, and the note can't say.
        """
        await self._finish_writes()
        secret = await self.source.secret()
        notes, now = self.notes / f"copying-{sha256(secret).hexdigest()[:16]}.json", self.clock.now()
        is_ours = await self.target.secret() == secret
        if not is_ours and await holds_users(self.target):
            raise not_the_same()
        mine = Unfinished(sha256(b"copy" + secret).digest(), f"{self.command} did not end. Run it again.")
        begun = await begun_before(self.target, mine)
        if begun is not None and begun.is_filled:
            await self._require_equal(progress)
            notes.unlink(missing_ok=True)
            return 0
        done = _noted(notes, can_begin_again=begun is not None or not is_ours)
        if not is_ours:
            done = {}  # the target was made anew, and has nothing
            _note(notes, done)
            self.reached("copy.noted")
        elif done is None and begun is None:
            await self._require_equal(progress)  # it has a life of its own since: nothing is copied over that
            return 0
        await self.target.note_unfinished(mine)
        self.reached("copy.begun")
        await self.target.adopt_secret(secret)
        self.reached("copy.adopted")
        copied = await self._copy(notes, done or {}, now, progress)
        await self._require_equal(progress)
        self.reached("copy.compared")
        await note_filled(self.target, mine)
        self.reached("copy.filled")
        notes.unlink(missing_ok=True)
        return copied

    async def finished(self) -> None:
        """Note that all that follows from a copy is done as well: now servers may use the target."""
        await self.target.note_unfinished(None)
        self.reached("copy.finished")

    async def _copy(self, notes: Path, done: dict[str, str | None], now: int, progress: Progress) -> int:
        copied = 0
        for part in Part:
            text = done.get(part.value, "")
            position = bytes.fromhex(text) if text is not None else None
            while position is not None:
                copies, position = await self.source.dump(part, position, AT_ONCE)
                await self.target.restore([copy for copy in copies if counts(copy, now)])
                copied += len(copies)
                progress(len(copies))
                done[part.value] = position.hex() if position is not None else None
                _note(notes, done)
                self.reached("copy.page")
        return copied

    async def _require_equal(self, progress: Progress) -> None:
        if await self.compare(progress):
            raise copies_differ()

    async def compare(self, progress: Progress) -> Mapping[Part, tuple[Digest, Digest]]:
        """The parts that differ, with both sides' digests."""
        await self._finish_writes()
        now = self.clock.now()
        both = {
            part: (await digest_of(self.source, part, now, progress), await digest_of(self.target, part, now, progress))
            for part in Part
        }
        return {part: digests for part, digests in both.items() if digests[0] != digests[1]}

    async def _finish_writes(self) -> None:
        for store in (self.source, self.target):
            await finish_writes(store, self.clock)


async def finish_writes(store: Store, clock: Clock) -> None:
    """Writes that a server did not come to the end of are finished when their promises are listed."""
    after, before = b"", clock.now() + 1_000
    while page := await store.promises(before, after, AT_ONCE):
        after = page[-1].id


def _noted(notes: Path, *, can_begin_again: bool) -> dict[str, str | None] | None:
    """How far a copy has come; None where nothing is noted.

    Raises:
        Malformed: `broken_note`, for one that can't be read, unless all can be copied again from the beginning.
    """
    try:
        noted = msgspec.json.decode(notes.read_bytes(), type=dict[str, str | None])
        for position in noted.values():
            bytes.fromhex(position or "")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        if can_begin_again:
            return None
        raise Malformed(
            "broken_note",
            f"{notes} should say how far a copy has come, and can't be read: copy into an empty store.",
        ) from error
    return noted


def _note(notes: Path, done: Mapping[str, str | None]) -> None:
    """Replace a note, so that it is the old one or the new one also after a loss of power."""
    notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = notes.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(json.dumps(done).encode())
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(notes)
    sync_folder(notes.parent)


def sync_folder(folder: Path) -> None:
    """Have the names of files on the disk, not only the files."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


async def digest_of(store: Store, part: Part, now: int, progress: Progress) -> Digest:
    """The digest of a part, as it is now."""
    digest = Digest()
    position: bytes | None = b""
    while position is not None:
        copies, position = await store.dump(part, position, AT_ONCE)
        for copy in copies:
            if counts(copy, now):
                digest = digest.plus(copy)
        progress(len(copies))
    return digest


def counts(copy: Copy, now: int) -> bool:
    """Whether it is not past its time, so that every store still has it."""
    match copy:
        case KeyCopy():
            return copy.at > now - KEPT_MILLIS
        case UnfollowCopy():
            return copy.at > now - UNFOLLOWS_MILLIS
    return True
