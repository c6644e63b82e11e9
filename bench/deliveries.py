"""A fan-out brings 500,000 tweets a second and core into resident timelines, the list of followers read included.

CPU of `Fanout.deliver` and of the worker behind it, per fan-out, at several numbers of followers who are all resident.
*Just read*: the first tweet since each timeline was read. *Unread*: those that follow. What a post costs besides (text,
id, durable write, answer), at 64 in flight, is told apart and then added.
"""

from collections.abc import Callable

from bench.inside import Inside, Person, texts
from bench.measuring import Cost, Plan, Table, cpu_median, in_turns, micros, spread
from rookery.domain.ids import UserId

SIZES = (1, 1_000, 10_000)
TWEETS = 20
JUST_READ, UNREAD = "just read", "unread"
ENTRIES = 100
TARGET = 500_000


def run(plan: Plan) -> list[Table]:
    with Inside(plan.scratch) as inside:
        return [table_of(plan, inside, TARGET)]


def table_of(plan: Plan, inside: Inside, target: int) -> Table:
    """Fan-outs with whatever cache this Rookery has."""
    rounds = plan.pick(9, 3)
    authors = dict(zip(SIZES, inside.people("author", len(SIZES)), strict=True))
    others = inside.people("other", 10)
    followers = inside.people("follower", SIZES[-1])
    inside.follow((each, author) for size, author in authors.items() for each in followers[:size])
    # So that timelines are full: each holds a hundred entries before anything is delivered.
    inside.follow((each, other) for each in followers for other in others)
    inside.tweets(others * (ENTRIES // len(others)), texts(ENTRIES))
    alone = inside.people("alone", 64)
    posts = plan.pick(2_000, 500)
    sides: dict[str, Callable[[], Cost]] = {"post": _posting(inside, alone, posts)}
    for size, author in authors.items():
        sides |= {f"{JUST_READ} {size}": _delivering(inside, author, [each.id for each in followers[:size]], 1)}
        sides |= {f"{UNREAD} {size}": _delivering(inside, author, [], TWEETS)}
    found = in_turns(rounds, sides)
    post = cpu_median(found["post"]) / posts
    costs = {
        (state, size): cpu_median(found[f"{state} {size}"]) / tweets
        for state, tweets in ((JUST_READ, 1), (UNREAD, TWEETS))
        for size in SIZES
    }
    rows = [
        [
            f"{size:,}",
            state,
            micros(cost),
            spread([each.cpu for each in found[f"{state} {size}"]]),
            _per_second(size, cost),
            _per_second(size, cost + post),
        ]
        for (state, size), cost in costs.items()
    ]
    steep = {state: (costs[state, SIZES[-1]] - costs[state, SIZES[-2]]) / (SIZES[-1] - SIZES[-2]) for state, _ in costs}
    head = ["followers", "timelines", "CPU per fan-out", "quartiles", "deliveries/s per core", "with the post's cost"]
    note = (
        f"A post by an author without followers, durable, 64 in flight: {micros(post)} of CPU. Each follower more: "
        + ", ".join(f"{micros(each)} ({state})" for state, each in steep.items())
        + "."
    )
    return Table(f"Fan-out (target: {target:,} deliveries/s per core)", head, rows, [note])


def _posting(inside: Inside, authors: list[Person], posts: int) -> Callable[[], Cost]:
    work = list(zip(authors * (posts // len(authors) + 1), texts(posts), strict=False))
    return lambda: inside.cost_of(inside.post_all(work))


def _delivering(inside: Inside, author: Person, readers: list[UserId], tweets: int) -> Callable[[], Cost]:
    def turn() -> Cost:
        inside.run(inside.read_feeds(readers))
        return inside.cost_of(inside.deliver(author, inside.stored(author, tweets)))

    return turn


def _per_second(size: int, cost: float) -> str:
    return f"{size / cost:,.0f}"
