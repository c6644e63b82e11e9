"""The cache on memcached, shared by all processes."""

from rookery.adapters.memcached.cache import MemcachedCache

__all__ = ["MemcachedCache"]
