"""What can go wrong, in the words of the domain.

A handful of kinds; each failure carries a stable `code` for programs and a sentence for people. The sentence is shown
to whoever asked, so it never holds a query, a path or another person's text. `web/problems.py` maps kinds to statuses.
"""

from typing import ClassVar

_NO_THREAD = "can't start new thread"
"""What Python says when the kernel gives it no thread, for want of memory or by a limit."""


class Failure(Exception):
    """A request that can't be carried out. `code` is stable, the message is for people."""

    kind: ClassVar[str] = "failure"

    def __init__(self, code: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        """Seconds after which trying again may help, where that is known."""


class Malformed(Failure):
    """The input can't be read: a broken id, cursor or number, a missing or unknown field."""

    kind = "malformed"


class Unauthenticated(Failure):
    """A token or password is missing or wrong."""

    kind = "unauthenticated"


class Forbidden(Failure):
    """Known, but not allowed to do this."""

    kind = "forbidden"


class NotFound(Failure):
    """There is no such user or tweet, or it was deleted."""

    kind = "not_found"


class Conflict(Failure):
    """It can't be done in the present state of things: a taken name, a chain that is too long."""

    kind = "conflict"


class BrokenRule(Failure):
    """The input is readable but breaks a rule of the domain."""

    kind = "broken_rule"


class TooMany(Failure):
    """Too many requests; `retry_after` says when to come back."""

    kind = "too_many"


class Unavailable(Failure):
    """A part that is needed can't be reached, or can't write. Nothing was acknowledged."""

    kind = "unavailable"

    def __init__(self, code: str, message: str, *, retry_after: int = 1) -> None:
        super().__init__(code, message, retry_after=retry_after)


def unknown_user() -> NotFound:
    """The one answer for a user who never was or is deleted."""
    return NotFound("unknown_user", "There is no such user.")


def half_made_user() -> Unavailable:
    """The answer for a handle that is taken, when whoever takes it has not written its user yet."""
    return Unavailable("busy", "This name is just being given away; try again in a moment.")


def unknown_tweet() -> NotFound:
    """The answer for a tweet id that was never given."""
    return NotFound("unknown_tweet", "There is no such tweet.")


def deleted_tweet() -> NotFound:
    """The answer for a tweet that was there once."""
    return NotFound("deleted_tweet", "This tweet was deleted.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, for a value or for a thread."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and str(error) == _NO_THREAD)
