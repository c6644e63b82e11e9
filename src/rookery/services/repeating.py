"""What happens again and again is told once in a while."""

import time

TOLD_SECONDS = 60.0
"""How long one kind is not told again."""
_MOST_KINDS = 100
"""Kinds that are remembered."""


class Repeating:
    """Knows which kinds of things were told in the last minute."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        """Kinds that were told, and when (`time.monotonic`)."""

    def is_due(self, kind: str) -> bool:
        """Whether it is time to tell of this kind, which counts as told then."""
        now = time.monotonic()
        if now - self._told.get(kind, float("-inf")) < TOLD_SECONDS:
            return False
        if len(self._told) >= _MOST_KINDS:
            self._told.clear()
        self._told[kind] = now
        return True
