"""All rows of a keyspace as copies, and copies as rows."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from rookery.adapters.cassandra import follow_rows, retweet_rows, tweet_rows, user_rows
from rookery.adapters.cassandra.journal import NoUserRows, TweetRows, UserRows
from rookery.adapters.cassandra.key_rows import Keys, told_of
from rookery.adapters.cassandra.session import Row, Session
from rookery.domain.copies import Copy, FollowCopy, KeyCopy, Part, TokenCopy, TweetCopy, UnfollowCopy, UserCopy
from rookery.domain.idempotency import Once
from rookery.domain.ids import ID_BYTES, UserId
from rookery.domain.users import FanoutState
from rookery.ports.store import not_the_same

_READ: dict[Part, str] = {
    Part.TOKENS: "SELECT hash, user FROM token_by_hash",
    Part.FOLLOWS: "SELECT follower, followee, at, state FROM following",
    Part.UNFOLLOWS: "SELECT follower, followee, at, state FROM following",
}


_MAKE: dict[Part, Callable[[Row], Copy | None]] = {
    Part.TOKENS: lambda row: TokenCopy(*row),
    Part.FOLLOWS: lambda row: FollowCopy(*row[:3]) if row[3] == 0 else None,
    Part.UNFOLLOWS: lambda row: UnfollowCopy(*row[:3]) if row[3] == 1 else None,
}


async def dump(session: Session, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    """See `Store.dump`. In the order of the ring."""
    if part is Part.TWEETS:
        tweets, behind = await tweet_rows.walk(session, position, limit)
        return [TweetCopy(tweet) for tweet in tweets], behind
    if part is Part.USERS:
        return await _users(session, position, limit)
    if part is Part.KEYS:
        return await _keys(session, position, limit)
    rows, behind = await session.page(_READ[part], position, limit)
    return [copy for copy in map(_MAKE[part], rows) if copy is not None], behind


async def _users(session: Session, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    columns = "id, name, display_name, is_admin, deleted, fanout, password_hash, fanout_since"
    rows, behind = await session.page(f"SELECT {columns} FROM user_by_id", position, limit)  # noqa: S608
    found: list[Copy] = []
    for row in rows:
        record = user_rows.record(row[:6])
        if record.name:
            purged = record.deleted and await user_rows.left_to_purge(session, record.id) is None
            found.append(UserCopy(record, None if record.deleted else row[6], purged, row[7] or 0))
    return found, behind


async def _keys(session: Session, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    rows, behind = await session.page("SELECT key, digest, made, at, stamp, done FROM idempotency", position, limit)
    found: list[Copy] = []
    for key, digest, made, at, stamp, done in rows:
        if stamp is None:
            continue  # it was released
        told = told_of(stamp, done)
        if told is None and await _was_made(session, made, stamp):
            told = b""  # nobody was answered, and whoever asks again must not get a second one
        if told is not None:
            found.append(KeyCopy(key, digest, made + told, at))
    return found, behind


async def _was_made(session: Session, made: bytes, stamp: int) -> bool:
    """Whether there is a tweet or user with this id, made by the write of this timestamp."""
    for query in (
        "SELECT writetime(author) FROM tweet_by_id WHERE id = ?",
        "SELECT writetime(name) FROM user_by_id WHERE id = ?",
    ):
        if await session.read(query, made) == [(stamp,)]:
            return True
    return False


async def restore(session: Session, copies: Sequence[Copy]) -> None:
    """See `Store.restore`."""
    await session.each([partial(_restore_user, session, copy) for copy in copies if isinstance(copy, UserCopy)])
    stamp = session.stamp()
    await session.each(
        [
            partial(user_rows.add_token, session, copy.user, copy.hash, stamp)
            for copy in copies
            if isinstance(copy, TokenCopy)
        ]
    )
    await _restore_follows(session, copies)
    tweets = [copy.tweet for copy in copies if isinstance(copy, TweetCopy)]
    await tweet_rows.write(session, TweetRows([tweet for tweet in tweets if not tweet.deleted]), stamp)
    await retweet_rows.restore(session, tweets, stamp)
    await session.each([partial(tweet_rows.write_deleted, session, tweet, stamp) for tweet in tweets if tweet.deleted])
    keys = Keys(session)
    await session.each([partial(_restore_key, keys, copy) for copy in copies if isinstance(copy, KeyCopy)])


async def _restore_user(session: Session, copy: UserCopy) -> None:
    user, stamp = copy.user, session.stamp()
    if not await user_rows.claim_name(session, user.name, user.id):
        raise not_the_same()
    await user_rows.write(session, UserRows(user, copy.password_hash, None), stamp)
    if user.fanout is not FanoutState.PUSHED or copy.fanout_since:
        await user_rows.set_fanout(session, user.id, FanoutState.PUSHED, user.fanout, copy.fanout_since)
    if user.deleted:
        await user_rows.delete(session, user.id)
        await user_rows.remove(session, NoUserRows(user.id), stamp)
        left = await user_rows.left_to_purge(session, user.id)
        if copy.purged and left is not None:
            await user_rows.mark_purged(session, user.id, left)


async def _restore_follows(session: Session, copies: Sequence[Copy]) -> None:
    # Each follower's in as few transactions as may be, since those of one follower wait for each other.
    for kind, write in ((FollowCopy, follow_rows.add_many), (UnfollowCopy, follow_rows.note_many)):
        wanted: defaultdict[UserId, dict[UserId, int]] = defaultdict(dict)
        for copy in copies:
            if isinstance(copy, kind):
                wanted[copy.follower][copy.followee] = copy.at
        await session.each(
            [
                partial(write, session, follower + session.stamp().to_bytes(8, "big"), follower, some)
                for follower, some in follow_rows.in_batches(wanted)
            ]
        )


async def _restore_key(keys: Keys, copy: KeyCopy) -> None:
    once = Once(copy.key, copy.digest, copy.at, seed=b"")
    claim = await keys.claim(once, copy.made[:ID_BYTES])
    await keys.done(once, claim, copy.made[ID_BYTES:])
