"""Random operations on a cache, compared step by step with a dictionary that never evicts."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from rookery.ports.cache import Swap
from tests.contract.effort import examples
from tests.contract.places import CachePlace

pytestmark = pytest.mark.no_cover  # measuring doubles the time of such work; what runs here is measured elsewhere

T = TypeVar("T")

IDS = [b"1", b"2", b"3"]
KEYS = [kind + raw for kind in (b"tl:", b"ut:") for raw in IDS]
TOUCH = 200
"""No time to live is longer, so that a touch never shortens one."""
TTLS = st.sampled_from([50, 100, TOUCH])
STEP = 35
"""Seconds. No sum of such steps is near a time to live, so that nothing ends at about the moment of a read."""
VALUES = st.sampled_from([b"", b"value", b"another value", b"v" * 1_000])
SOME_KEYS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True)


@dataclass
class Item:
    value: bytes
    ends: float
    version: int


@dataclass(frozen=True)
class Read:
    """A value that was read for a swap: the cache's token for it, and the model's version."""

    key: bytes
    token: object
    version: int


class CacheModel(RuleBasedStateMachine):
    """Both do each step, and answer alike."""

    place: CachePlace
    reads = Bundle("reads")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        opened = self.runner.run(self.stack.enter_async_context(self.place.open()))
        self.cache, self.opened = opened.cache, opened
        self.items: dict[bytes, Item] = {}
        self.now = 0.0
        self.version = 0

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()

    def item(self, key: bytes) -> Item | None:
        item = self.items.get(key)
        return item if item is not None and self.now < item.ends else None

    def put(self, key: bytes, value: bytes, ttl: int) -> None:
        self.version += 1
        self.items[key] = Item(value, self.now + ttl, self.version)

    @rule(keys=SOME_KEYS)
    def get(self, keys: list[bytes]) -> None:
        expected = []
        for key in keys:
            item = self.item(key)
            expected.append(item.value if item else None)
            if item:
                item.ends = self.now + TOUCH
        assert self.runner.run(self.cache.get_many(keys, touch=TOUCH)) == expected

    @rule(keys=SOME_KEYS, value=VALUES, ttl=TTLS)
    def add(self, keys: list[bytes], value: bytes, ttl: int) -> None:
        expected = [self.item(key) is None for key in keys]
        for key, free in zip(keys, expected, strict=True):
            if free:
                self.put(key, value, ttl)
        assert self.runner.run(self.cache.add_many(keys, value, ttl)) == expected

    @rule(target=reads, keys=SOME_KEYS)
    def get_for_swap(self, keys: list[bytes]) -> object:
        found = self.runner.run(self.cache.get_for_swap(keys))
        expected = [self.item(key) for key in keys]
        assert [got and got[0] for got in found] == [item and item.value for item in expected]
        return multiple(
            *(
                Read(key, got[1], item.version)
                for key, got, item in zip(keys, found, expected, strict=True)
                if got is not None and item is not None
            )
        )

    @rule(chosen=st.lists(reads, min_size=1, max_size=3, unique_by=lambda read: read.key), value=VALUES, ttl=TTLS)
    def swap(self, chosen: list[Read], value: bytes, ttl: int) -> None:
        expected = []
        for read in chosen:
            item = self.item(read.key)
            if item is None:
                expected.append(Swap.GONE)
            elif item.version != read.version:
                expected.append(Swap.CHANGED)
            else:
                expected.append(Swap.STORED)
                self.put(read.key, value, ttl)
        assert self.runner.run(self.cache.swap([(read.key, read.token, value) for read in chosen], ttl)) == expected

    @rule(kind=st.sampled_from([b"tl:", b"ut:"]), ids=st.lists(st.sampled_from(IDS), unique=True), entry=VALUES)
    def prepend(self, kind: bytes, ids: list[bytes], entry: bytes) -> None:
        existed = [item for raw in ids if (item := self.item(kind + raw))]
        for item in existed:
            self.version += 1
            item.value, item.version = entry + item.value, self.version
        assert self.runner.run(self.cache.prepend(kind, ids, entry)) == len(existed)

    @rule(keys=SOME_KEYS)
    def delete(self, keys: list[bytes]) -> None:
        for key in keys:
            self.items.pop(key, None)
        self.runner.run(self.cache.delete(keys))

    @rule(steps=st.integers(1, 3))
    def pass_time(self, steps: int) -> None:
        self.now += steps * STEP
        self.runner.run(self.opened.pass_time(steps * STEP))

    @invariant()
    def holds_the_same(self) -> None:
        found = self.runner.run(self.cache.get_for_swap(KEYS))
        items = [self.item(key) for key in KEYS]
        assert [got and got[0] for got in found] == [item and item.value for item in items]


def test_a_cache_is_a_dictionary_that_forgets_what_is_past_its_time(cache_place: CachePlace) -> None:
    class Machine(CacheModel):
        place = cache_place

    run_state_machine_as_test(Machine, settings=examples(60))
