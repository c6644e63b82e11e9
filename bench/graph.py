"""Posts replayed on a real graph of 127,904 edges reach every follower's resident timeline before the backlog grows.

Everyone's timeline is resident. Durable posts of real tweets, 64 in flight, until the last is delivered: by authors
drawn alike, and by authors drawn in proportion to their followers, as who is followed more tweets more. At the end some
followers' feeds are looked at: the newest tweet of whom they follow is in each.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import msgspec

from bench.graphs import Edge, read_graph, read_texts
from bench.inside import Inside, Person, texts
from bench.measuring import Cost, Plan, Table, cpu_median, in_turns, micros, spread, wall_median

CHECKED = 200
ALIKE, BY_FOLLOWERS = "alike", "by their followers"


def run(plan: Plan) -> list[Table]:
    count = plan.pick(2_000, 500)
    what, edges = read_graph(plan.shared)
    bodies = (read_texts(plan.shared, texts(count)) * count)[:count]
    with Inside(plan.scratch) as inside:
        people = _people(inside, edges)
        inside.follow((people[follower], people[followee]) for follower, followee in edges)
        owners = list(dict.fromkeys(people[follower].id for follower, _ in edges))
        resident = inside.cost_of(inside.read_feeds(owners))
        followers = Counter(followee for _, followee in edges)
        authors = {ALIKE: _draw(people, None, count), BY_FOLLOWERS: _draw(people, followers, count)}
        turns = {how: _posting(inside, [people[name] for name in names], bodies) for how, names in authors.items()}
        found = in_turns(plan.pick(7, 3), turns)
        _check(inside, people, edges)
    rows = []
    for how, costs in found.items():
        deliveries = sum(followers[name] for name in authors[how])
        wall, cpu = wall_median(costs), cpu_median(costs)
        rows.append(
            [
                how,
                f"{deliveries / count:,.1f}",
                f"{count / wall:,.0f}",
                f"{deliveries / wall:,.0f}",
                f"{deliveries / cpu:,.0f}",
                micros(cpu / count),
                spread([cost.cpu for cost in costs]),
            ]
        )
    head = ["authors drawn", "deliveries per post", "posts/s", "deliveries/s", "per core", "CPU per post", "quartiles"]
    note = (
        f"Filling {len(owners):,} timelines that nobody had read took {micros(resident.cpu / len(owners))} of CPU each."
    )
    return [Table(f"Replay on a graph ({what}, {len(people):,} users)", head, rows, [note])]


def _people(inside: Inside, edges: Sequence[Edge]) -> dict[str, Person]:
    names = list(dict.fromkeys(name for edge in edges for name in edge))
    return dict(zip(names, inside.people("user", len(names)), strict=True))


def _draw(people: dict[str, Person], followers: Counter[str] | None, count: int) -> list[str]:
    names = list(people)
    return Random(2).choices(names, [followers[name] for name in names] if followers else None, k=count)


def _posting(inside: Inside, authors: Sequence[Person], bodies: Sequence[str]) -> Callable[[], Cost]:
    return lambda: inside.cost_of(inside.post_all(zip(authors, bodies, strict=True)))


class _Seen(msgspec.Struct):
    id: str


def _check(inside: Inside, people: dict[str, Person], edges: Sequence[Edge]) -> None:
    """What was answered is in the feeds."""
    for follower, followee in Random(3).sample(edges, CHECKED):
        posted = msgspec.json.decode(inside.run(inside.post(people[followee], "Caw")), type=_Seen)
        inside.run(inside.rookery.fanout.drain())
        feed = inside.run(inside.rookery.services.feeds.home(people[follower].id, 1, None))
        assert msgspec.json.decode(feed.items[0], type=_Seen) == posted, "a follower's feed lacks a tweet"
