"""Redis as the ranking."""

from rookery.adapters.redis.calling import CLUSTER_SHARDS
from rookery.adapters.redis.ranking import RedisRanking
from rookery.adapters.redis.servers import Access

__all__ = ["CLUSTER_SHARDS", "Access", "RedisRanking"]
