"""Redis as the ranking and as the store, on one server or a cluster."""

from rookery.adapters.redis.calling import CLUSTER_SHARDS
from rookery.adapters.redis.ranking import RedisRanking
from rookery.adapters.redis.servers import Access
from rookery.adapters.redis.store import RedisStore

__all__ = ["CLUSTER_SHARDS", "Access", "RedisRanking", "RedisStore"]
