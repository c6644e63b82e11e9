"""The ranking in Redis."""

from rookery.adapters.redis.ranking import RedisRanking

__all__ = ["RedisRanking"]
