"""What a connection may do before and after a request is the application's: bounds that uvicorn itself does not have.

A head has a size and a time, an answer that nobody reads is not kept, and what can't be read as HTTP is a problem too.
"""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rookery.domain.errors import Failure
from rookery.web.problems import Refusal, headers_of, problem_of, status_of

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers together."""
HEAD_SECONDS = 10.0
"""From the connection, or on a kept one from a request's first byte, until its head is there."""
UNREAD_SECONDS = 30.0
"""How long an answer may wait for its reader to make room."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with these bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._began_now = False
        self._head_bytes = 0
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type] # its own type is narrower than asyncio's
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._head_timer is None and not self._is_answering():
            self._await_head()  # also while nothing but line ends comes, or the rest of a body nobody waits for
        self._began_now = False
        super().data_received(data)
        if self._in_head and not self._ended:
            # A head that ends is measured by its parts; one that does not, by what came after where it began.
            self._head_bytes += 0 if self._began_now else len(data)
            self._check_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._began_now = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._check_head()
        if not self._ended:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._ended:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - ours says it as all errors are said
        self._refuse(Refusal(400))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a reader who does not read
        else:
            super().timeout_keep_alive_handler()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # its own type leaves out that there may be none yet
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(Refusal(408, "slow_head", "The request's head did not arrive in time."))
        else:
            self._end()

    def _check_head(self) -> None:
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(Refusal(431))

    def _refuse(self, failure: Failure) -> None:
        """Answer what never becomes a request, unless another answer is on its way, and close."""
        if self._ended:
            return
        if not self._is_answering():
            body = msgspec.json.encode(problem_of(failure))
            headers = {
                **headers_of(failure),
                "Content-Type": "application/problem+json",
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(STATUS_LINE[status_of(failure)] + lines.encode() + b"\r\n" + body)
        self._end()

    def _end(self) -> None:
        self._ended = True
        if not self.transport.is_closing():
            self.transport.close()
