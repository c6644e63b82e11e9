"""One pipelined connection to a memcached server, speaking its meta protocol (protocol.txt of memcached 1.6).

Commands are sent in bursts: any number of quiet commands, closed by `mn`. A quiet command answers only when there is
something to say, so a burst costs as many lines as it has news, and `MN` says that all of it was done.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import cast

Reply = tuple[bytes, bytes]
"""A line of an answer, and the value that came with it (empty for lines that have none)."""

_END = b"mn\r\n"
_MOST_UNREAD = 4 * 1024 * 1024
"""Bytes without an end of a line or value: more than any answer, so what talks there is no memcached."""
_GRACE_SECONDS = 0.01
"""After a timeout, for answers that arrived while this process was kept from reading them."""


class Broken(Exception):
    """The connection ended, or what came over it was no answer. Whether the commands were done is not known."""


@dataclass(slots=True, eq=False)
class _Burst:
    """Commands that were sent, until their answer is complete."""

    answer: "asyncio.Future[list[Reply]]"
    deadline: float
    replies: list[Reply]


class Connection(asyncio.Protocol):
    """An open connection. `send` may be called by many tasks at once; answers come in the order of sending."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._bursts: deque[_Burst] = deque()
        self._unread = b""
        self._timer: asyncio.TimerHandle | None = None
        self._was_late = False
        self.closed = self._loop.create_future()
        """Done when the connection ended."""

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self.closed.done()

    async def send(self, commands: bytes) -> list[Reply]:
        """Send quiet commands and return what they had to say, without the final `MN`.

        Raises:
            Broken: also when the answer takes longer than the timeout, which ends the connection.
        """
        if self._transport is None or self.closed.done():
            raise Broken("closed")
        burst = _Burst(self._loop.create_future(), self._loop.time() + self._timeout, [])
        self._bursts.append(burst)
        self._transport.write(commands + _END)
        if self._timer is None:
            self._timer = self._loop.call_at(burst.deadline, self._on_time)
        return await burst.answer

    def close(self, why: str = "closed") -> None:
        """End the connection; those who wait are told."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc else "the server closed the connection")

    def data_received(self, data: bytes) -> None:
        self._unread = data = self._unread + data if self._unread else data
        at = 0
        try:
            while (end := data.find(b"\r\n", at)) >= 0:
                line = data[at:end]
                value, after = b"", end + 2
                if line.startswith(b"VA "):
                    size = int(line.split(b" ", 2)[1])
                    after += size + 2
                    if len(data) < after:
                        break
                    value = data[end + 2 : after - 2]
                    if data[after - 2 : after] != b"\r\n":
                        raise ValueError(line)
                self._take(line, value)
                at = after
        except (ValueError, IndexError):
            self.close("an answer that is not memcached's")
            return
        self._unread = data[at:]
        if len(self._unread) > _MOST_UNREAD:
            self.close("an answer without end")

    def _take(self, line: bytes, value: bytes) -> None:
        burst = self._bursts[0]  # IndexError: an answer to nothing
        if line == b"MN":
            self._bursts.popleft()
            self._was_late = False
            if not burst.answer.done():  # else its caller was cancelled
                burst.answer.set_result(burst.replies)
        else:
            burst.replies.append((line, value))

    def _on_time(self) -> None:
        """Look whether the oldest burst is late. One timer serves all, as they have one timeout."""
        self._timer = None
        if not self._bursts or self.closed.done():
            return
        now, due = self._loop.time(), self._bursts[0].deadline
        if due > now:
            self._timer = self._loop.call_at(due, self._on_time)
        elif not self._was_late:
            self._was_late = True
            self._timer = self._loop.call_later(_GRACE_SECONDS, self._on_time)
        else:
            self.close("no answer in time")

    def _fail(self, why: str) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._bursts:
            burst = self._bursts.popleft()
            if not burst.answer.done():
                burst.answer.set_exception(Broken(why))
