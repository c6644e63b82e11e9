"""Counting what is asked of a part, and how long it took to answer."""

import time
from collections.abc import Callable, Iterable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Reading, Spreads, Tally
from rookery.ports.tracer import Tracer

T = TypeVar("T")


class Watch:
    """The calls of one part's port, by their names. `part` is store or ranking."""

    def __init__(self, part: str, tracer: Tracer) -> None:
        self._part = part
        self._tracer = tracer
        self._took: Spreads[str] = Spreads()
        self._failed: Tally[tuple[str, str]] = Tally()

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
                raise
            finally:
                self._took.add(name, time.perf_counter() - begun)

        return counted


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
