"""The counts along chains, in SQL. Store and ranking share it: on one file a tweet and its count are one write."""

import sqlite3
from collections.abc import Sequence

from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.ranking import Ranked

_ABOVE_ALL = b"\xff" * 17

# Every tweet above the one given, by walking up the parents: one statement, however long the chain.
_CHANGE_ABOVE = """
UPDATE ranking SET count = count + ?2 WHERE tweet IN (
    WITH RECURSIVE above (tweet) AS (
        SELECT ?1
        UNION ALL
        SELECT ranking.parent FROM above JOIN ranking ON ranking.tweet = above.tweet WHERE ranking.parent IS NOT NULL
    )
    SELECT tweet FROM above
)
"""


def add(sql: sqlite3.Connection, link: Link) -> bool:
    """See `Ranking.add`."""
    if _is_orphan(sql, link):
        return False
    inserted = _insert(sql, link, live=link.live)
    if inserted and link.live and link.parent:
        sql.execute(_CHANGE_ABOVE, (link.parent, 1))
    return True


def remove(sql: sqlite3.Connection, link: Link) -> bool:
    """See `Ranking.remove`."""
    if _is_orphan(sql, link):
        return False
    if _insert(sql, link, live=False):
        return True
    ended = sql.execute("UPDATE ranking SET live = 0 WHERE tweet = ? AND live", (link.id,)).rowcount
    if ended and link.parent:
        sql.execute(_CHANGE_ABOVE, (link.parent, -1))
    return True


def _is_orphan(sql: sqlite3.Connection, link: Link) -> bool:
    return bool(link.parent) and not sql.execute("SELECT 1 FROM ranking WHERE tweet = ?", (link.parent,)).fetchone()


def _insert(sql: sqlite3.Connection, link: Link, *, live: bool) -> bool:
    inserted = sql.execute(
        "INSERT OR IGNORE INTO ranking (tweet, parent, initial, count, live) VALUES (?,?,?,?,?)",
        (link.id, link.parent, link.initial, link.initial, live),
    )
    return bool(inserted.rowcount)


def top(sql: sqlite3.Connection, limit: int, after: Ranked | None) -> list[Ranked]:
    """See `Ranking.top`. Counted tweets by one index; then those with none, which are most, by another."""
    found: list[Ranked] = []
    if after is None or after.count > 0:
        bound = (after.count, after.tweet) if after else (1 << 62, _ABOVE_ALL)
        rows = sql.execute(
            "SELECT tweet, count FROM ranking WHERE live AND NOT hidden AND count > 0 AND (count, tweet) < (?, ?)"
            " ORDER BY count DESC, tweet DESC LIMIT ?",
            (*bound, limit),
        )
        found = [Ranked(TweetId(tweet), count) for tweet, count in rows]
    if len(found) < limit:
        below = after.tweet if after and after.count == 0 else _ABOVE_ALL
        rows = sql.execute(
            "SELECT tweet FROM ranking WHERE live AND NOT hidden AND count = 0 AND tweet < ?"
            " ORDER BY tweet DESC LIMIT ?",
            (below, limit - len(found)),
        )
        found += [Ranked(TweetId(row[0]), 0) for row in rows]
    return found


def hide(sql: sqlite3.Connection, tweets: Sequence[TweetId]) -> None:
    """See `Ranking.hide`."""
    sql.executemany("UPDATE ranking SET hidden = 1 WHERE tweet = ?", [(tweet,) for tweet in tweets])


def reconcile(sql: sqlite3.Connection, links: Sequence[Link]) -> set[TweetId]:
    """Make rows agree with the store's links, all but the counts that hang on other tweets; the ids that did not."""
    wrong = set()
    for link in links:
        row = sql.execute("SELECT parent, initial, live FROM ranking WHERE tweet = ?", (link.id,)).fetchone()
        if row is None:
            _insert(sql, link, live=link.live)
        else:
            # Gone is for ever: a link read as live may have been deleted since.
            live = bool(row[2]) and link.live
            if row == (link.parent, link.initial, int(live)):
                continue
            sql.execute(
                "UPDATE ranking SET parent = ?1, initial = ?2, count = count + ?2 - initial, live = ?3"
                " WHERE tweet = ?4",
                (link.parent, link.initial, live, link.id),
            )
        wrong.add(link.id)
    return wrong


def missing_parents(sql: sqlite3.Connection) -> list[TweetId]:
    """Tweets that ranked ones retweet and that are not ranked themselves."""
    rows = sql.execute(
        "SELECT DISTINCT parent FROM ranking AS r WHERE parent IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM ranking WHERE tweet = r.parent)"
    )
    return [TweetId(parent) for (parent,) in rows]


def rows_behind(sql: sqlite3.Connection, last: TweetId, limit: int) -> list[tuple[TweetId, bool]]:
    """Ranked tweets in ascending order of id, and whether each is live."""
    rows = sql.execute("SELECT tweet, live FROM ranking WHERE tweet > ? ORDER BY tweet LIMIT ?", (last, limit))
    return [(TweetId(tweet), bool(live)) for tweet, live in rows]


def put_right(sql: sqlite3.Connection, strays: Sequence[TweetId], raised: Sequence[TweetId]) -> None:
    """Forget some tweets and make others live; `drift` then sees to the counts."""
    sql.executemany("DELETE FROM ranking WHERE tweet = ?", [(tweet,) for tweet in strays])
    sql.executemany("UPDATE ranking SET live = 1 WHERE tweet = ?", [(tweet,) for tweet in raised])


def bury(sql: sqlite3.Connection, tweets: Sequence[TweetId]) -> None:
    """Mark tweets gone; `drift` then sees to the counts."""
    sql.executemany("UPDATE ranking SET live = 0 WHERE tweet = ?", [(tweet,) for tweet in tweets])


def drift(sql: sqlite3.Connection) -> tuple[bytes, list[tuple[int, TweetId]]]:
    """By how much each wrong count has to change, counted on one snapshot of the links, and whose turn it is to do so.

    Changes, not counts: others go on adding meanwhile, and sums commute.
    """
    parents: dict[bytes, bytes] = {}
    waiting: dict[bytes, int] = {}
    own: dict[bytes, int] = {}
    for tweet, parent, live in sql.execute("SELECT tweet, parent, live FROM ranking WHERE parent IS NOT NULL"):
        parents[tweet] = parent
        waiting[parent] = waiting.get(parent, 0) + 1
        own[tweet] = live
    sums: dict[bytes, int] = {}
    leaves = [tweet for tweet in parents if tweet not in waiting]
    while leaves:  # from the ends of the chains upwards, each tweet when all below it are summed (Kahn)
        tweet = leaves.pop()
        parent = parents[tweet]
        sums[parent] = sums.get(parent, 0) + sums.get(tweet, 0) + own[tweet]
        waiting[parent] -= 1
        if not waiting[parent] and parent in parents:
            leaves.append(parent)
    changes = []
    for tweet, initial, count in sql.execute("SELECT tweet, initial, count FROM ranking"):
        change = initial + sums.get(tweet, 0) - count
        if change:
            changes.append((change, TweetId(tweet)))
    return _turn(sql), changes


def change(sql: sqlite3.Connection, changes: Sequence[tuple[int, TweetId]], turn: bytes) -> bytes | None:
    """Apply some of what `drift` found; the next turn. None, and nothing changed, if another recount took this one."""
    if _turn(sql) != turn:
        return None
    sql.executemany("UPDATE ranking SET count = count + ? WHERE tweet = ?", changes)
    sql.execute("INSERT OR REPLACE INTO meta VALUES ('recount', randomblob(8))")
    return _turn(sql)


def _turn(sql: sqlite3.Connection) -> bytes:
    row = sql.execute("SELECT value FROM meta WHERE name = 'recount'").fetchone()
    return bytes(row[0]) if row else b""
