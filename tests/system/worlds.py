"""Who follows whom and what they write: the real data where it is, and always a generated world."""

import csv
import gzip
import io
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"

_WORDS = [
    "mañana",
    "été",
    "naïve",
    "Ωμέγα",
    "مرحبا",
    "שלום",
    "日本語",
    "👩\u200d👩\u200d👧\u200d👦",
    "🇮🇪",
    "❤️",
    "rook",
    "nest",
    "feather",
    "sky",
    "wind",
    "first",
    "second\nline",
    "tail",
]


@dataclass(frozen=True)
class World:
    """Edges are (follower, followee) by handle; texts are what is posted, in this order."""

    edges: list[tuple[str, str]]
    texts: list[str]
    graph_file: Path

    @property
    def names(self) -> list[str]:
        return sorted({name for edge in self.edges for name in edge})


def real_world() -> World:
    graph = DATA / "graph-twitter" / "hersheycareers.follower-followee.tsv.gz"
    if not graph.is_file():
        pytest.skip("the real data is not there (../shared/data)")
    lines = gzip.decompress(graph.read_bytes()).decode().splitlines()
    edges = [(follower, followee) for follower, followee in (line.split("\t") for line in lines)]
    tweets = gzip.decompress((DATA / "tweets-emoji" / "tweets.csv.gz").read_bytes()).decode()
    texts = [row["text"] for row in csv.DictReader(io.StringIO(tweets, newline=""))]
    return World(edges, texts, graph)


def generated_world(folder: Path, seed: int = 1, users: int = 300, edges: int = 3_000, tweets: int = 2_500) -> World:
    """A graph of the shape that follow graphs have, a few followed by very many, and texts of several scripts."""
    chance = random.Random(seed)
    names = [f"user_{number}" for number in range(users)]
    found: set[tuple[str, str]] = set()
    while len(found) < edges:
        followee = names[min(int(chance.paretovariate(0.6)) - 1, users - 1)]
        follower = chance.choice(names)
        if follower != followee:
            found.add((follower, followee))
    graph = folder / "graph.tsv"
    graph.write_text("".join(f"{follower}\t{followee}\n" for follower, followee in sorted(found)))
    texts = [" ".join(chance.choices(_WORDS, k=chance.randint(1, 30))) for _ in range(tweets)]
    return World(sorted(found), texts, graph)


def counted_rows(account: str) -> list[dict[str, str]]:
    """The rows of a real account's timeline with its retweet counts."""
    path = counted_file(account)
    text = gzip.decompress(path.read_bytes()).decode("mac_roman")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def counted_file(account: str) -> Path:
    path = DATA / "tweets-counted" / f"{account}.csv.gz"
    if not path.is_file():
        pytest.skip("the real data is not there (../shared/data)")
    return path
