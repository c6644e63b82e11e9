"""The adapters that each port's contract suite runs on. To add one, add it to its table: no test knows which it has."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from rookery.ports.ranking import Ranking
from rookery.ports.store import Store
from tests.contract.adapters import cassandra, memcached, memory, redis, sqlite
from tests.contract.given import Given
from tests.contract.places import CachePlace, OpenStore, RankingPlace

STORES: Mapping[str, OpenStore] = {
    "sqlite": sqlite.open_store,
    "sqlite-owing-counts": sqlite.open_store_owing_counts,
    "cassandra": cassandra.open_store,
    "redis": redis.opens_store("redis"),
    "redis-cluster": redis.opens_store("redis-cluster"),
}
RANKINGS: Mapping[str, RankingPlace] = {
    "sqlite": RankingPlace(sqlite.open_ranking, sqlite.damage),
    "redis": RankingPlace(redis.opens_ranking("redis"), redis.damage),
    "redis-cluster": RankingPlace(redis.opens_ranking("redis-cluster"), redis.damage_on_cluster),
}
CACHES: Mapping[str, CachePlace] = {
    "memory": CachePlace(memory.open_cache),
    "memcached": CachePlace(memcached.open_on(1)),
    "three-memcached": CachePlace(memcached.open_on(3)),
}


@pytest.fixture(scope="session", params=STORES.values(), ids=list(STORES))
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    """Opens the store of a folder. Opening the same folder again is what another process would do."""
    opener: OpenStore = request.param
    return opener


@pytest.fixture
async def store(open_store: OpenStore, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path) as store:
        yield store


@pytest.fixture
def given(store: Store) -> Given:
    return Given(store)


@pytest.fixture(scope="session", params=RANKINGS.values(), ids=list(RANKINGS))
def ranking_place(request: pytest.FixtureRequest) -> RankingPlace:
    place: RankingPlace = request.param
    return place


@pytest.fixture
async def ranking(ranking_place: RankingPlace, tmp_path: Path) -> AsyncIterator[Ranking]:
    async with ranking_place.open(tmp_path) as ranking:
        yield ranking


@pytest.fixture(scope="session", params=CACHES.values(), ids=list(CACHES))
def cache_place(request: pytest.FixtureRequest) -> CachePlace:
    place: CachePlace = request.param
    return place


# Where what is in a store is moved to


@pytest.fixture(scope="session", params=STORES.values(), ids=[f"to-{name}" for name in STORES])
def open_target(request: pytest.FixtureRequest) -> OpenStore:
    opener: OpenStore = request.param
    return opener


@pytest.fixture
async def target(open_target: OpenStore, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_target(tmp_path / "target") as target:
        yield target
