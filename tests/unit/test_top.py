"""The top list is of one moment, whatever is counted while it is made."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.memory import MemoryCache
from rookery.adapters.sqlite import Database, SqliteRanking, SqliteStore
from rookery.config import Settings
from rookery.domain.ids import TweetId
from rookery.domain.tweets import Tweet
from rookery.ports.ranking import Ranked
from rookery.services.callers import ANYONE
from rookery.services.tweets import Draft
from rookery.wiring import Backends, join
from tests.clocks import HandClock
from tests.contract.chains import Chains
from tests.model import id_of


class Overtaken(SqliteRanking):
    """A ranking in which something happens between a reading of the list and all that is done with it."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def top(self, limit: int, after: Ranked | None = None) -> list[Ranked]:
        found = await super().top(limit, after)
        if self.meanwhile is not None:
            await self.meanwhile()
        return found


async def test_the_list_shows_the_counts_by_which_it_is_in_order(tmp_path: Path) -> None:
    clock, hasher = HandClock(), Argon2Hasher()
    database = Database(tmp_path / "rookery.db")
    store, ranking = SqliteStore(database, counts=True), Overtaken(database)
    try:
        cache = MemoryCache(1 << 20, clock.monotonic)
        services = join(Settings(data=tmp_path, auth="open"), Backends(store, cache, ranking, clock), hasher).services
        ada = await services.accounts.find_or_make(ANYONE, "ada")
        roots: list[TweetId] = []
        for body, initial in (("last", 0), ("middle", 2), ("first", 4)):
            roots.append(id_of(await services.tweets.post(ANYONE, ada, Draft("", body, initial=initial))))

        async def raise_the_last() -> None:
            for _ in range(5):
                await services.tweets.post(ANYONE, ada, Draft("", "again", roots[0]))

        ranking.meanwhile = raise_the_last
        shown = [msgspec.json.decode(item, type=Tweet) for item in await services.top.list(10)]
        assert [(tweet.body, tweet.count_retweet) for tweet in shown] == [("first", 4), ("middle", 2), ("last", 0)]
    finally:
        hasher.close()
        await database.close()


async def test_a_tweet_that_is_counted_first_while_the_list_is_read_is_in_it(tmp_path: Path) -> None:
    database, other = Database(tmp_path / "rookery.db"), Database(tmp_path / "rookery.db")
    try:
        ranking = SqliteRanking(database)
        chains = Chains()
        counted = chains.add(initial=1)
        root = chains.add()
        await chains.tell_all(ranking)
        statements: list[str] = []

        def count_it_first(statement: str) -> None:
            statements.append(statement)
            if "count = 0" in statement:  # the counted ones were read by now
                with other.reading() as sql:
                    sql.execute("PRAGMA query_only = OFF")
                    sql.execute("UPDATE ranking SET count = 1 WHERE tweet = ?", (root.id,))

        database.reader.set_trace_callback(count_it_first)
        found = await ranking.top(10)
        database.reader.set_trace_callback(None)
        assert any("count = 0" in statement for statement in statements)
        assert {item.tweet for item in found} == {counted.id, root.id}
    finally:
        await database.close()
        await other.close()
