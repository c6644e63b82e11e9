"""The ranking in a SQLite file, beside the store or alone."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rookery.adapters.sqlite import count_rows
from rookery.adapters.sqlite.database import Database
from rookery.adapters.sqlite.user_rows import chunks, marks
from rookery.domain.errors import Unavailable
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Link
from rookery.ports.ranking import Links, Place, Progress, Ranked, Recount

T = TypeVar("T")

_PAGE = 1_000


class SqliteRanking:
    """Implements `ports.ranking.Ranking`. The `Database` belongs to whoever opened it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, link: Link) -> bool:
        return await self._write(lambda sql: count_rows.add(sql, link))

    async def remove(self, link: Link) -> bool:
        return await self._write(lambda sql: count_rows.remove(sql, link))

    async def counts(self, tweets: Sequence[Place]) -> list[int]:
        found: dict[bytes, int] = {}
        with _as_ranking(), self._database.reading() as sql:
            for some in chunks([tweet for tweet, _ in tweets]):
                query = f"SELECT tweet, count FROM ranking WHERE tweet IN ({marks(some)})"  # noqa: S608 - only marks
                found.update(sql.execute(query, some).fetchall())
        return [found.get(tweet, 0) for tweet, _ in tweets]

    async def top(self, limit: int, after: Ranked | None = None) -> list[Ranked]:
        with _as_ranking(), self._database.reading_at_once() as sql:
            return count_rows.top(sql, limit, after)

    async def hide(self, tweets: Sequence[Place]) -> None:
        await self._write(lambda sql: count_rows.hide(sql, [tweet for tweet, _ in tweets]))

    async def recount(self, links: Links, progress: Progress) -> Recount:
        tweets, wrong = 0, set[TweetId]()
        async for some in links.walk():
            wrong |= await self._reconcile(some)
            tweets += len(some)
            progress(len(some))
        wrong |= await self._ask_for_parents(links)
        wrong |= await self._compare_rows(links)
        while (mended := await self._mend()) is None:
            pass  # another recount mended in between, so that what was found is no longer what is wrong
        return Recount(tweets, len(wrong | mended))

    async def run(self) -> bytes:
        return b""

    @property
    def failures(self) -> int:
        return 0

    @property
    def is_vouched(self) -> bool:
        return True

    def vouch(self, run: bytes, failures: int) -> None:
        """Nothing that it was told is ever forgotten."""

    async def check(self) -> None:
        with _as_ranking(), self._database.reading() as sql:
            sql.execute("SELECT 1 FROM ranking LIMIT 1").fetchone()

    async def close(self) -> None:
        """Nothing of its own to let go."""

    async def _reconcile(self, links: Sequence[Link]) -> set[TweetId]:
        return await self._write(lambda sql: count_rows.reconcile(sql, links))

    async def _ask_for_parents(self, links: Links) -> set[TweetId]:
        """Add tweets that the walk passed by, as they were put where it had been already."""
        wrong, asked = set[TweetId](), set[TweetId]()
        while True:
            with _as_ranking():
                missing = set(await self._database.read_long(count_rows.missing_parents)) - asked
            if not missing:
                return wrong
            asked |= missing
            for some in chunks(list(missing)):
                wrong |= await self._reconcile(await links.of(some))

    async def _compare_rows(self, links: Links) -> set[TweetId]:
        """Ask the store for every row: those it does not know go, and those it has live are not gone."""
        wrong = set[TweetId]()
        last = TweetId(b"")
        while rows := self._rows_behind(last):
            last = rows[-1][0]
            known = {link.id: link for link in await links.of([tweet for tweet, _ in rows])}
            strays = [tweet for tweet, _ in rows if tweet not in known]
            raised = [tweet for tweet, live in rows if not live and tweet in known and known[tweet].live]
            if strays or raised:
                await self._write(partial(count_rows.put_right, strays=strays, raised=raised))
                # Whoever deleted one in between found it gone here already. Later deletes find it live.
                gone = [link.id for link in await links.of(raised) if not link.live]
                await self._write(partial(count_rows.bury, tweets=gone))
                wrong.update(strays, set(raised) - set(gone))
            await asyncio.sleep(0)
        return wrong

    def _rows_behind(self, last: TweetId) -> list[tuple[TweetId, bool]]:
        with _as_ranking(), self._database.reading() as sql:
            return count_rows.rows_behind(sql, last, _PAGE)

    async def _mend(self) -> set[TweetId] | None:
        """Find the wrong counts on a snapshot and change them in short steps; None if another recount came between."""
        with _as_ranking():
            turn, changes = await self._database.read_long(count_rows.drift)
        for part in chunks(changes):
            following = await self._change(part, turn)
            if following is None:
                return None
            turn = following
        return {tweet for _, tweet in changes}

    async def _change(self, changes: Sequence[tuple[int, TweetId]], turn: bytes) -> bytes | None:
        return await self._write(lambda sql: count_rows.change(sql, changes, turn))

    async def _write(self, run: Callable[[sqlite3.Connection], T]) -> T:
        with _as_ranking():
            return await self._database.write(run)


@contextmanager
def _as_ranking() -> Iterator[None]:
    """What fails here is the ranking, not the store."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable("ranking_unavailable", "The ranking can't be read or written now.") from error
