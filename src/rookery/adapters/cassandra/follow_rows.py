"""Who follows whom, in Cassandra.

The truth is one partition a follower, changed only by lightweight transactions on its version: so the bound on
followees holds, and what is told of a change is so. The version is a timestamp greater than all before it, whatever the
clocks say. The same from the followee's end is written with the version as its timestamp: the later change wins.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from heapq import merge
from typing import Any

from rookery.adapters.cassandra.journal import FollowRows
from rookery.adapters.cassandra.session import Change, Session
from rookery.domain.errors import Conflict
from rookery.domain.ids import UserId

UNFOLLOWS_KEPT_SECONDS = 30 * 60 * 60
MOST_AT_ONCE = 100
"""Followees that one transaction changes."""
_SHARDS = 4
"""Partitions of one user's followers, so that those of the greatest are not too great."""
_SLACK = 16
_COUNTED = 5_000
_ABOVE_ALL = b"\xff" * 17
_FOLLOWED, _UNFOLLOWED = 0, 1


_States = dict[UserId, dict[int, bytes]]
"""What the rows of some followees say: for each its states, and the key that it was followed with."""
_Plan = Callable[[_States], Coroutine[Any, Any, dict[UserId, list[Change]]]]
"""What is to be changed of which pairs, as things stand."""

# Changing


async def add(
    session: Session, writer: bytes, follower: UserId, followee: UserId, at: int, *, most: int, key: bytes
) -> bool:
    """Let one follow another; False if he did. `writer` is an id of this change's own.

    Raises:
        Conflict: `too_many_followees`.
    """
    again = False

    async def plan(states: _States) -> dict[UserId, list[Change]]:
        nonlocal again
        if _FOLLOWED in states[followee]:
            # Who asks again with the key of the one that did it gets his answer.
            again = bool(key) and states[followee][_FOLLOWED] == key
            return {}
        if await count_followees(session, follower) >= most:
            raise Conflict("too_many_followees", f"A user follows at most {most} others.")
        return {followee: _adding(follower, followee, at, key, states)}

    return bool(await _decide(session, writer, follower, [followee], plan, followed=True)) or again


async def add_many(session: Session, writer: bytes, follower: UserId, followees: Sequence[UserId], at: int) -> int:
    """Let one follow up to `MOST_AT_ONCE`, each given once; how many were new."""

    async def plan(states: _States) -> dict[UserId, list[Change]]:
        new = [followee for followee in followees if _FOLLOWED not in states[followee]]
        return {followee: _adding(follower, followee, at, b"", states) for followee in new}

    return len(await _decide(session, writer, follower, followees, plan, followed=True))


async def remove(
    session: Session, writer: bytes, follower: UserId, followees: Sequence[UserId], at: int | None
) -> Sequence[UserId]:
    """End that one follows up to `MOST_AT_ONCE`; whom he did. They are noted as unfollowed `at`, or not at all."""

    async def plan(states: _States) -> dict[UserId, list[Change]]:
        return {followee: _removing(follower, followee, at) for followee in followees if _FOLLOWED in states[followee]}

    return await _decide(session, writer, follower, followees, plan, followed=False)


def _removing(follower: UserId, followee: UserId, at: int | None) -> list[Change]:
    gone = ("DELETE FROM following WHERE follower = ? AND state = 0 AND followee = ?", (follower, followee))
    note = (
        "INSERT INTO following (follower, state, followee, at) VALUES (?, 1, ?, ?) USING TTL ?",
        (follower, followee, at, UNFOLLOWS_KEPT_SECONDS),
    )
    return [gone, note] if at is not None else [gone]


def _adding(follower: UserId, followee: UserId, at: int, key: bytes, states: _States) -> list[Change]:
    added = (
        "INSERT INTO following (follower, state, followee, at, once) VALUES (?, 0, ?, ?, ?)",
        (follower, followee, at, key),
    )
    forget = ("DELETE FROM following WHERE follower = ? AND state = 1 AND followee = ?", (follower, followee))
    return [added, forget] if _UNFOLLOWED in states[followee] else [added]


async def _decide(
    session: Session,
    writer: bytes,
    follower: UserId,
    followees: Sequence[UserId],
    plan: _Plan,
    *,
    followed: bool,
) -> Sequence[UserId]:
    """Make the changes that are needed as things stand, at both ends; whose pairs were changed."""
    turn = 0
    changed: Sequence[UserId] = ()
    while True:
        version, last = await _version(session, follower, serial=turn > 0)
        if turn and version is not None and last == writer:
            stamp = version  # nobody knew what became of it: it was done
            break
        changes = await plan(await _states(session, follower, followees))
        changed = list(changes)
        if not changed:
            return ()
        stamp = session.stamp(version)
        guard = (
            "UPDATE following SET version = ?, writer = ? WHERE follower = ? IF version = ?",
            (stamp, writer, follower, version),
        )
        if await session.decide(guard, *(change for some in changes.values() for change in some)):
            break
        await session.back_off(turn)
        turn += 1
    await _write_other_end(session, follower, changed, stamp, followed=followed)
    return changed


async def redo(session: Session, rows: FollowRows) -> None:
    """Make the followees' ends agree with the truth, whatever of a change was done.

    The version is read first: a change that comes between has a greater one and is written with that by its maker.
    """
    version, _ = await _version(session, rows.follower, serial=True)
    if version is None:
        return
    states = await _states(session, rows.follower, rows.followees)
    for followed in (True, False):
        some = [followee for followee in rows.followees if (_FOLLOWED in states[followee]) is followed]
        await _write_other_end(session, rows.follower, some, version, followed=followed)


async def _write_other_end(
    session: Session, follower: UserId, followees: Sequence[UserId], stamp: int, *, followed: bool
) -> None:
    if followed:
        query = "INSERT INTO follower (followee, shard, follower) VALUES (?, ?, ?)"
    else:
        query = "DELETE FROM follower WHERE followee = ? AND shard = ? AND follower = ?"
    shard = _shard(follower)
    await session.each(
        [partial(session.write, query, followee, shard, follower, stamp=stamp) for followee in followees]
    )


async def _version(session: Session, follower: UserId, *, serial: bool) -> tuple[int | None, bytes | None]:
    """The version of a follower's partition and who wrote it."""
    query = "SELECT version, writer FROM following WHERE follower = ? LIMIT 1"
    rows = await session.read(query, follower, serial=serial)
    return (rows[0][0], rows[0][1]) if rows else (None, None)


async def _states(session: Session, follower: UserId, followees: Sequence[UserId]) -> _States:
    states: _States = {followee: {} for followee in followees}
    query = "SELECT followee, state, once FROM following WHERE follower = ? AND state IN (0, 1) AND followee IN ?"
    for followee, state, key in await session.read(query, follower, list(followees)):
        states[followee][state] = key or b""
    return states


def _shard(follower: UserId) -> int:
    return follower[-1] % _SHARDS


# Reading


async def followees(session: Session, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
    """See `Store.followees`."""
    query = "SELECT followee FROM following WHERE follower = ? AND state = 0 AND followee < ? LIMIT ?"
    return [UserId(followee) for (followee,) in await session.read(query, user, below or _ABOVE_ALL, limit)]


async def followers(session: Session, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
    """See `Store.followers`. Each partition gives its share and a little more, until the greatest of all are known."""
    query = "SELECT follower FROM follower WHERE followee = ? AND shard = ? AND follower < ? LIMIT ?"
    share = limit // _SHARDS + _SLACK
    found: list[list[bytes]] = [[] for _ in range(_SHARDS)]
    lowest: dict[int, bytes] = dict.fromkeys(range(_SHARDS), below or _ABOVE_ALL)
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


async def unfollowed(session: Session, user: UserId, since: int) -> list[UserId]:
    """See `Store.unfollowed_since`."""
    rows = await session.read("SELECT followee, at FROM following WHERE follower = ? AND state = 1", user)
    return [UserId(followee) for followee, at in rows if at >= since]
