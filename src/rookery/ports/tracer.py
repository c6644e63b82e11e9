"""Spans: what one request was made of, for whoever looks at many programs at once."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Ending = Callable[[str, str, int, str], None]
"""Tells what the request was: its method, its route, the status of its answer, and its id."""


class Tracer(Protocol):
    """Makes spans. Nobody waits for where they go, and nothing fails when they don't get there."""

    def request(self, headers: Mapping[bytes, bytes]) -> AbstractContextManager[Ending]:
        """The span of a request. It belongs to the one that these headers name, if they do (W3C trace context)."""
        ...

    def call(self, part: str, name: str) -> AbstractContextManager[object]:
        """The span of a call to the store or the ranking, within the one that is open."""
        ...


class _Untraced:
    def request(self, headers: Mapping[bytes, bytes]) -> AbstractContextManager[Ending]:  # noqa: ARG002 - the port's
        return nullcontext(_nothing)

    def call(self, part: str, name: str) -> AbstractContextManager[object]:  # noqa: ARG002 - the port's
        return nullcontext()


def _nothing(method: str, route: str, status: int, request_id: str) -> None: ...


UNTRACED: Tracer = _Untraced()
"""Makes none."""
