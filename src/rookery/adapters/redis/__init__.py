"""The ranking in Redis."""

from rookery.adapters.redis.ranking import CLUSTER_SHARDS, RedisRanking

__all__ = ["CLUSTER_SHARDS", "RedisRanking"]
