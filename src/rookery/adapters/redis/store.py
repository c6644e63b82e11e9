"""The store in Redis: on one server, or on a cluster.

All that is a user's lies in his shard, so what is decided about him is decided by one function that runs by itself. One
server is one shard, and each write one such function; on a cluster the rest of a write follows (see `writing`).
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from heapq import merge
from itertools import islice

import msgspec

from rookery.adapters.redis import copy_rows
from rookery.adapters.redis.calling import Shard, all_of, open_shards, states_of, warn_of_loss
from rookery.adapters.redis.rows import bare_of, depth_of, member_of, millis, promise_of, tweet_of, user_of, value_of
from rookery.adapters.redis.servers import Access
from rookery.adapters.redis.shards import AT_ONCE, Shards, batches
from rookery.adapters.redis.writing import HAD, LIBRARY, Operation, Tells, Writing
from rookery.domain.copies import Copy, Part, Unfinished
from rookery.domain.errors import Conflict, deleted_tweet, unknown_tweet, unknown_user
from rookery.domain.idempotency import KEPT_MILLIS, Once
from rookery.domain.ids import ID_BYTES, TweetId, UserId, id_at
from rookery.domain.promises import Promise, ToldRun
from rookery.domain.tallies import Reading
from rookery.domain.timeline import entry
from rookery.domain.tweets import TweetRecord, chained, first_within
from rookery.domain.users import FanoutState, UserCounts, UserRecord, name_key
from rookery.ports.clock import Clock
from rookery.ports.store import (
    Below,
    Credentials,
    FanoutChange,
    Shown,
    TokenHash,
    Written,
    hash_for,
    new_among,
    not_the_same,
)

UNFOLLOWS_KEPT_MILLIS = 30 * 60 * 60 * 1000
COUNTED_KEPT_MILLIS = 26 * 60 * 60 * 1000
_TIDIED_AT_ONCE = 500
_MOST_REMEMBERED = 100_000
SCHEMA = 1
"""How keys are laid out. It grows with a change that an older program would misread."""


def _refuse_newer(version: int) -> None:
    if version > SCHEMA:
        raise Conflict(
            "schema_too_new", f"The keys have schema {version}, this Rookery knows up to {SCHEMA}: use a newer Rookery."
        )


class RedisStore:
    """Implements `ports.store.Store`. `prefix` keeps apart what several have in one Redis. Open it before its use."""

    def __init__(self, access: Access, clock: Clock, *, prefix: str = "rookery", seconds: float = 5.0) -> None:
        self._client, shards = open_shards(access, clock, LIBRARY, timeout=0.8 * seconds, prefix=f"{prefix}.store")
        self._shards = Shards(shards)
        self._writing = Writing(self._shards, clock, seconds)
        self._clock = clock
        self._promised: dict[bytes, Shard] = {}
        """Where promises are that this process knows of."""

    async def schema(self) -> tuple[int, int]:
        """How the keys are laid out, 0 where there are none, and how this program lays them out.

        Raises:
            Unavailable: `store_unavailable`.
            Conflict: `schema_too_new`.
        """
        version = int(await self._shards.first.field(b"meta", "schema") or 0)
        _refuse_newer(version)
        return version, SCHEMA

    async def open(self) -> None:
        """See that this is a store of ours, and that it is kept well.

        Raises:
            Unavailable: `store_unavailable`.
            Conflict: `schema_too_new`, `schema_too_old`, for what another Rookery has laid out; `shards_differ`, for
                what was begun on one server and is a cluster now, or the other way round.
        """
        version = int(await self._shards.first.call_and_copy("set_first", "schema", b"%d" % SCHEMA))
        _refuse_newer(version)
        if version < SCHEMA:
            raise Conflict("schema_too_old", f"The keys have schema {version}, this Rookery needs {SCHEMA}.")
        many = str(len(self._shards.all)).encode()
        there = await self._shards.first.call_and_copy("set_first", "shards", many)
        if there != many:
            began, are = ("a cluster", "one server") if len(self._shards.all) == 1 else ("one server", "a cluster")
            raise Conflict("shards_differ", f"This store began on {began}, and store.servers name {are}.")
        warn_of_loss(await self._shards.first.infos())

    def readings(self) -> Iterable[Reading]:
        """How many shards answer."""
        return states_of("store", self._shards.all)

    # --- users -------------------------------------------------------------------------------------------------------

    async def add_user(self, user: UserRecord, credentials: Credentials, once: Once | None = None) -> UserId:
        password = credentials.password_hash or ""

        async def plan(made: bytes, _: bool) -> Sequence[Operation]:
            token = credentials.token_of(UserId(made)) or b""
            row = (made, user.name, user.display_name, int(user.is_admin), password, token)
            operations = [
                Operation(self._shards.of_name(user.name), "claim_name", (name_key(user.name), made)),
                Operation(self._shards.of(made), "put_user", row),
            ]
            if token:
                operations.append(Operation(self._shards.of(token), "put_token_rows", (token + made,)))
            return operations

        home = self._shards.of_name(user.name)
        made = UserId((await self._writing.write_once(once, user.id, home, plan)).made)
        if made != user.id and credentials.token_hash:
            await self._find_again(made, hash_for(credentials.token_hash, made))
        return made

    async def users(self, ids: Sequence[UserId]) -> Mapping[UserId, UserRecord]:
        found: dict[UserId, UserRecord] = {}

        async def read(shard: Shard, some: Sequence[UserId]) -> None:
            rows = zip(some, await shard.call("users", *some), strict=True)
            found.update((user, user_of(user, row)) for user, row in rows if row)

        await all_of(read(*batch) for batch in batches(self._shards.grouped(ids)))
        return found

    async def user_by_name(self, name: str) -> UserRecord | None:
        if not name.isascii():  # no handle is another
            return None
        owner = await self._shards.of_name(name).call("owner", name_key(name))
        return (await self.users([owner])).get(owner) if owner else None

    async def list_users(self, after: str, limit: int) -> Sequence[UserRecord]:
        found: list[UserRecord] = []
        key = name_key(after)
        while len(found) < limit:
            want = limit - len(found)
            lists = await all_of(shard.call("names", key, want) for shard in self._shards.all)
            members = list(islice(merge(*lists), want))
            if not members:
                break
            ids = [UserId(member[-ID_BYTES:]) for member in members]
            known = await self.users(ids)
            found += [known[user] for user in ids if user in known and not known[user].deleted]
            key = members[-1][: -ID_BYTES - 1].decode()
        return found

    async def user_counts(self, user: UserId) -> UserCounts:
        followers, followees, tweets = await self._shards.of(user).call("counts", user)
        return UserCounts(followers=followers, followees=followees, tweets=tweets)

    async def delete_user(self, user: UserId, promise: Promise | None = None) -> bool:
        shard = self._shards.of(user)
        decided = await self._write(Operation(shard, "delete_user", (user,)), promise=promise)
        await self._drop_token_rows(user, decided[1:])
        return decided[0] == b"1"

    async def users_to_purge(self, limit: int) -> Sequence[UserId]:
        found = await all_of(shard.call("to_purge", limit) for shard in self._shards.all)
        return [UserId(user) for user in islice(merge(*found), limit)]

    async def purge_user(
        self, user: UserId, limit: int, promise: Callable[[TweetId], Promise | None] = lambda _: None
    ) -> Sequence[Written] | None:
        shard = self._shards.of(user)
        left = await shard.call("left", user, limit)
        if left is None:
            return None

        async def delete(tweet: TweetId) -> Written:
            made = promise(tweet)
            return replace(await self._delete_tweet(shard, tweet, made), promise=made)

        rows = left[0]
        some = first_within(((rows[at], depth_of(rows[at + 1])) for at in range(0, len(rows), 2)), limit)
        deleted = await all_of(delete(tweet) for tweet in some)
        followees = left[1][: limit - len(some)]
        if followees:
            await self._unfollow(user, followees, b"")
        followers = left[2][: limit - len(some) - len(followees)]
        await all_of(self._unfollow(follower, [user], b"") for follower in followers)
        if some or followees or followers:
            return deleted
        # What came this moment is found here.
        return None if (await self._write(Operation(shard, "purged", (user,))))[0] == b"1" else []

    # --- what users sign in with -------------------------------------------------------------------------------------

    async def password_hash(self, user: UserId) -> str | None:
        found = await self._shards.of(user).call("password", user)
        return found.decode() if found else None

    async def set_password(
        self, user: UserId, password_hash: str, but: bytes | None = None, once: Once | None = None
    ) -> None:
        home = self._shards.of(user)

        async def plan(_: bytes, __: bool) -> Sequence[Operation]:
            return [Operation(home, "set_password", (user, but or b"", password_hash))]

        outcome = await self._writing.write_once(once, user, home, plan)
        await self._drop_token_rows(user, outcome.decided[1:])

    async def add_token(
        self, user: UserId, token: TokenHash, once: Once | None = None, made: bytes | None = None
    ) -> bytes:
        made = made or user

        async def plan(made: bytes, _: bool) -> Sequence[Operation]:
            hashed = hash_for(token, made)
            return [
                Operation(self._shards.of(user), "add_token", (user, hashed)),
                Operation(self._shards.of(hashed), "put_token_rows", (hashed + user,)),
            ]

        first = (await self._writing.write_once(once, made, self._shards.of(user), plan)).made
        if first != made:
            await self._find_again(user, hash_for(token, first))
        return first

    async def _find_again(self, user: UserId, token_hash: bytes) -> None:
        """Note once more whose token this is, if it is: the writer may have died between its shards."""
        if len(self._shards.all) > 1 and await self._shards.of(user).call("bearer", user, token_hash):
            row = Operation(self._shards.of(token_hash), "put_token_rows", (token_hash + user,))
            await self._writing.follow_up([row], [])

    async def token_owner(self, token_hash: bytes) -> UserRecord | None:
        if not token_hash:
            return None
        user = await self._shards.of(token_hash).call("token", token_hash)
        row = await self._shards.of(user).call("bearer", user, token_hash) if user else None
        return user_of(user, row) if row else None

    async def revoke_token(self, token_hash: bytes) -> None:
        user = await self._shards.of(token_hash).call("token", token_hash) if token_hash else None
        if user:
            drop = Operation(self._shards.of(token_hash), "drop_token_rows", (token_hash + user,))
            await self._write(Operation(self._shards.of(user), "revoke", (user, token_hash)), drop)

    async def revoke_tokens(self, user: UserId, but: bytes | None = None) -> int:
        many, *tokens = await self._write(Operation(self._shards.of(user), "revoke_all", (user, but or b"")))
        await self._drop_token_rows(user, tokens)
        return int(many)

    async def _drop_token_rows(self, user: UserId, tokens: Iterable[bytes]) -> None:
        """Forget whose tokens these were: they are nobody's now."""
        grouped = self._shards.grouped(tokens).items()
        drops = [Operation(shard, "drop_token_rows", tuple(one + user for one in some)) for shard, some in grouped]
        await self._writing.follow_up(drops, [])

    async def recall(self, once: Once) -> bytes | None:
        row = await self._writing.row_of(once)
        return row[0] if row and row[1] == b"D" else None

    async def note_once(self, once: Once, made: bytes) -> None:
        if await self._writing.row_of(once) is None:
            await self._writing.note(once, made)

    # --- follows -----------------------------------------------------------------------------------------------------

    async def follow(
        self,
        follower: UserId,
        followee: UserId,
        at: int,
        most: int,
        once: Once | None = None,
        *,
        promise: Promise | None = None,
    ) -> bool:
        home, other = self._shards.of(follower), self._shards.of(followee)

        async def plan(_: bytes, is_decided: bool) -> Sequence[Operation]:
            if home is not other and not is_decided:
                await self._require_live(followee)
            return self._promising(
                [
                    Operation(home, "follow", (follower, followee, millis(at), most, other.base)),
                    Operation(other, "other_end", (follower, 1, followee)),
                ],
                promise,
            )

        try:
            outcome = await self._writing.write_once(once, followee, home, plan, tells=Tells.WHETHER_NEW)
        except Conflict as error:
            raise Conflict(error.code, f"A user follows at most {most} others.") from None
        return outcome.told == b"\x01" if outcome.told is not None else outcome.decided[0] == b"1"

    async def add_follows(self, pairs: Sequence[tuple[UserId, UserId]], at: int) -> int:
        await self._require_known({user for pair in pairs for user in pair})
        wanted: defaultdict[UserId, dict[UserId, int]] = defaultdict(dict)
        for follower, followee in pairs:
            wanted[follower][followee] = at
        return await copy_rows.add_follows(self._shards, self._writing, wanted)

    async def unfollow(self, follower: UserId, followee: UserId, at: int, promise: Promise | None = None) -> bool:
        return (await self._unfollow(follower, [followee], millis(at), promise))[0] != b"0"

    async def _unfollow(
        self, follower: UserId, followees: Sequence[UserId], at: bytes, promise: Promise | None = None
    ) -> Sequence[bytes]:
        ends = [
            Operation(shard, "other_end", (follower, 0, *some))
            for shard, some in self._shards.grouped(followees).items()
        ]
        first = Operation(self._shards.of(follower), "unfollow", (follower, at, *followees))
        return await self._write(first, *ends, promise=promise)

    async def followees(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        return await self._follows("following", user, below, limit)

    async def followers(self, user: UserId, below: UserId | None, limit: int) -> Sequence[UserId]:
        return await self._follows("followers", user, below, limit)

    async def _follows(self, which: str, user: UserId, below: UserId | None, limit: int) -> list[UserId]:
        if limit <= 0:
            return []
        found = await self._shards.of(user).call("follows", which, user, below or b"", limit)
        return [UserId(one) for one in found]

    async def has_followers(self, user: UserId, least: int) -> bool:
        return (await self.user_counts(user)).followers >= least

    async def followed_among(self, user: UserId, others: Sequence[UserId]) -> Set[UserId]:
        found: set[UserId] = set()
        for shard, some in batches({self._shards.of(user): others}):
            found.update(UserId(one) for one in await shard.call("followed", user, *some))
        return found

    async def unfollowed_since(self, user: UserId, since: int, limit: int) -> Sequence[UserId] | None:
        found = await self._shards.of(user).call("unfollowed", user, since, limit + 1)
        return None if len(found) > limit else [UserId(one) for one in found]

    # --- tweets ------------------------------------------------------------------------------------------------------

    async def add_tweet(
        self,
        tweet: TweetRecord,
        most_depth: int,
        once: Once | None = None,
        promise: Promise | None = None,
        *,
        single: bool = False,
    ) -> Written:
        async def plan(made: bytes, is_decided: bool) -> Sequence[Operation]:
            nonlocal tweet, promise
            if promise is not None and promise.subject == tweet.id != made:
                promise = replace(promise, subject=made)  # the first attempt's tweet it is
            tweet = msgspec.structs.replace(tweet, id=TweetId(made))
            tweet = await self._in_chain(tweet, None if is_decided else most_depth)
            await self._shards.house([(tweet.id, tweet.author)])
            put = (tweet.id, tweet.author, value_of(tweet), 1, bare_of(tweet), int(single))
            return self._promising([Operation(self._shards.of(tweet.author), "put_tweet", put)], promise)

        home = self._shards.of(tweet.author)
        outcome = await self._writing.write_once(once, tweet.id, home, plan, tells=Tells.HAD)
        had = outcome.decided[1] if outcome.decided and outcome.decided[0] == HAD else outcome.told
        if had is not None:
            first = TweetId(had or outcome.made)
            return Written((await self.tweets([first]))[first], owes_count=True, repeated=True, had=bool(had))
        return Written(tweet, owes_count=True, promise=promise)

    async def _in_chain(self, tweet: TweetRecord, most_depth: int | None) -> TweetRecord:
        """A tweet with its root and depth. Without `most_depth` it may retweet what could be retweeted once."""
        if tweet.retweet is None:
            return msgspec.structs.replace(tweet, root=None, depth=0)
        home = await self._shards.of_tweet(tweet.retweet)
        found = await home.call("parent", tweet.retweet) if home else None
        if found is None:
            raise unknown_tweet()
        parent = tweet_of(tweet.retweet, found[0])
        if most_depth is not None and (parent.deleted or not found[1]):
            raise deleted_tweet()
        return chained(tweet, parent.root, parent.depth, most_depth)

    async def add_tweets(self, tweets: Sequence[TweetRecord]) -> Sequence[Written]:
        await self._require_known({tweet.author for tweet in tweets})
        known = await self._read(await self._shards.of_tweets([tweet.id for tweet in tweets], search=False))
        new, written = new_among(tweets, known)
        await copy_rows.put_tweets(self._shards, self._writing, new)
        return written

    async def tweets(self, ids: Sequence[TweetId]) -> Mapping[TweetId, TweetRecord]:
        return await self._read(await self._shards.of_tweets(ids))

    @staticmethod
    async def _read(tweets: Mapping[Shard, Sequence[TweetId]]) -> dict[TweetId, TweetRecord]:
        found: dict[TweetId, TweetRecord] = {}

        async def read(shard: Shard, some: Sequence[TweetId]) -> None:
            values = zip(some, await shard.call("tweets", *some), strict=True)
            found.update((tweet, tweet_of(tweet, value)) for tweet, value in values if value is not None)

        await all_of(read(*batch) for batch in batches(tweets))
        return found

    async def tails(self, wanted: Sequence[Below], limit: int) -> Sequence[Sequence[bytes]]:
        groups: defaultdict[Shard, list[int]] = defaultdict(list)
        for at, (author, _) in enumerate(wanted):
            groups[self._shards.of(author)].append(at)
        tails: list[list[bytes]] = [[] for _ in wanted]

        async def read(shard: Shard, some: Sequence[int]) -> None:
            asking = [part for at in some for part in (wanted[at][0], wanted[at][1] or b"")]
            for at, found in zip(some, await shard.call("tails", limit, *asking), strict=True):
                tails[at] = [entry(TweetId(tweet), wanted[at][0]) for tweet in found]

        await all_of(
            read(shard, places[start : start + AT_ONCE])
            for shard, places in groups.items()
            for start in range(0, len(places), AT_ONCE)
        )
        return tails

    async def delete_tweet(self, tweet: TweetId, promise: Promise | None = None) -> Written:
        home = await self._shards.of_tweet(tweet)
        if home is None:
            raise unknown_tweet()
        return await self._delete_tweet(home, tweet, promise)

    async def _delete_tweet(self, home: Shard, tweet: TweetId, promise: Promise | None) -> Written:
        changed, value = await self._write(Operation(home, "delete_tweet", (tweet,)), promise=promise)
        return Written(tweet_of(tweet, value), owes_count=True, repeated=changed == b"0")

    async def walk_tweets(self, position: bytes, limit: int) -> tuple[Sequence[TweetRecord], bytes | None]:
        return await copy_rows.walk_tweets(self._shards, position, limit)

    # --- fan-out -----------------------------------------------------------------------------------------------------

    async def set_fanout(self, author: UserId, old: FanoutState, new: FanoutState, at: int) -> bool:
        change = Operation(self._shards.of(author), "set_fanout", (author, int(old), int(new), at))
        return (await self._write(change))[0] == b"1"

    async def fanout_changes(self) -> Sequence[FanoutChange]:
        found = await all_of(shard.call("moving") for shard in self._shards.all)
        return [
            FanoutChange(UserId(rows[at]), FanoutState(int(rows[at + 1])), int(rows[at + 2]))
            for rows in found
            for at in range(0, len(rows), 3)
        ]

    # --- promises ----------------------------------------------------------------------------------------------------

    async def promises(self, before: int, after: bytes, limit: int) -> Sequence[Promise]:
        if not after:
            await self._writing.sweep(before)
        found = await all_of(self._listed("pending", after, b"(" + id_at(before, bytes(10)), limit))
        for shard, members in zip(self._shards.all, found, strict=True):
            for member in members:
                self._remember(member[:ID_BYTES], shard)
        return [promise_of(member) for member in islice(merge(*found), limit)]

    async def fulfil(self, promises: Sequence[bytes]) -> None:
        groups: defaultdict[Shard, list[bytes]] = defaultdict(list)
        for promise in promises:
            known = self._promised.pop(promise, None)
            for shard in (known,) if known else self._shards.all:
                groups[shard].append(promise)
        await all_of(shard.call("fulfil", *some) for shard, some in batches(groups))

    async def note_counted(self, counted: Sequence[Promise]) -> None:
        groups: defaultdict[Shard, list[bytes]] = defaultdict(list)
        for one in counted:
            groups[self._shards.of(one.id)].append(member_of(one))
        await all_of(shard.call_and_copy("note_counted", *some) for shard, some in batches(groups))

    async def counted(self, since: int, after: bytes, limit: int) -> Sequence[Promise]:
        found = await all_of(self._listed("counted", after, b"+", limit, since=millis(since)))
        return [promise_of(member) for member in islice(merge(*found), limit)]

    async def told_run(self) -> ToldRun | None:
        found = await self._shards.first.call("get", "told_run")
        return msgspec.msgpack.decode(found, type=ToldRun) if found else None

    async def note_told_run(self, told: ToldRun) -> None:
        async with self._writing.bounded():
            await self._shards.first.call_and_copy("set", "told_run", msgspec.msgpack.encode(told))

    def _listed(
        self, key: str, after: bytes, to: bytes, limit: int, since: bytes = b""
    ) -> Iterable[Awaitable[list[bytes]]]:
        """Members behind an id and not before a time, up to a bound of ZRANGEBYLEX, of each shard."""
        from_ = max(b"(" + after + b"\xff" if after else b"-", b"[" + since, key=lambda bound: bound[1:])
        return [shard.call("listed", key, from_, to, limit) for shard in self._shards.all]

    def _promising(self, operations: list[Operation], promise: Promise | None) -> list[Operation]:
        """The same with a promise, which is put on the list where the first of them is decided."""
        if promise is None:
            return operations
        self._remember(promise.id, operations[0].shard)
        return [*operations, Operation(operations[0].shard, "promise", (member_of(promise),))]

    def _remember(self, promise: bytes, shard: Shard) -> None:
        if len(self._shards.all) > 1:
            self._promised[promise] = shard
            if len(self._promised) > _MOST_REMEMBERED:
                del self._promised[next(iter(self._promised))]

    async def _write(self, *operations: Operation, promise: Promise | None = None) -> Sequence[bytes]:
        return await self._writing.write(*self._promising(list(operations), promise))

    # --- the epochs of caches ----------------------------------------------------------------------------------------

    async def epochs(self) -> Mapping[str, int]:
        found = await self._shards.first.call("epochs")
        return {found[at].decode(): int(found[at + 1]) for at in range(0, len(found), 2)}

    async def raise_epoch(self, server: str, at: int) -> int:
        async with self._writing.bounded():
            return int(await self._shards.first.call_and_copy("raise_epoch", server, at))

    # --- all of it ---------------------------------------------------------------------------------------------------

    async def dump(self, part: Part, position: bytes, limit: int) -> tuple[Sequence[Copy], bytes | None]:
        return await copy_rows.dump(self._shards, part, position, limit)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Shown]:
        yield Shown(self.dump, is_moment=False)

    async def restore(self, copies: Sequence[Copy]) -> None:
        await copy_rows.restore(self._shards, self._writing, copies)

    async def adopt_secret(self, secret: bytes) -> None:
        if await self.secret() == secret:
            return
        if any(await all_of(shard.call("names", "", 1) for shard in self._shards.all)):
            raise not_the_same()
        async with self._writing.bounded():
            await self._shards.first.call_and_copy("set", "secret", secret)

    async def latest(self) -> int:
        return int(await self._shards.first.call("get", "latest") or 0)

    async def note_latest(self, at: int) -> None:
        async with self._writing.bounded():
            await self._shards.first.call_and_copy("set_greater", "latest", at)

    async def unfinished(self) -> Unfinished | None:
        found = await self._shards.first.call("get", "unfinished")
        return msgspec.msgpack.decode(found, type=Unfinished) if found else None

    async def note_unfinished(self, unfinished: Unfinished | None) -> None:
        async with self._writing.bounded():
            noted = msgspec.msgpack.encode(unfinished) if unfinished else b""
            await self._shards.first.call_and_copy("set", "unfinished", noted)

    # --- the store itself --------------------------------------------------------------------------------------------

    async def secret(self) -> bytes:
        secret: bytes = await self._shards.first.call_and_copy("set_first", "secret", self._clock.random(32))
        return secret

    async def check(self) -> None:
        async with self._writing.bounded():
            probes = [shard.call("probe", self._clock.random(8)) for shard in self._shards.all]
            answers = await asyncio.gather(*probes, return_exceptions=True)
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            if 2 * len(failures) >= len(answers):  # one that moves or fails over keeps nobody from the others
                raise failures[0]

    async def tidy(self, now: int) -> None:
        kept = (KEPT_MILLIS - 1, UNFOLLOWS_KEPT_MILLIS, COUNTED_KEPT_MILLIS)
        before = [millis(now - many) for many in kept]

        async def tidy(shard: Shard) -> None:
            while int(await shard.call("tidy", *before, _TIDIED_AT_ONCE)) >= _TIDIED_AT_ONCE:
                pass  # in short steps: what people write goes between them

        await all_of(tidy(shard) for shard in self._shards.all)

    async def close(self) -> None:
        await self._writing.close()
        for shard in self._shards.all:
            shard.close()
        await self._client.close()

    async def _require_live(self, user: UserId) -> None:
        known = (await self.users([user])).get(user)
        if known is None or known.deleted:
            raise unknown_user()

    async def _require_known(self, users: Collection[UserId]) -> None:
        if len(await self.users(list(users))) < len(users):
            raise Conflict("inconsistent", "What is to be written speaks of users who never were.")
