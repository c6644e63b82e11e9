"""The cache in the server's own process."""

from rookery.adapters.memory.cache import MemoryCache

__all__ = ["MemoryCache"]
