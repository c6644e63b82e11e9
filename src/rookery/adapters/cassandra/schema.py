"""The tables, one for each question that is asked, and how a keyspace is brought up to them.

Ids are blobs, which sort as their bytes do, whatever their UUID version. No counters, secondary indexes, views.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
from acsylla.errors import CassErrorServerInvalidQuery

from rookery.adapters.cassandra.journal import COUNTED_KEPT_SECONDS
from rookery.adapters.cassandra.session import Access, Session, connect
from rookery.domain.copies import Unfinished
from rookery.domain.errors import Conflict
from rookery.ports.clock import Clock
from rookery.ports.store import not_the_same

_SECONDS = 30.0
_ALONE_SECONDS = 900
_DAY = 24 * 60 * 60
# A replica that is slow or dead is read around by its coordinator too, not only by us.
_READ_AROUND = "speculative_retry = 'MIN(99PERCENTILE,50ms)'"
# What is taken off these lists and comes back, as a node missed it, is done once more, which changes nothing: so their
# tombstones need not be kept for as long as a node may be away.
_SHORT_GRACE = f"gc_grace_seconds = {4 * 60 * 60}"

_FIRST: Sequence[str] = (
    f"""CREATE TABLE IF NOT EXISTS meta (name text PRIMARY KEY, value blob) WITH {_READ_AROUND}""",
    # deleted, fanout and fanout_since are written by lightweight transactions only, the rest never by one.
    f"""CREATE TABLE IF NOT EXISTS user_by_id (
        id blob PRIMARY KEY, name text, display_name text, password_hash text, is_admin boolean,
        deleted boolean, fanout tinyint, fanout_since bigint
    ) WITH {_READ_AROUND}""",
    # Written by lightweight transactions only, and never removed: a name is given once.
    f"""CREATE TABLE IF NOT EXISTS user_by_name (name_key text PRIMARY KEY, id blob) WITH {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS user_by_letter (
        letter text, name_key text, id blob, PRIMARY KEY ((letter), name_key)
    ) WITH {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS user_to_purge (
        list tinyint, id blob, stamp bigint, tweets_below blob, followees_below blob, followers_below blob,
        PRIMARY KEY ((list), id)
    ) WITH {_SHORT_GRACE} AND {_READ_AROUND}""",
    # Who was ever on his way between push and pull; whether he is, his own row says.
    f"""CREATE TABLE IF NOT EXISTS user_by_fanout (
        list tinyint, id blob, PRIMARY KEY ((list), id)
    ) WITH {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS token_by_hash (hash blob PRIMARY KEY, user blob) WITH {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS token_by_user (
        user blob, hash blob, PRIMARY KEY ((user), hash)
    ) WITH {_READ_AROUND}""",
    # The truth of who follows whom, changed by lightweight transactions on a partition's version only. State 0 is for
    # those followed, 1 for those unfollowed lately; -1 is one row with the version, its writer and the number followed,
    # before all others, so that reading it never reads over what was taken away.
    f"""CREATE TABLE IF NOT EXISTS following (
        follower blob, state tinyint, followee blob, version bigint, many int, at bigint, writer blob,
        PRIMARY KEY ((follower), state, followee)
    ) WITH CLUSTERING ORDER BY (state ASC, followee DESC) AND {_READ_AROUND}""",
    # The same from the other end, written with the version of the truth as its timestamp.
    f"""CREATE TABLE IF NOT EXISTS follower (
        followee blob, shard tinyint, follower blob, PRIMARY KEY ((followee, shard), follower)
    ) WITH CLUSTERING ORDER BY (follower DESC) AND {_READ_AROUND}""",
    # deleted is written by lightweight transactions only, the rest never by one.
    f"""CREATE TABLE IF NOT EXISTS tweet_by_id (
        id blob PRIMARY KEY, author blob, title text, body text, retweet blob, root blob, depth int, initial bigint,
        deleted boolean
    ) WITH {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS tweet_by_author (
        author blob, id blob, depth int, PRIMARY KEY ((author), id)
    ) WITH CLUSTERING ORDER BY (id DESC) AND {_READ_AROUND}""",
    # The bare retweet that an author made of a tweet last, and the timestamp of its rows. It may be deleted by now, or
    # not be written yet. Written by lightweight transactions only, but for what is restored.
    f"""CREATE TABLE IF NOT EXISTS bare_retweet (
        author blob, retweet blob, id blob, stamp bigint, PRIMARY KEY ((author, retweet))
    ) WITH {_READ_AROUND}""",
    # done alone is not written by lightweight transactions: when all of a write is written it holds its stamp, and what
    # the write told.
    f"""CREATE TABLE IF NOT EXISTS idempotency (
        key blob PRIMARY KEY, digest blob, made blob, at bigint, stamp bigint, done blob
    ) WITH default_time_to_live = {_DAY + 2 * 60 * 60} AND {_READ_AROUND}""",
    # Promises by ten seconds of wall time. list_of says which buckets there may be: (-1) has days, a day has buckets.
    f"""CREATE TABLE IF NOT EXISTS pending (
        bucket bigint, shard tinyint, id blob, work tinyint, subject blob, rows blob, stamp bigint,
        PRIMARY KEY ((bucket, shard), id)
    ) WITH {_SHORT_GRACE} AND {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS pending_bucket (
        list_of bigint, number bigint, PRIMARY KEY ((list_of), number)
    ) WITH {_SHORT_GRACE} AND {_READ_AROUND}""",
    # What a ranking was told lately, by the minute. It ends by itself.
    f"""CREATE TABLE IF NOT EXISTS counted (
        bucket bigint, shard tinyint, id blob, work tinyint, subject blob, PRIMARY KEY ((bucket, shard), id)
    ) WITH default_time_to_live = {COUNTED_KEPT_SECONDS} AND {_SHORT_GRACE} AND {_READ_AROUND}""",
    f"""CREATE TABLE IF NOT EXISTS epoch (
        list tinyint, server text, number bigint, PRIMARY KEY ((list), server)
    ) WITH {_READ_AROUND}""",
)
MIGRATIONS: Sequence[Sequence[str]] = (_FIRST,)
VERSION = len(MIGRATIONS)

TABLES = tuple(statement.split()[5] for statement in _FIRST)

_META = "SELECT value FROM meta WHERE name = ?"


async def apply(access: Access, clock: Clock, keyspace: str, replication: str) -> tuple[int, int]:
    """Make a keyspace, or bring an older one up to this program's schema; its version before, 0 for none, and now.

    Doing it twice changes nothing. Each statement waits until all nodes agree.

    Raises:
        Conflict: `schema_too_new`, for one of a later Rookery; `too_few_nodes`, for more copies than there are nodes.
        Unavailable: `store_unavailable`.
    """
    outside = await connect(access, clock, keyspace=None, seconds=_SECONDS)
    try:
        await _require_nodes(outside, replication)
        await outside.change(f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {_strategy(replication)}")
    finally:
        await outside.close()
    session = await connect(access, clock, keyspace=keyspace, seconds=_SECONDS)
    try:
        await session.change(MIGRATIONS[0][0])  # the table of versions
        async with _alone(session, clock.random(16)):
            before = await _version(session)
            for migration in MIGRATIONS[before:]:
                for statement in migration:
                    await session.change(statement)
            await _settle(session, "secret", clock.random(32))
            if before < VERSION:
                await session.write(
                    "INSERT INTO meta (name, value) VALUES ('version', ?)", bytes([VERSION]), stamp=session.stamp()
                )
    finally:
        await session.close()
    return before, VERSION


async def found(access: Access, clock: Clock, keyspace: str) -> tuple[int, int]:
    """The schema of a keyspace, 0 where there is none, and the one that this program needs.

    Raises:
        Conflict: `schema_too_new`.
        Unavailable: `store_unavailable`.
    """
    session = await connect(access, clock, keyspace=None, seconds=_SECONDS)
    try:
        if not await session.read("SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", keyspace):
            return 0, VERSION
        return await _version(session, f"{keyspace}."), VERSION
    finally:
        await session.close()


async def check(session: Session) -> None:
    """Refuse a keyspace of another schema than ours.

    Raises:
        Conflict: `schema_missing`, `schema_too_old`, `schema_too_new`.
    """
    version = await _version(session)
    if not version:
        raise Conflict("schema_missing", "The keyspace has no tables of Rookery: make them with rookery schema apply.")
    if version < VERSION:
        raise Conflict(
            "schema_too_old",
            f"The keyspace has schema {version}, this Rookery needs {VERSION}: bring it up with rookery schema apply.",
        )


async def secret(session: Session) -> bytes:
    """See `Store.secret`."""
    found: bytes = (await session.read(_META, "secret"))[0][0]
    return found


async def adopt_secret(session: Session, value: bytes) -> None:
    """See `Store.adopt_secret`."""
    mine = await secret(session)
    if mine == value:
        return
    if await session.read("SELECT id FROM user_by_id LIMIT 1"):
        raise not_the_same()
    while not await session.decide(("UPDATE meta SET value = ? WHERE name = 'secret' IF value = ?", (value, mine))):
        found = (await session.read(_META, "secret", serial=True))[0][0]
        if found == value:
            return
        if found != mine:  # another copy was faster
            raise not_the_same()


async def latest(session: Session) -> int:
    """See `Store.latest`."""
    rows = await session.read(_META, "latest")
    return int.from_bytes(rows[0][0], "big") if rows else 0


async def note_latest(session: Session, at: int) -> None:
    """See `Store.note_latest`. The time is the write's timestamp too, so the latest stays, whatever clocks show."""
    value = at.to_bytes(8, "big")
    await session.write("INSERT INTO meta (name, value) VALUES ('latest', ?)", value, stamp=at * 1_000)


async def unfinished(session: Session) -> Unfinished | None:
    """See `Store.unfinished`."""
    rows = await session.read(_META, "unfinished")
    return msgspec.msgpack.decode(rows[0][0], type=Unfinished) if rows and rows[0][0] else None


async def note_unfinished(session: Session, noted: Unfinished | None) -> None:
    """See `Store.note_unfinished`."""
    value = msgspec.msgpack.encode(noted) if noted else b""
    rows = await session.read("SELECT writetime(value) FROM meta WHERE name = 'unfinished'")
    stamp = session.stamp(rows[0][0] if rows else None)  # another machine's clock may have been ahead of this one's
    await session.write("INSERT INTO meta (name, value) VALUES ('unfinished', ?)", value, stamp=stamp)


@asynccontextmanager
async def _alone(session: Session, who: bytes) -> AsyncIterator[None]:
    """Change tables while nobody else does: two who make the same table at once may make two of one name.

    Raises:
        Conflict: `schema_in_work`.
    """
    take = "INSERT INTO meta (name, value) VALUES ('in work', ?) IF NOT EXISTS USING TTL ?"
    while not await session.decide((take, (who, _ALONE_SECONDS))):
        found = await session.read(_META, "in work", serial=True)
        if found == [(who,)]:
            break
        if found:
            raise Conflict("schema_in_work", "Another rookery schema apply is at work: try again when it has ended.")
    try:
        yield
    finally:
        await session.decide(("DELETE FROM meta WHERE name = 'in work' IF value = ?", (who,)))


async def _settle(session: Session, name: str, value: bytes) -> None:
    """Write a value that only the first writes, for ever."""
    while not await session.read(_META, name, serial=True):
        await session.decide(("INSERT INTO meta (name, value) VALUES (?, ?) IF NOT EXISTS", (name, value)))


async def _version(session: Session, keyspace: str = "") -> int:
    try:
        rows = await session.read(_META.replace("meta", f"{keyspace}meta"), "version")
    except CassErrorServerInvalidQuery:  # there is no such table
        return 0
    version = int(rows[0][0][0]) if rows else 0
    if version > VERSION:
        raise Conflict(
            "schema_too_new",
            f"The keyspace has schema {version}, this Rookery knows up to {VERSION}: use a newer Rookery.",
        )
    return version


async def _require_nodes(session: Session, replication: str) -> None:
    """Refuse what could never be written, as a majority of the copies must answer."""
    if not replication.isdecimal():
        return  # datacenters may be yet to come
    nodes = 1 + len(await session.read("SELECT peer FROM system.peers_v2"))
    if int(replication) > nodes:
        raise Conflict(
            "too_few_nodes",
            f"The ring has {nodes} nodes, and store.replication wants {replication} copies: start more or want fewer.",
        )


def _strategy(replication: str) -> str:
    """The replication of a keyspace: a number of copies for each datacenter, or `name:number` for some of them."""
    if replication.isdecimal():
        return f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {int(replication)}}}"
    pairs = (part.strip().rsplit(":", 1) for part in replication.split(","))
    return (
        "{'class': 'NetworkTopologyStrategy', " + ", ".join(f"'{name}': {int(number)}" for name, number in pairs) + "}"
    )
