"""Passwords hashed with argon2id."""

from rookery.adapters.argon2.hasher import Argon2Hasher

__all__ = ["Argon2Hasher"]
