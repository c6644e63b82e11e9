"""What a connection may do before and after a request is the application's: bounds that uvicorn itself does not have.

A head has a size and a time, so have a body and what stands around it, and the application is asked when the body is
there: until then a request is its head, a timer and a buffer, and the buffers of all have a bound. An answer that
nobody reads is not kept; an offer to upgrade is passed over; what can't be read as HTTP is told so as all errors are.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from rookery.domain.errors import Failure, Unavailable
from rookery.domain.tallies import Reading, Tally
from rookery.web.decoding import MAX_BODY_BYTES
from rookery.web.gone import ending_with_client, is_safe
from rookery.web.heads import bad_coding, bad_version, check_head, origin_form
from rookery.web.origins import limited_as
from rookery.web.outward import Outward, answer_to
from rookery.web.problems import Refusal
from rookery.web.sockets import has_failed, is_half_closed
from rookery.web.unread import Unread

MAX_HEAD_BYTES = 32 * 1024
"""Request line and headers together."""
MAX_HEADERS = 128
"""Each costs some hundred bytes of memory, however short it is; browsers send twenty."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""All together that a process keeps of requests which are not all there, or wait behind another; about."""
SLICE_BYTES = 4 * 1024
"""So much is parsed at once: a segment may hold ten thousand requests, and each parsed one costs two kilobytes."""
MAX_AROUND_BODY_BYTES = 512 * 1024
"""Sizes of chunks, their extensions, and trailers: more than 64 KiB need that come in chunks of a byte each."""
HEAD_SECONDS = 4.0
"""From the connection, or on a kept one from a request's first byte, until its head is there."""
BODY_SECONDS = 4.0
"""From the head until the body is there; 64 KiB take less on any line that is alive."""
_SLOW_HEAD = Refusal(408, "slow_head", "The request's head did not arrive in time.")
_SLOW_BODY = Refusal(408)
_LONG_HEAD = Refusal(431)
_LONG_BODY = Refusal(413)
_UNREADABLE = Refusal(400)
_SAID_OF = {
    "Invalid HTTP version": bad_version(),
    "Pause on PRI/Upgrade": bad_version(),
    "Invalid `Transfer-Encoding` header value": bad_coding(),
    "Request has invalid `Transfer-Encoding`": bad_coding(),
}
"""What the parser says of requests that can be read well enough to say more than 400."""
LOOK_SECONDS = 0.02
"""After how long it is looked first whether a client that nothing is read from is still there; then ever more rarely,
as thousands may be waited for and a look is up to three calls of the system."""
MOST_LOOK_SECONDS = 0.25
_BUSY = Unavailable("busy", "Too many bodies are on their way; try again in a moment.")
_REQUEST_BYTES = 2_048
"""What a request costs in memory beside its head and body."""
_HEADER_BYTES = 150
"""What a header does beside its letters."""
_LENGTH_DIGITS = 9
"""A declared length of more is too long."""


class Connections:
    """A server's connections: what makes them, and how often one ended before the application was asked."""

    def __init__(self) -> None:
        self.refused: Tally[str] = Tally()
        self.unread = Unread()
        self._held_bytes = 0
        self._holding: dict[BoundedProtocol, int] = {}

    def __call__(self, **given: Any) -> "BoundedProtocol":
        """A new one."""
        return BoundedProtocol(self, **given)

    def hold(self, connection: "BoundedProtocol", size: int) -> None:
        """Note how much a connection keeps. Past the bound of all, those who keep most are refused."""
        self._held_bytes += size - self._holding.pop(connection, 0)
        if size:
            self._holding[connection] = size
            if self._held_bytes > MAX_HELD_BYTES:
                self._make_room()

    def _make_room(self) -> None:
        """An eighth of all, so that thousands who come with little are not each looked through for one."""
        for connection in sorted(self._holding, key=self._holding.__getitem__, reverse=True):
            if self._held_bytes <= MAX_HELD_BYTES * 7 // 8:
                break
            connection.give_way()

    def readings(self) -> Iterable[Reading]:
        """Why requests were refused, and what is kept of those that are not all there."""
        yield Reading(
            "requests_held_bytes", "What is kept of requests that wait for their rest or for others.", self._held_bytes
        )
        for code, many in self.refused.items():
            yield Reading(
                "connections_refused_total",
                "Connections that ended with a request that was too long, too late, not all there, or no HTTP.",
                many,
                {"code": code},
            )
        yield from self.unread.readings()


class _Flow(FlowControl):
    """uvicorn's, which reads on as soon as a request is answered; here only when nothing waits that was read before."""

    is_behind = False

    def resume_reading(self) -> None:
        if not self.is_behind:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with these bounds."""

    def __init__(self, all_of_them: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._all = all_of_them
        self._late_timer: asyncio.TimerHandle | None = None
        """Runs while a head or a body is to come."""
        self._held: tuple[RequestResponseCycle, Any] | None = None
        """The request whose body is to come, and the application."""
        self._to_parse = b""
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0
        """What the newest request's head costs in memory."""
        self._is_upgrade = False
        self._around = 0
        """Bytes that came since the message began or its head ended and are not its body's."""
        self._unfinished = 0
        """Of those, what came since the last of the body: the parser keeps a trailer until it is whole."""
        self._running: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the newest, which may wait behind it."""
        self._task: asyncio.Task[None] | None = None
        """What answers it."""
        self._gone_timer: asyncio.TimerHandle | None = None
        """Runs while the application is at work for a client that nothing is read from."""
        self._is_half_closed = False
        """Whether the client has said that it sends no more."""
        self._is_last = False
        """Whether the head that is to come is the last one."""
        self._ended = False

    # --- what comes in -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type] # its own type is narrower than asyncio's
        self.flow: _Flow = _Flow(self.transport)
        owner = limited_as(self.client[0]) if self.client else ""
        self._outward = Outward(self.transport, self.loop, self._all.unread, owner)
        self._await_head()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's own never stays, as asyncio lets it
        """Answer what is all here, also to whoever says that he sends no more; and close then."""
        if not (self._owes_answer() or self._outward.has_rest):
            return False
        self._is_half_closed = True
        if not self._ended:
            self._end()
        self._await_sign_of_life()
        return True

    def _await_sign_of_life(self, seconds: float | None = None) -> None:
        """Look soon, where nothing is read that would tell of the client's end.

        Only while the application is at work: what waits for the client to read has something to send, which tells.
        """
        is_deaf = self._is_half_closed or self.flow.is_behind
        if self._gone_timer is None and is_deaf and self._is_answering():
            seconds = LOOK_SECONDS if seconds is None else seconds
            self._gone_timer = self.loop.call_later(seconds, self._look_whether_gone, seconds)

    def _look_no_more(self) -> None:
        if self._gone_timer is not None:
            self._gone_timer.cancel()
            self._gone_timer = None

    def _look_whether_gone(self, seconds: float) -> None:
        """A client that is gone looks like one that only sends no more, until its system refuses what it is sent."""
        self._gone_timer = None
        if has_failed(self.transport):
            self._outward.cut()
            return
        is_safe_one = self._running is not None and self._is_answering() and is_safe(self._running)
        if is_safe_one and (self._is_half_closed or is_half_closed(self.transport)):
            self._outward.send_start()
        self._await_sign_of_life(min(2 * seconds, MOST_LOOK_SECONDS))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._held:
            self._all.refused.add("incomplete_body")
        self._drop_waiting()
        self._take_no_more()
        self._unset_keepalive_if_required()
        self._outward.lost()
        self._look_no_more()
        if self._running is not None:
            self._disconnect(self._running)
            if self._task is not None and self._is_answering() and is_safe(self._running):
                self._task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._ended:
            self._to_parse += data
            self._go_on()

    def _go_on(self) -> None:
        """Parse what came until a request waits behind another."""
        came, at = self._to_parse, 0
        while at < len(came) and not self.pipeline and not self._ended:
            self._parse(came[at : at + SLICE_BYTES])
            at += SLICE_BYTES
            if self._held:
                self._await_body(self._held[0], is_all=at >= len(came))
        if self._ended:
            self._all.hold(self, self._kept_bytes())
            return
        self._to_parse = came[at:]
        if self._held:
            self._await_body(self._held[0], is_all=True)
        self.flow.is_behind = bool(self._to_parse or self.pipeline)
        if self.flow.is_behind:
            self.flow.pause_reading()
            self._await_sign_of_life()
        self._outward.is_quiet = not (self.flow.is_behind or self._in_head or self._in_body)
        self._all.hold(self, self._kept_bytes())
        if self._is_idle():  # the rest of a body that was not waited for is there
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _is_idle(self) -> bool:
        """Whether nothing is under way, and nobody waits for it."""
        is_waited_for = self._late_timer is not None or self.timeout_keep_alive_task is not None
        return not (self._ended or self._held or self.pipeline or is_waited_for or self._is_answering())

    def _kept_bytes(self) -> int:
        """About what is kept of requests that are not being answered yet."""
        kept = len(self._to_parse)
        for cycle, _ in self.pipeline:
            headers = cast("list[tuple[bytes, bytes]]", cycle.scope["headers"])
            kept += _REQUEST_BYTES + _size_of(cycle.scope["raw_path"], headers) + _HEADER_BYTES * len(headers)
            kept += len(cycle.body)
        if self._ended:
            return kept
        if self._in_body:
            kept += self._unfinished
        if self._in_head:
            kept += _REQUEST_BYTES + self._around + _HEADER_BYTES * len(self.headers)
        elif self._held:
            kept += _REQUEST_BYTES + self._head_bytes + len(self._held[0].body)
        return kept

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._late_timer is None and not self._held and not self._is_answering():
            self._await_head()  # also while nothing but line ends comes, or the rest of a body that nobody waits for
        self._around += len(data)
        self._unfinished += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.refuse(_SAID_OF.get(str(error), _UNREADABLE))
            return
        if self._in_head and self._around > MAX_HEAD_BYTES:
            self.refuse(_LONG_HEAD)
        elif self._around > MAX_AROUND_BODY_BYTES or (self._in_body and self._unfinished > MAX_HEAD_BYTES):
            self.refuse(_LONG_BODY)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    self.refuse(_UNREADABLE)
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
        if self._ended:
            return
        super().on_message_begin()
        self._in_head, self._in_body = True, False
        self._is_upgrade = False
        self._around = 0
        self._stop_waiting()  # a timer that is left from what came before
        self._await_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer, which nothing here asks for
            super().on_header(name, value)
            if len(self.headers) > MAX_HEADERS:
                self.refuse(_LONG_HEAD)

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        size = _size_of(self.url, self.headers)
        self._head_bytes = size + _HEADER_BYTES * len(self.headers)
        self._in_head = False
        self._around = self._unfinished = 0
        self._stop_waiting()
        if size > MAX_HEAD_BYTES:
            self.refuse(_LONG_HEAD)
            return
        try:
            check_head(self.parser.get_http_version(), self.headers)
            self.url = origin_form(self.url, self.headers)
        except Refusal as refusal:
            self._outward.is_quiet = False  # a body may come
            self.refuse(refusal)
            return
        self._is_upgrade = self.parser.should_upgrade()
        if not self._is_upgrade:
            super().on_headers_complete()
            self.cycle.keep_alive &= not self._is_last
            self.cycle.transport = cast("asyncio.Transport", self._outward)
            self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._around -= len(body)
        self._unfinished = 0
        if self._ended or len(self.cycle.body) > MAX_BODY_BYTES:  # no more of it is needed to refuse it
            return
        super().on_body(body)
        if self._held:
            self.flow.resume_reading()  # uvicorn stops at so many bytes until the application asks

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self._ended and not self._is_upgrade:
            super().on_message_complete()
            self._stop_waiting()
            self._let_in()

    def _await_head(self) -> None:
        self._late_timer = self.loop.call_later(HEAD_SECONDS, self._is_late)

    def _await_body(self, cycle: RequestResponseCycle, *, is_all: bool) -> None:
        """Wait for what did not come yet. If it is too much, the application need not wait to say so.

        `is_all` says that what came was looked at to its end.
        """
        begun = self._late_timer is None
        if begun:
            self._late_timer = self.loop.call_later(BODY_SECONDS, self._is_late)
        if len(cycle.body) > MAX_BODY_BYTES or (begun and _declares_too_much(cycle)):
            cycle.keep_alive &= not cycle.waiting_for_100_continue  # its body will not come
            self._let_in()
        elif cycle.waiting_for_100_continue and is_all:
            cycle.waiting_for_100_continue = False
            if cycle.scope["http_version"] == "1.1":
                self._outward.say(STATUS_LINE[100] + b"\r\n")

    def _stop_waiting(self) -> None:
        if self._late_timer is not None:
            self._late_timer.cancel()
            self._late_timer = None

    def _is_late(self) -> None:
        self._late_timer = None
        if self._in_head and self.flow.is_behind:
            self._await_head()  # it is we who are late
        elif self._in_head:
            self.refuse(_SLOW_HEAD)
        elif self._held or self._is_body_awaited():
            self.refuse(_SLOW_BODY)
        else:
            self._end()

    # --- what goes out -----------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.flow.write_paused:  # begun, it would wait inside the application until the answers before are read
            self.pipeline.append((cycle, app))
            return
        self._held = cycle, app
        if not cycle.more_body:
            self._let_in()

    def _let_in(self) -> None:
        if self._held:
            held, self._held = self._held, None
            self._running = held[0]
            self._outward.begin_answer()
            held[0].waiting_for_100_continue = False  # it was told, or needed not be
            self._task = self.loop.create_task(held[0].run_asgi(ending_with_client(*held)))
            self._task.add_done_callback(self.tasks.discard)
            self.tasks.add(self._task)
            self._await_sign_of_life()

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _is_body_awaited(self) -> bool:
        """Whether a request is with the application that is not all there, and its answer has not begun."""
        running = self._running
        return running is not None and self._is_answering() and running.more_body and not running.response_started

    def _owes_answer(self) -> bool:
        """Whether a request that is all here is being answered, or one whose answer has begun; others may wait.

        Or whether one waits to be answered until the client has read the answers before it.
        """
        if self._is_answering():
            return not self._is_body_awaited()
        return bool(self.pipeline) and not self.pipeline[-1][0].more_body

    def refuse(self, failure: Failure) -> None:
        """Answer what never becomes a request, and close; answers that are owed are the last ones."""
        self._refuse(failure, is_answered=self._is_answered())

    def _refuse(self, failure: Failure, *, is_answered: bool) -> None:
        if self._ended:
            return
        if not (self._in_body and is_answered):  # else one request would have two answers
            self._all.refused.add(failure.code)
            if not self._owes_answer():
                self._outward.say(answer_to(failure))
        self._end()

    def give_way(self) -> None:
        """Be refused, to make room for others. Nothing that waits was begun, so whoever sent it may send it again."""
        is_answered = self._is_answered()
        self._drop_waiting()
        if not self._ended:
            self._refuse(_BUSY, is_answered=is_answered)
            return
        if self._running is not None:
            self._running.keep_alive = False
        self._all.hold(self, self._kept_bytes())

    def _is_answered(self) -> bool:
        """Whether the newest request is."""
        return self._running is not None and not (self._is_answering() or self._held or self.pipeline)

    def _end(self) -> None:
        """Read no more, and close when what is owed is answered."""
        self._take_no_more()
        if self._running is not None and self._owes_answer():
            last = self.pipeline[0][0] if self.pipeline else self._running
            last.keep_alive = False
        else:
            self._give_up_running()
            self._outward.close()
            self.flow.resume_reading()

    def _take_no_more(self) -> None:
        """Keep nothing of what came but requests that are whole and wait to be answered."""
        self._ended = True
        self._stop_waiting()
        if self._held:
            _forget(self._held[0])
            self._held = None
        if self._to_parse or self._in_head or self._in_body:
            self._outward.is_quiet = False
        self._to_parse = b""
        self.flow.is_behind = False
        if self.pipeline and self.pipeline[0][0].more_body:
            _forget(self.pipeline.popleft()[0])
        self._all.hold(self, self._kept_bytes())

    def _drop_waiting(self) -> None:
        while self.pipeline:
            _forget(self.pipeline.pop()[0])

    def _give_up_running(self) -> None:
        """Tell an application that waits for a body that it will not come."""
        if self._running is not None and self._is_answering():
            self._disconnect(self._running)

    def _disconnect(self, cycle: RequestResponseCycle) -> None:
        cycle.disconnected = True
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        if self._running is not None:
            self._running.body = bytearray()  # which nobody may have asked for
        self._look_no_more()
        self._outward.send_head()  # of HEAD's answer, before somebody closes
        if self._outward.is_closing():
            self.server_state.total_requests += 1
            self._drop_waiting()
            self._take_no_more()
        else:
            super().on_response_complete()
            self._go_on()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        if self._outward.is_leaving:
            self._outward.close_now()
        elif self._in_head and not self._is_answering() and not self.pipeline:
            self._is_last = True  # it is the next thing that is owed
        elif self._in_body and self._is_answered():
            self._end()  # he still sends, and shall read it
        elif not self._is_answering() and not self.pipeline and not self._held:
            self._outward.close_now()
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        self._outward.close_now()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._outward.pause()

    def resume_writing(self) -> None:
        self._outward.resume()
        if not self._outward.is_paused:
            super().resume_writing()
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Begin the request that waited until the answers before it were read, and parse on."""
        if self.pipeline and not (self._held or self._is_answering()):
            self._start_asgi_task(*self.pipeline.pop())
            self._go_on()
            self.flow.resume_reading()


def _forget(cycle: RequestResponseCycle) -> None:
    """Let go of a request that nobody will answer: it holds its connection, and that holds it."""
    cycle.on_response = _do_nothing
    cycle.body = bytearray()


def _do_nothing() -> None: ...


def _size_of(target: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """What a head has in bytes on its way, but for its method and version."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def _declares_too_much(cycle: RequestResponseCycle) -> bool:
    declared = next((size for name, size in cycle.scope["headers"] if name == b"content-length"), b"").strip()
    digits = declared.lstrip(b"0")  # as many as one likes
    return len(digits) > _LENGTH_DIGITS or int(digits or b"0") > MAX_BODY_BYTES
