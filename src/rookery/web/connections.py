"""What a connection may do before and after a request is the application's: bounds that uvicorn itself does not have.

A head has a size and a time, so has what stands around a body; an answer that nobody reads is not kept; an offer to
upgrade is passed over; and what can't be read as HTTP is told so as all errors are.
"""

import asyncio
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rookery.domain.errors import Failure
from rookery.web.problems import MEDIA_TYPE, Refusal, headers_of, problem_of, status_of

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers together."""
MAX_AROUND_BODY_BYTES = 512 * 1024
"""Sizes of chunks, their extensions, and trailers: more than 64 KiB need that come in chunks of a byte each."""
HEAD_SECONDS = 4.0
"""From the connection, or on a kept one from a request's first byte, until its head is there."""
UNREAD_SECONDS = 30.0
"""How long an answer may wait for a reader who takes nothing of it."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with these bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._is_upgrade = False
        self._around = 0
        """Bytes that came since the message began or its head ended and are not its body's."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the newest, which may wait behind it."""
        self._ended = False
        self._unread_timer: asyncio.TimerHandle | None = None
        self._unread = 0
        self._was_read = False

    # --- what comes in -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type] # its own type is narrower than asyncio's
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._head_is_there()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._unset_keepalive_if_required()
        if self._head_timer is None and not self._is_answering():
            self._await_head()  # also while nothing but line ends comes, or the rest of a body that nobody waits for
        self._around += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(Refusal(400))
            return
        if self._in_head and self._around > MAX_HEAD_BYTES:
            self._refuse(Refusal(431))
        elif self._around > MAX_AROUND_BODY_BYTES:
            self._refuse(Refusal(413))

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(Refusal(400))
                if self._ended:
                    return
                data = self._without_offer() + data[offer.args[0] :]
            else:
                return

    def _without_offer(self) -> bytes:
        """The head that was just read, to be read again by a new parser without its offer to upgrade.

        A parser that has seen one takes what comes behind the head, the request's own body, for another protocol.
        """
        start = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [b"%b: %b\r\n" % item for item in self.headers if item[0] not in (b"upgrade", b"http2-settings")]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return start + b"".join(kept) + b"\r\n"

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._is_upgrade = False
        self._around = 0
        self._head_is_there()  # a timer that is left from what came before
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which nothing here asks for
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._around = 0
        self._head_is_there()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(Refusal(431))
        self._is_upgrade = self.parser.should_upgrade()
        if not self._ended and not self._is_upgrade:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._around -= len(body)
        if not self._ended:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._ended and not self._is_upgrade:
            super().on_message_complete()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head:
            self._refuse(Refusal(408, "slow_head", "The request's head did not arrive in time."))
        else:
            self._end()

    # --- what goes out -----------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _owes_answer(self) -> bool:
        """Whether a request that is all here is being answered, or one whose answer has begun."""
        running = self._running
        return running is not None and self._is_answering() and (running.response_started or not running.more_body)

    def _refuse(self, failure: Failure) -> None:
        """Answer what never becomes a request, and close; an answer that is under way is the last one."""
        if self._ended:
            return
        if not self._owes_answer():
            body = msgspec.json.encode(problem_of(failure))
            headers = {
                **headers_of(failure),
                "Content-Type": MEDIA_TYPE,
                "Content-Length": str(len(body)),
                "Connection": "close",
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(STATUS_LINE[status_of(failure)] + lines.encode() + b"\r\n" + body)
        self._end()

    def _end(self) -> None:
        """Read no more, and close when what is owed is answered."""
        self._ended = True
        self._head_is_there()
        self.pipeline.clear()
        running = self._running
        if running is not None and self._owes_answer():
            running.keep_alive = False
            return
        if running is not None and self._is_answering():
            running.disconnected = True  # its body will not come
            running.message_event.set()
        self.transport.close()
        self._watch_reader()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_read = True

    def _watch_reader(self) -> None:
        """See to it that what is to be sent is taken: neither a full buffer nor a closed connection waits for ever."""
        if self._unread_timer is None:
            self._unread, self._was_read = self.transport.get_write_buffer_size(), False
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._unread_timer = None
        left = self.transport.get_write_buffer_size()
        if not left:
            return
        if left < self._unread or self._was_read:
            self._watch_reader()
        else:
            self.transport.abort()
