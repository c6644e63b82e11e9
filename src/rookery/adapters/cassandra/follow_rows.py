"""Who follows whom, in Cassandra.

The truth is one partition a follower, changed only by lightweight transactions on its version: so the bound on
followees holds, and what is told of a change is so. The version is a timestamp greater than all before it, whatever the
clocks say. The same from the followee's end is written with the version as its timestamp: the later change wins.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import merge

from rookery.adapters.cassandra.journal import FollowRows
from rookery.adapters.cassandra.session import ABOVE_ALL, Change, Session
from rookery.domain.errors import Conflict
from rookery.domain.ids import UserId

UNFOLLOWS_KEPT_SECONDS = 30 * 60 * 60
MOST_AT_ONCE = 100
"""Followees that one transaction changes."""
_SHARDS = 4
"""Partitions of one user's followers, so that those of the greatest are not too great."""
_SLACK = 16
_COUNTED = 5_000
_VERSION, _FOLLOWED, _UNFOLLOWED = -1, 0, 1
_HEAD = b"\0"
"""Stands for a followee in the row of the version."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a follower's partition says of some followees."""

    version: int | None
    writer: bytes | None
    many: int
    followed: Mapping[UserId, bytes]
    """Those followed, and who wrote so."""
    unfollowed: Mapping[UserId, bytes | None]
    """Those noted as unfollowed, and who had written that they are followed."""


_Plan = Callable[[_Seen], Mapping[UserId, Sequence[Change]]]
"""What is to be changed of which followees, as things stand."""

# Changing


async def add(
    session: Session, writer: bytes, follower: UserId, followee: UserId, at: int, *, most: int, by: bytes
) -> bool:
    """Let one follow another; False if he did, but for `by` itself. `writer` is an id of this change's own.

    What `by` did and someone has taken back since is not done again.

    Raises:
        Conflict: `too_many_followees`.
    """
    again = False

    def plan(seen: _Seen) -> Mapping[UserId, Sequence[Change]]:
        nonlocal again
        if followee in seen.followed:
            again = seen.followed[followee] == by
            return {}
        if seen.unfollowed.get(followee) == by:
            again = True
            return {}
        if seen.many >= most:
            raise Conflict("too_many_followees", f"A user follows at most {most} others.")
        return {followee: _adding(follower, followee, at, by, seen)}

    return bool(await _decide(session, writer, follower, [followee], plan, step=1)) or again


async def add_many(session: Session, writer: bytes, follower: UserId, followees: Mapping[UserId, int]) -> int:
    """Let one follow up to `MOST_AT_ONCE`, each since a time; how many were new."""

    def plan(seen: _Seen) -> Mapping[UserId, Sequence[Change]]:
        new = {followee: at for followee, at in followees.items() if followee not in seen.followed}
        return {followee: _adding(follower, followee, at, writer, seen) for followee, at in new.items()}

    return len(await _decide(session, writer, follower, list(followees), plan, step=1))


def in_batches(
    wanted: Mapping[UserId, Mapping[UserId, int]],
) -> Iterator[tuple[UserId, Mapping[UserId, int]]]:
    """For each follower some others and a time for each, no more than one transaction takes."""
    for follower, followees in wanted.items():
        pairs = list(followees.items())
        for start in range(0, len(pairs), MOST_AT_ONCE):
            yield follower, dict(pairs[start : start + MOST_AT_ONCE])


async def note_many(session: Session, writer: bytes, follower: UserId, followees: Mapping[UserId, int]) -> None:
    """Note whom one unfollowed and when, up to `MOST_AT_ONCE`, unless he follows him or it is noted."""

    def plan(seen: _Seen) -> Mapping[UserId, Sequence[Change]]:
        new = {user: at for user, at in followees.items() if user not in seen.followed and user not in seen.unfollowed}
        return {user: _removing(follower, user, at, seen) for user, at in new.items()}

    await _decide(session, writer, follower, list(followees), plan, step=0)


async def remove(
    session: Session, writer: bytes, follower: UserId, followees: Sequence[UserId], at: int | None
) -> Collection[UserId]:
    """End that one follows up to `MOST_AT_ONCE`; whom he did. They are noted as unfollowed `at`, or not at all.

    It may tell of nobody where others changed the same meanwhile and this change got no answer.
    """

    def plan(seen: _Seen) -> Mapping[UserId, Sequence[Change]]:
        return {user: _removing(follower, user, at, seen) for user in followees if user in seen.followed}

    return await _decide(session, writer, follower, followees, plan, step=-1)


def _adding(follower: UserId, followee: UserId, at: int, by: bytes, seen: _Seen) -> Sequence[Change]:
    added = (
        "INSERT INTO following (follower, state, followee, at, writer) VALUES (?, 0, ?, ?, ?)",
        (follower, followee, at, by),
    )
    forget = ("DELETE FROM following WHERE follower = ? AND state = 1 AND followee = ?", (follower, followee))
    return [added, forget] if followee in seen.unfollowed else [added]


def _removing(follower: UserId, followee: UserId, at: int | None, seen: _Seen) -> Sequence[Change]:
    gone = ("DELETE FROM following WHERE follower = ? AND state = 0 AND followee = ?", (follower, followee))
    note = (
        "INSERT INTO following (follower, state, followee, at, writer) VALUES (?, 1, ?, ?, ?) USING TTL ?",
        (follower, followee, at, seen.followed.get(followee), UNFOLLOWS_KEPT_SECONDS),
    )
    return [gone, note] if at is not None else [gone]


async def _decide(
    session: Session, writer: bytes, follower: UserId, followees: Sequence[UserId], plan: _Plan, *, step: int
) -> Collection[UserId]:
    """Make the changes that are needed as things stand, at both ends; whose pairs were changed.

    That nothing is needed is believed only when what others may have begun is settled.
    """
    turn = 0
    changed: Collection[UserId] = ()
    while True:
        seen = await _see(session, follower, followees, serial=turn > 0)
        stamp = seen.version or 0
        if turn and seen.writer == writer:
            break  # nobody knew what became of it: it was done
        changes = plan(seen)
        if not changes and turn:
            await redo(session, FollowRows(follower, followees))  # in case another's change stopped half way
            return ()
        if changes:
            changed = list(changes)
            stamp = session.stamp(seen.version)
            guard = (
                "UPDATE following SET version = ?, writer = ?, many = ?"
                " WHERE follower = ? AND state = -1 AND followee = ? IF version = ?",
                (stamp, writer, seen.many + step * len(changes), follower, _HEAD, seen.version),
            )
            if await session.decide(guard, *(change for some in changes.values() for change in some)):
                break
            await session.back_off(turn)
        turn += 1
    if turn:  # another attempt of ours may have changed more of them
        await redo(session, FollowRows(follower, followees))
    elif step:
        await _write_other_end(session, follower, dict.fromkeys(changed, step > 0), stamp)
    return changed


async def redo(session: Session, rows: FollowRows) -> None:
    """Make the followees' ends agree with the truth, whatever of a change was done.

    A change that comes after the truth was read has a greater version, and is written with that by its maker.
    """
    seen = await _see(session, rows.follower, rows.followees, serial=True)
    if seen.version is not None:
        ends = {followee: followee in seen.followed for followee in rows.followees}
        await _write_other_end(session, rows.follower, ends, seen.version)


async def _write_other_end(session: Session, follower: UserId, ends: Mapping[UserId, bool], stamp: int) -> None:
    add = "INSERT INTO follower (followee, shard, follower) VALUES (?, ?, ?)"
    remove = "DELETE FROM follower WHERE followee = ? AND shard = ? AND follower = ?"
    await session.each(
        [
            partial(session.write, add if followed else remove, followee, _shard(follower), follower, stamp=stamp)
            for followee, followed in ends.items()
        ]
    )


async def _see(session: Session, follower: UserId, followees: Sequence[UserId], *, serial: bool) -> _Seen:
    query = (
        "SELECT state, followee, version, writer, many FROM following"
        " WHERE follower = ? AND state IN (-1, 0, 1) AND followee IN ?"
    )
    rows = await session.read(query, follower, [_HEAD, *followees], serial=serial)
    head = next((row for row in rows if row[0] == _VERSION), None)
    return _Seen(
        version=head[2] if head else None,
        writer=head[3] if head else None,
        many=head[4] if head else 0,
        followed={UserId(row[1]): row[3] for row in rows if row[0] == _FOLLOWED},
        unfollowed={UserId(row[1]): row[3] for row in rows if row[0] == _UNFOLLOWED},
    )


def _shard(follower: UserId) -> int:
    return follower[-1] % _SHARDS


# Reading


async def followees(session: Session, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
    """See `Store.followees`."""
    query = "SELECT followee FROM following WHERE follower = ? AND state = 0 AND followee < ? LIMIT ?"
    return [UserId(followee) for (followee,) in await session.read(query, user, below or ABOVE_ALL, limit)]


async def followers(session: Session, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
    """See `Store.followers`. Each partition gives its share and a little more, until the greatest of all are known."""
    query = "SELECT follower FROM follower WHERE followee = ? AND shard = ? AND follower < ? LIMIT ?"
    share = limit // _SHARDS + _SLACK
    found: list[list[bytes]] = [[] for _ in range(_SHARDS)]
    lowest: dict[int, bytes] = dict.fromkeys(range(_SHARDS), below or ABOVE_ALL)
    while True:
        # Above the end of every partition that has more, nothing is missing.
        known_above = max(lowest.values(), default=b"")
        known = [follower for follower in merge(*found, reverse=True) if follower >= known_above or not lowest]
        if len(known) >= limit or not lowest:
            return [UserId(follower) for follower in known[:limit]]
        asked = [shard for shard in lowest if lowest[shard] == known_above or not found[shard]]
        parts = await session.each([partial(session.read, query, user, shard, lowest[shard], share) for shard in asked])
        for shard, part in zip(asked, parts, strict=True):
            found[shard] += [follower for (follower,) in part]
            if len(part) < share:
                del lowest[shard]
            else:
                lowest[shard] = part[-1][0]


async def has_followers(session: Session, user: UserId, least: int) -> bool:
    """See `Store.has_followers`."""
    below: UserId | None = None
    while least > 0:
        page = await followers(session, user, below, min(least, _COUNTED))
        if not page:
            return False
        least -= len(page)
        below = page[-1]
    return True


async def count_followees(session: Session, user: UserId) -> int:
    """How many a user follows."""
    query = "SELECT count(*) FROM following WHERE follower = ? AND state = 0"
    number: int = (await session.read(query, user, long=True))[0][0]
    return number


async def count_followers(session: Session, user: UserId) -> int:
    """How many follow a user."""
    query = "SELECT count(*) FROM follower WHERE followee = ? AND shard = ?"
    parts = await session.each([partial(session.read, query, user, shard, long=True) for shard in range(_SHARDS)])
    return sum(rows[0][0] for rows in parts)


async def followed_among(session: Session, user: UserId, others: Sequence[UserId]) -> set[UserId]:
    """See `Store.followed_among`."""
    query = "SELECT followee FROM following WHERE follower = ? AND state = 0 AND followee IN ?"
    batches = [list(others[start : start + MOST_AT_ONCE]) for start in range(0, len(others), MOST_AT_ONCE)]
    parts = await session.each([partial(session.read, query, user, some) for some in batches])
    return {UserId(followee) for rows in parts for (followee,) in rows}


async def unfollowed(session: Session, user: UserId, since: int, limit: int) -> list[UserId] | None:
    """See `Store.unfollowed_since`."""
    query = "SELECT followee, at FROM following WHERE follower = ? AND state = 1 LIMIT ?"
    rows = await session.read(query, user, limit + 1)
    return None if len(rows) > limit else [UserId(followee) for followee, at in rows if at >= since]
