"""A graph of who follows whom, and texts to post: real ones where they are, made ones otherwise."""

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from random import Random

from rookery.domain.errors import BrokenRule
from rookery.domain.text import clean_body

NETWORKS = ("verizoncareers", "bofa_careers")
USERS, EDGES = 22_914, 127_904
"""Of the two networks together, and so of the made one."""

Edge = tuple[str, str]
"""Follower, followee."""


def read_graph(shared: Path) -> tuple[str, list[Edge]]:
    """What it is, and its edges. Two networks that know nothing of each other become one graph."""
    files = [shared / "graph-twitter" / f"{name}.follower-followee.tsv.gz" for name in NETWORKS]
    if not all(file.is_file() for file in files):
        return f"made, {EDGES:,} edges", list(_made())
    edges = []
    for letter, file in zip("vb", files, strict=True):
        with gzip.open(file, "rt", encoding="ascii") as lines:
            for line in lines:
                follower, followee = line.split()
                edges.append((letter + follower, letter + followee))
    return f"verizon and bofa, {len(edges):,} edges", edges


def read_texts(shared: Path, otherwise: list[str]) -> list[str]:
    """Real tweets with emoji that may be posted here as they are."""
    file = shared / "tweets-emoji" / "tweets.csv.gz"
    if not file.is_file():
        return otherwise
    with gzip.open(file, "rb") as packed, io.TextIOWrapper(packed, "utf-8", newline="") as text:
        found = [row["text"] for row in csv.DictReader(text)]
    return [text for text in found if _may_be_posted(text)]


def _may_be_posted(text: str) -> bool:
    try:
        clean_body(text, may_be_empty=False)
    except BrokenRule:
        return False
    return True


def _made() -> Iterator[Edge]:
    """Few are followed by many and most by few, as in the real ones: rank r is followed in proportion to r^-0.8."""
    chance = Random(1)
    weights = [(rank + 1) ** -0.8 for rank in range(USERS)]
    seen: set[Edge] = set()
    while len(seen) < EDGES:
        followees = chance.choices(range(USERS), weights, k=EDGES - len(seen))
        for followee in followees:
            edge = (f"u{chance.randrange(USERS)}", f"u{followee}")
            if edge[0] != edge[1] and edge not in seen:
                seen.add(edge)
                yield edge
