"""The warm feed of a user with 5,000 followees costs at most 1.2 times the CPU of that of one with 10.

Each timeline is resident and holds 100 entries at least, and each page of ten is by ten authors. *Quiet*: nothing came
since the last read. *Busy*: twenty tweets came, which the read has to put in order.
"""

from collections.abc import Callable
from contextlib import ExitStack

from bench.inside import Inside, Person, texts
from bench.measuring import Cost, Plan, Table, cost_of, cpu_median, in_turns, micros, spread
from bench.outside import Clients, get, rookery

SIZES = (10, 100, 1_000, 5_000)
TWEETS_EACH = 10
FRESH = 20
TARGET = 1.2


def run(plan: Plan) -> list[Table]:
    with Inside(plan.scratch) as inside:
        authors = inside.people("author", SIZES[-1])
        readers = dict(zip(SIZES, inside.people("reader", len(SIZES)), strict=True))
        other = inside.people("other", 1)[0]
        inside.follow([(other, authors[0])])
        inside.follow((reader, author) for size, reader in readers.items() for author in authors[:size])
        # In rounds, the first ten authors last: the newest ten tweets of each feed are by ten authors.
        inside.tweets(authors[::-1] * TWEETS_EACH, texts(TWEETS_EACH * len(authors)))
        calls = plan.pick(500, 100)
        rounds = plan.pick(21, 7)
        quiet = in_turns(rounds, {str(size): _reading(inside, reader, calls) for size, reader in readers.items()})
        busy_calls = plan.pick(100, 25)
        turns = {
            str(size): _reading_busily(inside, authors[0], other, reader, busy_calls)
            for size, reader in readers.items()
        }
        busy = in_turns(rounds, turns)
    over_http, requests = _over_http(plan, readers)
    return [
        _table("Feeds.home in the process, quiet", quiet, calls),
        _table(f"Feeds.home in the process, busy ({FRESH} tweets before each read)", busy, busy_calls),
        _table("GET /api/v1/feed/{id}, quiet", over_http, requests),
    ]


def _reading(inside: Inside, reader: Person, calls: int) -> Callable[[], Cost]:
    return lambda: inside.cost_of(inside.read_feeds([reader.id] * calls))


def _reading_busily(inside: Inside, author: Person, other: Person, reader: Person, calls: int) -> Callable[[], Cost]:
    """Only the reader's reads count. Another reads before him and so pays for loading the tweets."""
    owners = [reader.id]

    def turn() -> Cost:
        cpu = wall = 0.0
        tweets = inside.stored(author, FRESH * calls)
        for start in range(0, len(tweets), FRESH):
            inside.run(inside.deliver(author, tweets[start : start + FRESH]))
            inside.run(inside.read_feeds([other.id]))
            cost = inside.cost_of(inside.read_feeds(owners))
            cpu, wall = cpu + cost.cpu, wall + cost.wall
        return Cost(cpu, wall)

    return turn


def _over_http(plan: Plan, readers: dict[int, Person]) -> tuple[dict[str, list[Cost]], int]:
    requests = plan.pick(2_000, 500)

    def turn(clients: Clients, pid: int, ask: bytes) -> Callable[[], Cost]:
        return lambda: cost_of(lambda: clients.run(ask for _ in range(requests)), pid)

    with ExitStack() as stack:
        server = stack.enter_context(rookery(plan.scratch))
        clients = stack.enter_context(Clients([server.port]))
        asked = {
            str(size): get(f"/api/v1/feed/{reader.text_id}?limit=10", reader.token) for size, reader in readers.items()
        }
        turns = {name: turn(clients, server.pid, ask) for name, ask in asked.items()}
        return in_turns(plan.pick(15, 5), turns), requests


def _table(title: str, found: dict[str, list[Cost]], calls: int) -> Table:
    base = cpu_median(found[str(SIZES[0])])
    rows = [
        [
            f"{int(size):,}",
            micros(cpu_median(costs) / calls),
            f"{cpu_median(costs) / base:.2f}",
            spread([cost.cpu for cost in costs]),
        ]
        for size, costs in found.items()
    ]
    return Table(f"{title} (target: at most {TARGET})", ["followees", "CPU per feed", "ratio", "quartiles"], rows)
