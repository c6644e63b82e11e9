"""All that a store in Redis holds as copies, and copies as rows; and walking over all of it, shard after shard.

A position is the shard's number and what the function goes on from there. Within a shard users come in the order of
their ids, each with what is his.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from rookery.adapters.redis.calling import Shard, all_of
from rookery.adapters.redis.rows import bare_of, millis, tweet_of, user_of, value_of
from rookery.adapters.redis.shards import Shards
from rookery.adapters.redis.writing import Operation, Writing
from rookery.domain.copies import Copy, FollowCopy, KeyCopy, Part, TokenCopy, TweetCopy, UnfollowCopy, UserCopy
from rookery.domain.errors import Conflict
from rookery.domain.ids import ID_BYTES, TweetId, UserId
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import name_key
from rookery.ports.store import not_the_same

T = TypeVar("T")

_USERS_AT_ONCE = 200
_ROWS_AT_ONCE = 200
_MOST_STEPS = 100
_MILLIS_BYTES = 6
_DIGEST_BYTES = 32

_Step = Callable[[Shard, bytes, int], Awaitable[tuple[Sequence[T], bytes | None]]]
"""Some of a shard from a place in it on, b"" for the first, and the place behind them; None at its end."""

# Walking


async def _walk(shards: Shards, position: bytes, limit: int, step: _Step[T]) -> tuple[Sequence[T], bytes | None]:
    found: list[T] = []
    number, place = (position[0], position[1:]) if position else (0, b"")
    for _ in range(_MOST_STEPS):
        some, behind = await step(shards.all[number], place, limit - len(found))
        found += some
        if behind is not None:
            place = behind
        elif number + 1 < len(shards.all):
            number, place = number + 1, b""
        else:
            return found, None
        if len(found) >= limit:
            break
    return found, bytes([number]) + place


def _behind(user: bytes) -> bytes:
    """The place of the next user."""
    return user + b"\0"


def _split(place: bytes) -> tuple[bytes, bytes]:
    """The user to go on with, and the id to go on behind within what is his, if any."""
    return (place[:ID_BYTES], place[ID_BYTES:]) if len(place) == 2 * ID_BYTES else (place, b"")


def _after_users(users: Sequence[bytes]) -> bytes | None:
    return _behind(users[-1]) if len(users) == _USERS_AT_ONCE else None


async def walk_tweets(shards: Shards, position: bytes, limit: int) -> tuple[Sequence[TweetRecord], bytes | None]:
    """See `Store.walk_tweets`. Each author's tweets in the order of their ids."""
    return await _walk(shards, position, limit, _some_tweets)


async def _some_tweets(shard: Shard, place: bytes, limit: int) -> tuple[Sequence[TweetRecord], bytes | None]:
    user, tweet = _split(place)
    rows = await shard.call("walk_tweets", user, tweet, _USERS_AT_ONCE, limit)
    found: list[TweetRecord] = []
    for author, values in rows:
        for one, value in sorted(values)[: limit - len(found)]:
            found.append(tweet_of(TweetId(one), value))
        if len(found) == limit:
            return found, author + found[-1].id if found[-1].author == author else author
    return found, _after_users([author for author, _ in rows])


async def dump(shards: Shards, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    """See `Store.dump`."""
    if part is Part.TWEETS:
        tweets, behind = await walk_tweets(shards, position, limit)
        return [TweetCopy(tweet) for tweet in tweets], behind
    return await _walk(shards, position, limit, _STEPS[part])


async def _some_users(shard: Shard, place: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    rows = await shard.call("walk_users", place, limit)
    found: list[Copy] = []
    for user, row, since, password, is_to_purge in rows:
        record = user_of(user, row)
        purged = record.deleted and is_to_purge is None
        found.append(UserCopy(record, password.decode() if password else None, purged, int(since or 0)))
    return found, _behind(rows[-1][0]) if len(rows) == limit else None


async def _some_tokens(shard: Shard, place: bytes, _: int) -> tuple[Sequence[Copy], bytes | None]:
    rows = await shard.call("walk_tokens", place, _USERS_AT_ONCE)
    found = [TokenCopy(one, UserId(user)) for user, tokens in rows for one in tokens]
    return found, _after_users([user for user, _ in rows])


async def _some_follows(shard: Shard, place: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    user, behind = _split(place)
    rows = await shard.call("walk_follows", user, behind, _USERS_AT_ONCE, limit)
    found = [
        FollowCopy(UserId(follower), UserId(member[:ID_BYTES]), int.from_bytes(member[ID_BYTES:], "big"))
        for follower, members in rows
        for member in members
    ]
    if rows and len(rows[-1][1]) == limit:  # there may be more of him
        return found, rows[-1][0] + found[-1].followee
    if len(found) >= limit:
        return found, _behind(rows[-1][0])
    return found, _after_users([user for user, _ in rows])


async def _some_unfollows(shard: Shard, place: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    members = await shard.call("listed", "unfollows", b"(" + place if place else b"-", b"+", limit)
    found = []
    for member in members:
        at, pair = int.from_bytes(member[:_MILLIS_BYTES], "big"), member[_MILLIS_BYTES:]
        found.append(UnfollowCopy(UserId(pair[:ID_BYTES]), UserId(pair[ID_BYTES:]), at))
    return found, members[-1] if len(members) == limit else None


async def _some_keys(shard: Shard, place: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
    rows = await shard.call("walk_keys", place, limit)
    found: list[Copy] = []
    for member, row in rows:
        at, rest = int.from_bytes(member[:_MILLIS_BYTES], "big"), row[_DIGEST_BYTES + _MILLIS_BYTES :]
        if rest[:1] == b"D":
            found.append(KeyCopy(member[_MILLIS_BYTES:], row[:_DIGEST_BYTES], rest[1:], at))
    return found, rows[-1][0] if len(rows) == limit else None


_STEPS: Mapping[Part, _Step[Copy]] = {
    Part.USERS: _some_users,
    Part.TOKENS: _some_tokens,
    Part.FOLLOWS: _some_follows,
    Part.UNFOLLOWS: _some_unfollows,
    Part.KEYS: _some_keys,
}

# Writing many


async def put_tweets(shards: Shards, writing: Writing, tweets: Sequence[TweetRecord]) -> None:
    """Write tweets as they are, deleted ones too; those that are there stay."""
    await shards.house([(tweet.id, tweet.author) for tweet in tweets])
    groups: defaultdict[Shard, list[Operation]] = defaultdict(list)
    for tweet in tweets:
        shard = shards.of(tweet.author)
        groups[shard].append(
            Operation(shard, "put_tweet", (tweet.id, tweet.author, value_of(tweet), 0, bare_of(tweet), 0))
        )
    await _write_all(writing, groups)


async def _write_all(writing: Writing, groups: Mapping[Shard, Sequence[Operation]]) -> None:
    """Operations that lie in one shard each and refuse nothing, many in one step."""
    await all_of(
        writing.write(*operations[start : start + _ROWS_AT_ONCE])
        for operations in groups.values()
        for start in range(0, len(operations), _ROWS_AT_ONCE)
    )


async def add_follows(shards: Shards, writing: Writing, wanted: Mapping[UserId, Mapping[UserId, int]]) -> int:
    """Have each follow these, since then; how many are new."""

    def operations(follower: UserId, some: Mapping[UserId, int]) -> Sequence[Operation]:
        pairs = [part for followee, at in some.items() for part in (followee, millis(at))]
        ends = [Operation(shard, "other_end", (follower, 1, *group)) for shard, group in shards.grouped(some).items()]
        return [Operation(shards.of(follower), "follow_many", (follower, *pairs)), *ends]

    decided = await all_of(
        writing.write(*operations(follower, dict(pairs[start : start + _ROWS_AT_ONCE])))
        for follower, pairs in ((follower, list(followees.items())) for follower, followees in wanted.items())
        for start in range(0, len(pairs), _ROWS_AT_ONCE)
    )
    return sum(int(many) for many, _ in decided)


async def restore(shards: Shards, writing: Writing, copies: Sequence[Copy]) -> None:
    """See `Store.restore`."""
    try:
        await all_of(writing.write(*_user_operations(shards, copy)) for copy in copies if isinstance(copy, UserCopy))
    except Conflict as error:
        raise not_the_same() from error
    await all_of(
        writing.write(
            Operation(shards.of(copy.user), "restore_token", (copy.user, copy.hash)),
            Operation(shards.of(copy.hash), "put_token_rows", (copy.hash + copy.user,)),
        )
        for copy in copies
        if isinstance(copy, TokenCopy)
    )
    follows: defaultdict[UserId, dict[UserId, int]] = defaultdict(dict)
    unfollows: defaultdict[Shard, list[Operation]] = defaultdict(list)
    keys: defaultdict[Shard, list[Operation]] = defaultdict(list)
    for copy in copies:
        match copy:
            case FollowCopy():
                follows[copy.follower][copy.followee] = copy.at
            case UnfollowCopy():
                shard = shards.of(copy.follower)
                row = (copy.follower, copy.followee, millis(copy.at))
                unfollows[shard].append(Operation(shard, "note_unfollows", row))
            case KeyCopy():
                shard = shards.of_key(copy.key)
                keys[shard].append(Operation(shard, "restore_key", (copy.key, copy.digest, millis(copy.at), copy.made)))
            case _:
                pass
    await add_follows(shards, writing, follows)
    await _write_all(writing, unfollows)
    await put_tweets(shards, writing, [copy.tweet for copy in copies if isinstance(copy, TweetCopy)])
    await _write_all(writing, keys)


def _user_operations(shards: Shards, copy: UserCopy) -> Sequence[Operation]:
    user = copy.user
    row = (user.id, user.name, user.display_name, int(user.is_admin), copy.password_hash or "", "")
    state = (int(user.deleted), int(user.fanout), copy.fanout_since, int(copy.purged))
    return [
        Operation(shards.of_name(user.name), "claim_name", (name_key(user.name), user.id)),
        Operation(shards.of(user.id), "restore_user", (*row, *state)),
    ]
