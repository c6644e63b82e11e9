"""What goes out on a connection: an answer is waited for as long as somebody reads it, and no longer."""

import asyncio
from functools import cache

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from rookery.domain.errors import Failure
from rookery.web.problems import MEDIA_TYPE, headers_of, problem_of, status_of

LINGER_SECONDS = 1.5
"""How long what comes is passed over at the end: a close at once would take the answer from who still sends."""
UNREAD_SECONDS = 30.0
"""How long an answer may wait for a reader who takes nothing of it."""


class Outward:
    """A transport as answers go out by it: a head with the body that comes right after it, by one write.

    So a server that dies leaves all of an answer or nothing, if it fits the socket's buffer. Where somebody may still
    send, a close comes when he had time to read. It knows nothing of its connection, which would then be freed by the
    garbage collector only.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self.is_quiet = True
        """Whether all has come that was begun."""
        self.is_leaving = False
        """Whether nothing more is said, but what comes is still taken."""
        self._is_lost = False
        self._unread_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._was_read = False
        self._is_head_due = False
        self._head = b""

    def begin_answer(self) -> None:
        """What is written next is a head."""
        self.send_head()
        self._is_head_due = True

    def write(self, data: bytes) -> None:
        """Send it; a head with what comes right after it, or by itself."""
        if self.is_leaving:
            return
        if self._is_head_due:
            self._is_head_due, self._head = False, data
            self._loop.call_soon(self.send_head)
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data)

    def say(self, data: bytes) -> None:
        """Send what is no part of an answer that was begun, behind it."""
        self.send_head()
        self._transport.write(data)

    def send_head(self) -> None:
        """Send a head that no body followed so far."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def is_closing(self) -> bool:
        """Whether nothing more can be said."""
        return self.is_leaving or self._transport.is_closing()

    def close(self) -> None:
        """Say nothing more, and close at once or soon."""
        self.send_head()
        if self.is_quiet or not self._transport.can_write_eof():
            self.close_now()
        elif not self.is_closing():
            self.is_leaving = True
            self._transport.write_eof()
            self._timer = self._loop.call_later(LINGER_SECONDS, self._transport.close)
            self.watch_reader()

    def close_now(self) -> None:
        """Take nothing more either."""
        self._transport.close()
        self.watch_reader()

    def watch_reader(self) -> None:
        """See to it that what is to be sent is taken: neither a full buffer nor a closed connection waits for ever."""
        if self._unread_timer is None and not self._is_lost:
            self._unread, self._was_read = self._transport.get_write_buffer_size(), False
            self._unread_timer = self._loop.call_later(UNREAD_SECONDS, self._look_at_reader)

    def was_read(self) -> None:
        """Note that some of what was to be sent was taken."""
        self._was_read = True

    def _look_at_reader(self) -> None:
        self._unread_timer = None
        left = self._transport.get_write_buffer_size()
        if not left:
            return
        if left < self._unread or self._was_read:
            self.watch_reader()
        else:
            self._transport.abort()

    def lost(self) -> None:
        """When there is nothing left to be closed."""
        self._is_lost = True
        self._head = b""
        for timer in (self._timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._unread_timer = None


@cache
def answer_to(failure: Failure) -> bytes:
    """All of it. Thousands may be due at once, and failures are the few of a connection, each equal to itself only."""
    body = msgspec.json.encode(problem_of(failure))
    headers = {
        **headers_of(failure),
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[status_of(failure)] + lines.encode() + b"\r\n" + body
