"""Moving everything from one store to another, and telling whether two hold the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from rookery.domain.copies import Copy, KeyCopy, Part, UnfollowCopy
from rookery.domain.errors import Conflict
from rookery.domain.idempotency import KEPT_MILLIS
from rookery.ports.clock import Clock
from rookery.ports.ranking import Progress
from rookery.ports.store import Store

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

    How far it has come is kept in the folder `notes`, a file for each source, so that it may be stopped and run again.
    """

    source: Store
    target: Store
    clock: Clock
    notes: Path

    async def run(self, progress: Progress) -> int:
        """Copy all that is not copied yet; how many rows. Into what is a finished copy nothing is copied.

        Raises:
            Conflict: `not_the_same`, when the target belongs to others; `copies_differ`, when the source changed since
                its copy was begun, which may have been another day.
        """
        await self._finish_writes()
        secret = await self.source.secret()
        notes, now, copied = self.notes / f"copying-{sha256(secret).hexdigest()[:16]}.json", self.clock.now(), 0
        done = _noted(notes)
        if await self.target.secret() != secret:
            done = {}  # the target was made anew, and has nothing
            _note(notes, done)
            await self.target.adopt_secret(secret)
        elif done is None:
            await self._require_equal(progress)  # it has a life of its own since: nothing is copied over that
            return 0
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
        await self._require_equal(progress)
        notes.unlink()
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


def _noted(notes: Path) -> dict[str, str | None] | None:
    """How far a copy has come; None where none is unfinished."""
    return json.loads(notes.read_bytes()) if notes.exists() else None


def _note(notes: Path, done: Mapping[str, str | None]) -> None:
    notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = notes.with_suffix(".new")
    fresh.write_text(json.dumps(done))
    fresh.replace(notes)


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
