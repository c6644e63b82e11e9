"""Steps of a work that must survive a process that is killed in the middle of it."""

from typing import Protocol


class Steps(Protocol):
    """Is told of each step that is done."""

    def __call__(self, step: str, /) -> None:
        """The step of this name, such as `restore.moved`, is done, and the next one has not begun."""
        ...


def unwatched(_: str, /) -> None:
    """Does nothing."""
