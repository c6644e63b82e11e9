"""A retweet at the end of a chain of 1,000 is counted along all of it by one statement, in some milliseconds.

One chain of 1,000 tweets on SQLite; its first, 10th, 100th and 1,000th are retweeted in turns, one at a time, each
durable before its answer. Beside it a plain post.
"""

from collections.abc import Callable

import msgspec

from bench.inside import Inside, Person, texts
from bench.measuring import Cost, Plan, Table, cpu_median, in_turns, micros, millis, spread, wall_median
from rookery.domain.ids import TweetId, parse_id

LENGTHS = (1, 10, 100, 1_000)


class _Posted(msgspec.Struct):
    id: str
    count_retweet: int | None


def run(plan: Plan) -> list[Table]:
    each = plan.pick(50, 10)
    rounds = plan.pick(9, 3)
    with Inside(plan.scratch) as inside:
        author = inside.people("author", 1)[0]
        chain: list[TweetId] = []
        for text in texts(LENGTHS[-1]):
            chain.append(_id_of(inside.run(inside.post(author, text, chain[-1] if chain else None))))
        ends = {"0 (a post)": None} | {f"{length:,}": chain[length - 1] for length in LENGTHS}
        found = in_turns(rounds, {name: _retweeting(inside, author, end, each) for name, end in ends.items()})
        first = msgspec.json.decode(inside.run(inside.rookery.services.tweets.get(chain[0])), type=_Posted)
        assert first.count_retweet == LENGTHS[-1] - 1 + (rounds + 1) * each * len(LENGTHS)
    rows = [
        [
            name,
            millis(wall_median(costs) / each),
            micros(cpu_median(costs) / each),
            spread([cost.cpu for cost in costs]),
        ]
        for name, costs in found.items()
    ]
    return [Table("Retweets, one at a time", ["tweets in the chain", "time", "CPU", "quartiles of CPU"], rows)]


def _retweeting(inside: Inside, author: Person, end: TweetId | None, times: int) -> Callable[[], Cost]:
    async def retweet() -> None:
        for text in texts(times):
            await inside.post(author, text, end)

    return lambda: inside.cost_of(retweet())


def _id_of(tweet: bytes) -> TweetId:
    return TweetId(parse_id(msgspec.json.decode(tweet, type=_Posted).id))
