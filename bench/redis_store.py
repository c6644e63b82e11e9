"""The store in Redis: client CPU of an operation, 64 in flight, and the memory of users, follows and tweets.

Memory is Redis's own used_memory, before and after; texts are random letters of the length told.
"""

import asyncio
import random
import string
from itertools import cycle

import redis
import uvloop

from bench.measuring import Operation, Plan, Table, many, of_operations
from rookery.adapters.redis import Access, RedisStore
from rookery.adapters.system import SystemClock
from rookery.domain.ids import UserId
from rookery.domain.tweets import TweetRecord
from rookery.domain.users import UserRecord
from rookery.ports.store import Credentials
from tools.servers import Redis, RedisCluster

LETTERS = 140
MOST = 1_000
FOLLOWEES = 20
FEW = 50


def run(plan: Plan) -> list[Table]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        with Redis(plan.scratch / "one", fsync="always") as server:
            tables = [_memory(plan, runner, server), _operations(plan, runner, server.address, "One Redis")]
        with RedisCluster(plan.scratch / "cluster", fsync="always") as cluster:
            return [*tables, _operations(plan, runner, cluster.address, "A Redis Cluster of three masters")]


def _store(runner: asyncio.Runner, address: str) -> RedisStore:
    store = RedisStore(Access(address.split(",")), SystemClock(), seconds=30)
    runner.run(store.open())
    return store


def _person(clock: SystemClock) -> UserRecord:
    user = clock.new_user_id()
    return UserRecord(user, f"u{user.hex()[8:]}", "Some One")


def _tweet(clock: SystemClock, author: UserId, chance: random.Random) -> TweetRecord:
    text = "".join(chance.choices(string.ascii_letters + " ", k=LETTERS))
    return TweetRecord(clock.new_tweet_id(), author, "", text)


def _memory(plan: Plan, runner: asyncio.Runner, server: Redis) -> Table:
    clock, chance = SystemClock(), random.Random(1)
    users, tweets = plan.pick(5_000, 500), plan.pick(100_000, 5_000)
    store = _store(runner, server.address)
    people = [_person(clock) for _ in range(users)]
    turn = cycle(people)
    pairs = [(one.id, other.id) for one in people for other in chance.sample(people, FOLLOWEES) if other is not one]

    async def register() -> None:
        left = iter(people)
        await many(lambda: store.add_user(next(left), Credentials("h" * 97, clock.random(32))), users)

    async def follow() -> None:
        for start in range(0, len(pairs), 10_000):
            await store.add_follows(pairs[start : start + 10_000], clock.now())

    async def post() -> None:
        await many(lambda: store.add_tweet(_tweet(clock, next(turn).id, chance), MOST), tweets)

    async def post_of_few() -> None:
        few = cycle(people[:FEW])
        await many(lambda: store.add_tweet(_tweet(clock, next(few).id, chance), MOST), tweets)

    rows = []
    with redis.Redis(port=server.port) as by_hand:
        for name, step, count in (
            ("user with password and token", register, users),
            (f"follow ({FOLLOWEES} of each)", follow, len(pairs)),
            (f"tweet of {LETTERS} letters ({tweets // users} of each)", post, tweets),
            (f"tweet of {LETTERS} letters ({tweets // FEW:,} of each)", post_of_few, tweets),
        ):
            before = by_hand.info("memory")["used_memory"]
            runner.run(step())
            each = (by_hand.info("memory")["used_memory"] - before) / count
            rows.append([name, f"{count:,}", f"{each:,.0f} bytes"])
    runner.run(store.close())
    return Table("Memory", ["what", "how many", "each"], rows)


def _operations(plan: Plan, runner: asyncio.Runner, address: str, title: str) -> Table:
    clock, chance, count = SystemClock(), random.Random(2), plan.pick(2_000, 400)
    store = _store(runner, address)
    people = [_person(clock) for _ in range(50)]
    posted = [_tweet(clock, one.id, chance) for one in people]

    async def set_up() -> None:
        for one, tweet in zip(people, posted, strict=True):
            await store.add_user(one, Credentials())
            await store.add_tweet(tweet, MOST)

    runner.run(set_up())
    turn, ten = cycle(people), [tweet.id for tweet in posted[:10]]
    wanted = [(one.id, None) for one in people]
    operations: dict[str, Operation] = {
        "post": lambda: store.add_tweet(_tweet(clock, next(turn).id, chance), MOST),
        "ten tweets by their ids": lambda: store.tweets(ten),
        "the newest ten of 50 authors": lambda: store.tails(wanted, 10),
        "follow": lambda: store.follow(next(turn).id, next(turn).id, clock.now(), MOST),
    }

    table = of_operations(title, runner, operations, count, plan.pick(7, 2))
    runner.run(store.close())
    return table
