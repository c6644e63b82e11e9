"""Counting what is asked of a part, and how long it took to answer."""

import logging
import time
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Reading, Spreads, Tally
from rookery.ports.tracer import Tracer
from rookery.services.repeating import Repeating

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CAUSE_CHARACTERS = 80
"""Characters of a cause's text that tell its kind: the rest may name a moment or a number."""


class Watch:
    """The calls of one part's port, by their names. `part` is store or ranking."""

    def __init__(self, part: str, tracer: Tracer) -> None:
        self._part = part
        self._tracer = tracer
        self._took: Spreads[str] = Spreads()
        self._failed: Tally[tuple[str, str]] = Tally()
        self._causes = Repeating()

    def on(self, inner: T) -> T:
        """The part, watched."""
        return cast("T", _Watched(inner, self))

    def readings(self) -> Iterable[Reading]:
        """How often each was asked and how long it took, and how often it could not answer."""
        for call, took in self._took.items():
            yield Reading(
                f"{self._part}_seconds",
                f"How long the {self._part} took to answer, by what it was asked.",
                took,
                {"call": call},
            )
        for (call, code), many in self._failed.items():
            yield Reading(
                f"{self._part}_failures_total",
                f"How often the {self._part} could not answer, by what it was asked and the problem's code.",
                many,
                {"call": call, "code": code},
            )

    def count(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        @wraps(call)
        async def counted(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                with self._tracer.call(self._part, name):
                    return await call(*args, **kwargs)
            except Unavailable as error:
                self._failed.add((name, error.code))
                self._tell_cause(name, error)
                raise
            finally:
                self._took.add(name, time.perf_counter() - begun)

        return counted

    def _tell_cause(self, call: str, error: Unavailable) -> None:
        """Log why a part could not answer, each kind of cause once a minute. Clients are never told."""
        cause = error.__cause__
        if cause is None:
            return
        kind = f"{error.code} {type(cause).__name__} {str(cause)[:_CAUSE_CHARACTERS]}"
        if self._causes.is_due(kind):
            _log.warning(
                "the %s failed (%s, asked for %s): %s: %s", self._part, error.code, call, type(cause).__name__, cause
            )


class _Watched:
    def __init__(self, inner: object, watch: Watch) -> None:
        self._inner = inner
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if iscoroutinefunction(found):
            found = self._watch.count(name, found)
            setattr(self, name, found)  # the next time it is found at once
        return found
