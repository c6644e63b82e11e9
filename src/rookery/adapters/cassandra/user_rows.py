"""Users and what they sign in with, in Cassandra."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rookery.adapters.cassandra.journal import NoUserRows, UserRows
from rookery.adapters.cassandra.session import AHEAD_MICROS, Row, Session
from rookery.domain.ids import TweetId, UserId
from rookery.domain.users import FanoutState, UserRecord, name_key
from rookery.ports.store import FanoutChange

LETTERS = "0123456789_abcdefghijklmnopqrstuvwxyz"
"""What a handle may begin with, in order: each is a partition of the list of users."""
_LIST = 0

_READ = "SELECT id, name, display_name, is_admin, deleted, fanout FROM user_by_id WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Left:
    """What of a deleted user's rows may be left: those below these ids, all where there is none."""

    stamp: int
    tweets: TweetId | None
    followees: UserId | None
    followers: UserId | None


def record(row: Row) -> UserRecord:
    """A user of id, name, display name, admin, deleted and fan-out state."""
    user, name, display_name, is_admin, deleted, fanout = row
    return UserRecord(UserId(user), name, display_name or "", bool(is_admin), bool(deleted), FanoutState(fanout or 0))


async def by_ids(session: Session, ids: Sequence[UserId]) -> dict[UserId, UserRecord]:
    """See `Store.users`."""
    found = await session.each([partial(session.read, _READ, user) for user in dict.fromkeys(ids)])
    return {user.id: user for rows in found for user in map(record, rows) if user.name}


async def by_id(session: Session, user: UserId) -> UserRecord | None:
    """One of them."""
    return (await by_ids(session, [user])).get(user)


async def by_name(session: Session, name: str) -> UserRecord | None:
    """See `Store.user_by_name`."""
    owner = await owner_of(session, name)
    return await by_id(session, owner) if owner else None


async def owner_of(session: Session, name: str, *, serial: bool = False) -> UserId | None:
    """To whom a handle was given."""
    if not name:  # no key of Cassandra is empty
        return None
    rows = await session.read("SELECT id FROM user_by_name WHERE name_key = ?", name_key(name), serial=serial)
    return UserId(rows[0][0]) if rows else None


async def claim_name(session: Session, name: str, user: UserId) -> bool:
    """Give a handle to a user, if nobody has it or he does; of many at once one gets it."""
    turn = 0
    while True:
        owner = await owner_of(session, name, serial=turn > 0)
        if owner is not None:
            return owner == user
        change = ("INSERT INTO user_by_name (name_key, id) VALUES (?, ?) IF NOT EXISTS", (name_key(name), user))
        if await session.decide(change):
            return True
        await session.back_off(turn)
        turn += 1


async def write(session: Session, rows: UserRows, stamp: int) -> None:
    """Write the rows of a new user who has his handle."""
    user = rows.user
    key = name_key(user.name)
    await session.each(
        [
            partial(
                session.write,
                "INSERT INTO user_by_id (id, name, display_name, password_hash, is_admin) VALUES (?, ?, ?, ?, ?)",
                *(user.id, user.name, user.display_name, rows.password_hash, user.is_admin),
                stamp=stamp,
            ),
            partial(
                session.write,
                "INSERT INTO user_by_letter (letter, name_key, id) VALUES (?, ?, ?)",
                *(key[0], key, user.id),
                stamp=stamp,
            ),
        ]
    )
    if rows.token_hash:
        await add_token(session, user.id, rows.token_hash, stamp)


async def listed(session: Session, after: str, limit: int) -> list[UserRecord]:
    """See `Store.list_users`."""
    found: list[UserRecord] = []
    key = name_key(after)
    for letter in LETTERS:
        while letter >= key[:1] and len(found) < limit:
            rows = await session.read(
                "SELECT name_key, id FROM user_by_letter WHERE letter = ? AND name_key > ? LIMIT ?",
                *(letter, key, limit - len(found)),
            )
            known = await by_ids(session, [UserId(user) for _, user in rows])
            found += [known[user] for _, user in rows if user in known and not known[user].deleted]
            if not rows:
                break
            key = rows[-1][0]
    return found


async def delete(session: Session, user: UserId) -> bool:
    """Mark a user deleted; False if he was, and for one who never was. Of many at once one gets True."""
    rows = await session.read("SELECT name, deleted FROM user_by_id WHERE id = ?", user)
    if not rows or not rows[0][0] or rows[0][1]:
        return False
    return await session.set_once(
        ("UPDATE user_by_id SET deleted = true WHERE id = ? IF deleted = null", (user,)),
        ("SELECT deleted FROM user_by_id WHERE id = ?", (user,)),
    )


async def remove(session: Session, rows: NoUserRows, stamp: int) -> None:
    """Take away what a deleted user signs in with, and put him on the list of those to purge."""
    found = await session.read("SELECT name, writetime(name) FROM user_by_id WHERE id = ?", rows.user)
    if not found or not found[0][0]:
        return
    key, after = name_key(found[0][0]), max(stamp, found[0][1] + 1)
    await session.each(
        [
            partial(session.write, query, *values, stamp=after)
            for query, values in (
                ("UPDATE user_by_id SET password_hash = null WHERE id = ?", (rows.user,)),
                ("DELETE FROM user_by_letter WHERE letter = ? AND name_key = ?", (key[0], key)),
            )
        ]
    )
    await revoke_all(session, rows.user)
    left = await left_to_purge(session, rows.user)
    await _put_to_purge(session, rows.user, max(after, left.stamp + 1 if left else 0))


async def purge_again(session: Session, user: UserId) -> None:
    """Put a deleted user on the list of those to purge once more, as a row of his may have come after his purge."""
    left = await left_to_purge(session, user)
    named = await session.read("SELECT writetime(display_name) FROM user_by_id WHERE id = ?", user)
    purged = named[0][0] if named else None
    # Above whatever a purge that ends in this moment notes, and above what one that has ended took off the list.
    above = max(left.stamp if left else 0, session.stamp()) + AHEAD_MICROS
    await _put_to_purge(session, user, max(above, (purged or 0) + 1))


async def _put_to_purge(session: Session, user: UserId, stamp: int) -> None:
    """Put a deleted user on the list of those to purge, from the beginning, unless he was taken off it later."""
    await session.write(
        "INSERT INTO user_to_purge (list, id, stamp, tweets_below, followees_below, followers_below)"
        " VALUES (?, ?, ?, null, null, null)",
        *(_LIST, user, stamp),
        stamp=stamp,
    )


async def to_purge(session: Session, limit: int) -> list[UserId]:
    """See `Store.users_to_purge`."""
    rows = await session.read("SELECT id FROM user_to_purge WHERE list = ? LIMIT ?", _LIST, limit)
    return [UserId(user) for (user,) in rows]


async def left_to_purge(session: Session, user: UserId) -> Left | None:
    """How far the purge of a deleted user has come; None when nothing is left to do."""
    query = "SELECT stamp, tweets_below, followees_below, followers_below FROM user_to_purge WHERE list = ? AND id = ?"
    rows = await session.read(query, _LIST, user)
    return Left(*rows[0]) if rows else None


async def note_purged(session: Session, user: UserId, left: Left) -> None:
    """Note how far a purge has come, so that it never reads again over what it took away.

    Dated right behind what it goes by: if he is put on the list again meanwhile, the purge begins again.
    """
    stamp = left.stamp + 1
    await session.write(
        "UPDATE user_to_purge SET stamp = ?, tweets_below = ?, followees_below = ?, followers_below = ?"
        " WHERE list = ? AND id = ?",
        *(stamp, left.tweets, left.followees, left.followers, _LIST, user),
        stamp=stamp,
    )


async def mark_purged(session: Session, user: UserId, left: Left) -> None:
    """Nothing of him is left but his handle. If he is put on the list again meanwhile he stays there.

    Not before his display name is taken away: the list is dated by that.
    """
    named = session.stamp(left.stamp)
    await session.write("UPDATE user_by_id SET display_name = '' WHERE id = ?", user, stamp=named)
    await session.write("DELETE FROM user_to_purge WHERE list = ? AND id = ?", _LIST, user, stamp=left.stamp + 1)


# What they sign in with


async def password_hash(session: Session, user: UserId) -> str | None:
    """See `Store.password_hash`."""
    rows = await session.read("SELECT password_hash, deleted FROM user_by_id WHERE id = ?", user)
    return rows[0][0] if rows and not rows[0][1] else None


async def set_password(session: Session, user: UserId, password_hash: str) -> None:
    """Replace a user's password hash, whatever clock wrote the one before."""
    rows = await session.read("SELECT writetime(password_hash) FROM user_by_id WHERE id = ?", user)
    stamp = session.stamp(rows[0][0] if rows else None)
    await session.write("UPDATE user_by_id SET password_hash = ? WHERE id = ?", password_hash, user, stamp=stamp)


async def add_token(session: Session, user: UserId, token_hash: bytes, stamp: int) -> None:
    """Let a user act by one more token. The list of his tokens comes first, so that each can be revoked."""
    await session.write("INSERT INTO token_by_user (user, hash) VALUES (?, ?)", user, token_hash, stamp=stamp)
    await session.write("INSERT INTO token_by_hash (hash, user) VALUES (?, ?)", token_hash, user, stamp=stamp)


async def token_owner(session: Session, token_hash: bytes) -> UserRecord | None:
    """See `Store.token_owner`."""
    if not token_hash:  # no key of Cassandra is empty
        return None
    rows = await session.read("SELECT user FROM token_by_hash WHERE hash = ?", token_hash)
    owner = await by_id(session, UserId(rows[0][0])) if rows else None
    return owner if owner and not owner.deleted else None


async def revoke(session: Session, token_hash: bytes, owner: UserId | None = None) -> None:
    """See `Store.revoke_token`. A token that an `owner` has on his list is ended also where its row is not seen yet."""
    rows = await session.read("SELECT user, writetime(user) FROM token_by_hash WHERE hash = ?", token_hash)
    for user, written in rows or ([(owner, None)] if owner else []):
        stamp = session.stamp(written) if written else session.stamp() + AHEAD_MICROS
        await session.write("DELETE FROM token_by_hash WHERE hash = ?", token_hash, stamp=stamp)
        await session.write("DELETE FROM token_by_user WHERE user = ? AND hash = ?", user, token_hash, stamp=stamp)


async def revoke_all(session: Session, user: UserId, but: bytes | None = None) -> int:
    """See `Store.revoke_tokens`."""
    rows = await session.read("SELECT hash FROM token_by_user WHERE user = ?", user)
    ended = [token_hash for (token_hash,) in rows if token_hash != but]
    await session.each([partial(revoke, session, token_hash, user) for token_hash in ended])
    return len(ended)


# On the way between push and pull


async def set_fanout(session: Session, author: UserId, old: FanoutState, new: FanoutState, at: int) -> bool:
    """See `Store.set_fanout`."""
    query = "SELECT name, fanout, fanout_since FROM user_by_id WHERE id = ?"
    turn = 0
    while True:
        rows = await session.read(query, author, serial=turn > 0)
        if not rows or not rows[0][0]:
            return False
        _, state, since = rows[0]
        if turn and (state, since) == (new, at):  # nobody knew what became of it: it was done
            return True
        if (state or 0) != old:
            return False
        # First to the list, for ever: who is not plainly pushed must be found there.
        listing = "INSERT INTO user_by_fanout (list, id) VALUES (?, ?)"
        await session.write(listing, _LIST, author, stamp=session.stamp())
        change = "UPDATE user_by_id SET fanout = ?, fanout_since = ? WHERE id = ? IF fanout = ?"
        if await session.decide((change, (int(new), at, author, state))):
            return True
        await session.back_off(turn)
        turn += 1


async def fanout_changes(session: Session) -> list[FanoutChange]:
    """See `Store.fanout_changes`."""
    listed_ones = await session.read("SELECT id FROM user_by_fanout WHERE list = ?", _LIST)
    query = "SELECT id, fanout, fanout_since FROM user_by_id WHERE id = ?"
    found = await session.each([partial(session.read, query, author) for (author,) in listed_ones])
    return [
        FanoutChange(UserId(author), FanoutState(state), since)
        for rows in found
        for author, state, since in rows
        if state
    ]
