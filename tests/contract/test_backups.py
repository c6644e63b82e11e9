"""A store in a file, and any other store from that file."""

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from rookery.domain.copies import Copy, Part
from rookery.domain.errors import Conflict, Malformed
from rookery.domain.tweets import TweetRecord
from rookery.ports.store import Shown, Store
from rookery.services import backups as module
from rookery.services.backups import MAGIC, Backups, End, Head, Page, verify
from tests.clocks import HandClock
from tests.contract.conftest import STORES
from tests.contract.expecting import refused
from tests.contract.given import NOON, Given
from tests.contract.lives import dumped, live_a_little

LATER = NOON + 100_000
"""When the backups are made: all that `Given` makes first is before it."""


def ignored(_: int) -> None:
    """How far it has come is of no interest here."""


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on its way in these tests."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.0)


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Store]:
    """A store for what is the same whichever it is."""
    async with STORES["sqlite"](tmp_path / "plain") as store:
        yield store


def backups(store: Store) -> Backups:
    return Backups(store, HandClock(start=LATER), "1.2.3")


class Busy:
    """A store that somebody writes to as soon as its first users were read."""

    def __init__(self, store: Store, write: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._write = write
        self.wrote = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Shown]:
        async with self._store.snapshot() as shown:

            async def dump(part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
                found = await shown.dump(part, position, limit)
                if not self.wrote:
                    self.wrote = True
                    await self._write()
                return found

            yield Shown(dump, shown.is_moment)


async def test_a_backup_of_any_store_is_restored_into_any_other(store: Store, target: Store, tmp_path: Path) -> None:
    await live_a_little(store)
    file = tmp_path / "backup"
    written = await backups(store).write(file, ignored)
    assert await backups(target).restore(file, ignored) == written
    assert await target.secret() == await store.secret()
    for part in Part:
        found = await dumped(target, part)
        assert found == await dumped(store, part), part
        assert found, "else this shows nothing"


async def test_what_is_written_meanwhile_is_not_in_it(store: Store, tmp_path: Path) -> None:
    given = Given(store)
    ada = await given.user("ada")
    await given.post(ada)
    clock, later = HandClock(start=LATER), Given(store)
    later._times = count(LATER + 2 * module.MOST_SKEW_MILLIS)

    async def write() -> None:
        clock.millis += 60_000
        bob = await later.user("bob", token=b"t" * 32)
        await later.follow(ada, bob)
        await later.post(bob)
        await later.post(ada)

    busy = Busy(store, write)
    file = tmp_path / "backup"
    end = await Backups(cast("Store", busy), clock, "1.2.3").write(file, ignored)
    assert busy.wrote
    assert {part: rows for part, (rows, _) in end.parts.items() if rows} == {"users": 1, "tweets": 1}
    async with STORES["sqlite"](tmp_path / "target") as target:
        await backups(target).restore(file, ignored)
        assert [user.name for user in await target.list_users("", 10)] == ["ada"]


# What is refused


async def test_a_file_that_was_changed_or_cut_off_is_refused_and_nothing_is_written(
    plain: Store, tmp_path: Path
) -> None:
    await live_a_little(plain)
    file, broken = tmp_path / "backup", tmp_path / "broken"
    await backups(plain).write(file, ignored)
    whole = file.read_bytes()
    async with STORES["sqlite"](tmp_path / "target") as target:
        for at in range(len(MAGIC), len(whole), max(1, len(whole) // 60)):
            flipped = bytearray(whole)
            flipped[at] ^= 0x10
            for bad in (bytes(flipped), whole[:at]):
                broken.write_bytes(bad)
                if at in range(len(MAGIC) + 3, len(MAGIC) + 10) and bad == bytes(flipped):
                    continue  # gzip's own flags, time and system, which say nothing of the content
                with refused(Malformed, "broken_backup"):
                    await backups(target).restore(broken, ignored)
        assert await dumped(target, Part.USERS) == []
        broken.write_bytes(whole)
        await backups(target).restore(broken, ignored)


def packed(*frames: Head | Page | End) -> bytes:
    raw = [msgspec.msgpack.encode(frame) for frame in frames]
    return MAGIC + gzip.compress(b"".join(len(one).to_bytes(4, "big") + one for one in raw), mtime=0)


@pytest.mark.parametrize(
    "content",
    [
        packed(),
        packed(Head("1", 0, b"")),
        packed(Page(Part.USERS, [])),
        packed(End({}, b"")),
        packed(Head("1", 0, b""), Head("1", 0, b"")),
        packed(Head("1", 0, b""), End({}, b"")),
        packed(Head("1", 0, b""), End({"users": (0, "0")}, bytes(32))),
        MAGIC + gzip.compress(b"\xff\xff\xff\xff", mtime=0),
        MAGIC + gzip.compress(b"\0\0\0\1", mtime=0),
        MAGIC + gzip.compress(b"\0\0", mtime=0),
        MAGIC + b"plain",
        MAGIC,
    ],
)
def test_what_is_not_as_a_backup_is_made_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "backup"
    file.write_bytes(content)
    with refused(Malformed, "broken_backup"):
        verify(file)


def test_what_is_no_backup_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "backup"
    for content in (b"", b"something else", MAGIC.replace(b"1", b"2")):
        file.write_bytes(content)
        with refused(Malformed, "not_a_backup"):
            verify(file)
    with refused(Malformed, "unreadable_file"):
        verify(tmp_path / "missing")


async def test_nothing_is_overwritten(plain: Store, tmp_path: Path) -> None:
    await Given(plain).user("ada")
    file = tmp_path / "backup"
    await backups(plain).write(file, ignored)
    with refused(Conflict, "file_exists"):
        await backups(plain).write(file, ignored)
    with refused(Conflict, "not_empty"):
        await backups(plain).restore(file, ignored)
    with refused(Malformed, "unwritable_file"):
        await backups(plain).write(tmp_path / "no folder" / "backup", ignored)
    assert sorted(path.name for path in tmp_path.glob("backup*")) == ["backup"]
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_restore_that_was_stopped_is_gone_on_with(target: Store, plain: Store, tmp_path: Path) -> None:
    await live_a_little(plain)
    file = tmp_path / "backup"
    await backups(plain).write(file, ignored)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await backups(target).restore(file, stop)
    await backups(target).restore(file, ignored)
    assert await dumped(target, Part.TWEETS) == await dumped(plain, Part.TWEETS)
    await backups(target).restore(file, ignored)
    await backups(target).finished()
    with refused(Conflict, "not_empty"):
        await backups(target).restore(file, ignored)


async def test_a_backup_that_fails_leaves_nothing(plain: Store, tmp_path: Path) -> None:
    async def fail() -> None:
        raise OSError(28, "No space left on device")

    await Given(plain).user("ada")
    with refused(Malformed, "unwritable_file"):
        await backups(cast("Store", Busy(plain, fail))).write(tmp_path / "backup", ignored)
    assert list(tmp_path.glob("backup*")) == []


async def test_a_retweet_is_in_it_only_with_what_it_retweets(tmp_path: Path) -> None:
    """Two servers' clocks differ, so a retweet may be dated before its original."""
    async with STORES["redis"](tmp_path / "store") as store:
        given, clock = Given(store), HandClock(start=LATER)
        ada = await given.user("ada")
        moment = LATER + module.MOST_SKEW_MILLIS
        dated: dict[str, TweetRecord] = {}
        for name, at, above in (("late", moment + 5, None), ("early", moment - 5, "late"), ("old", moment - 9, None)):
            given._times = count(at)
            dated[name] = await given.post(ada, dated[above] if above else None)
        given._times = count(LATER + 10 * 86_400_000)
        dated["loaded, of a day to come"] = await given.post(ada)

        async def nothing() -> None:
            clock.millis += 60_000

        file = tmp_path / "backup"
        busy = cast("Store", Busy(store, nothing))
        await Backups(busy, clock, "1.2.3").write(file, ignored)
    async with STORES["sqlite"](tmp_path / "target") as target:
        await backups(target).restore(file, ignored)
        found = await target.tweets([tweet.id for tweet in dated.values()])
    assert {name for name, tweet in dated.items() if tweet.id in found} == {"old", "loaded, of a day to come"}
