"""What goes out on a connection: an answer is waited for as long as somebody reads it, and no longer."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from rookery.domain.errors import Failure
from rookery.web.problems import MEDIA_TYPE, Problem, headers_of, problem_of, status_of
from rookery.web.sockets import keep_little_unsent, unacknowledged
from rookery.web.unread import Unread

LINGER_SECONDS = 1.5
"""How long what comes is passed over at the end: a close at once would take the answer from who still sends."""
UNREAD_SECONDS = 30.0
"""How often it is looked whether the client reads what it is sent."""
LEAST_BYTES_PER_SECOND = 1_024
"""Bytes a second that a client takes of a long answer, on average between two looks; one that takes fewer is cut."""
PIECE_BYTES = 16 * 1024
"""So much of an answer is given to the transport at once; a client that does not read costs twice that at most."""
ANSWER_START = b"HTTP/1.1 "
"""Every answer begins so, whatever its status."""
_REFUSALS = 64
"""Answers that are kept ready: thousands may be due at once, and a connection is refused for few reasons."""


class _Rest:
    """What is left of a part of an answer, which stays one object with what other connections send of it."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def take(self) -> bytes:
        """The next piece, by itself: a view would keep the whole body for as long as the transport has it."""
        piece = self.data[self.at : self.at + PIECE_BYTES]
        self.at += len(piece)
        return piece

    def __len__(self) -> int:
        return len(self.data) - self.at


class Outward:
    """A transport as answers go out by it: a head with the start of its body by one write, the rest as it is read.

    So a server that dies leaves all of a short answer or nothing, if it fits the socket's buffer. Of a long one the
    transport has a piece of its own and this has the body, so that one that many are sent is in memory once. Where
    the client may still send, a close comes after they had time to read. It knows nothing of its connection, which
    would then be freed by the garbage collector only.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, unread: Unread, owner: str
    ) -> None:
        self._transport = transport
        self.owner = owner
        """The client, or the proxy that it comes through, as it is limited."""
        self._loop = loop
        self._all = unread
        self._timer: asyncio.TimerHandle | None = None
        self.is_quiet = True
        """Whether all has come that was begun."""
        self.is_leaving = False
        """Whether nothing more is said, but what comes is still taken."""
        self._is_lost = False
        self._unread_timer: asyncio.TimerHandle | None = None
        self._taken_before = 0
        """What the client had taken at the last look."""
        self._given = 0
        """Bytes written to the transport since the connection was made."""
        self._held = 0
        """Bytes that the process was last told to be kept here."""
        self._is_head_due = False
        self._is_begun = False
        """Whether the start of the answer that is due is sent already."""
        self._head = b""
        self.is_paused = False
        """Whether the transport has enough for now."""
        self._rest: deque[_Rest] = deque()
        """What the transport is not given yet. While there is any, it has enough."""
        self._at_end: Callable[[], None] | None = None
        """How to close when the rest is sent."""
        transport.set_write_buffer_limits(high=PIECE_BYTES)
        keep_little_unsent(transport)

    def begin_answer(self) -> None:
        """What is written next is a head."""
        self.send_head()
        self._is_head_due = True

    def send_start(self) -> None:
        """Send what every answer begins with, if one is due and nothing of it is sent: the system tells who is gone."""
        if self._is_head_due and not (self._is_begun or self._rest or self.is_closing()):
            self._is_begun = True
            self._give(ANSWER_START)

    def write(self, data: bytes) -> None:
        """Send it; a head with what comes right after it, or by itself."""
        if self.is_leaving or self._at_end:
            return
        if self._is_head_due:
            self._is_head_due, self._head = False, data
            if self._is_begun:
                self._is_begun, self._head = False, data.removeprefix(ANSWER_START)
            self._loop.call_soon(self.send_head)
        else:
            head, self._head = self._head, b""
            self._send(head, data)

    def say(self, data: bytes) -> None:
        """Send what is no part of an answer that was begun, behind it."""
        self.send_head()
        self._send(b"", data)

    def send_head(self) -> None:
        """Send a head that no body followed so far."""
        if self._head:
            head, self._head = self._head, b""
            self._send(head, b"")

    def _send(self, head: bytes, body: bytes) -> None:
        if self._is_lost:
            return
        if self._rest:
            self._keep(head, 0)
            self._keep(body, 0)
        else:
            self._give(head + body[:PIECE_BYTES])
            self._keep(body, PIECE_BYTES)
            self._send_rest()
        self._note()

    def _give(self, data: bytes) -> None:
        self._given += len(data)
        self._transport.write(data)

    def _keep(self, data: bytes, at: int) -> None:
        if at < len(data):
            self._all.share(data)
            self._rest.append(_Rest(data, at))

    def _send_rest(self) -> None:
        while self._rest and not self.is_paused:
            self._give(self._rest[0].take())
            if not self._rest[0]:
                self._all.unshare(self._rest.popleft().data)
        if not self._rest and self._at_end:
            at_end, self._at_end = self._at_end, None
            at_end()

    def _note(self) -> None:
        size = self.kept()
        if size != self._held:
            self._held = size
            self._all.hold(self, size)

    @property
    def has_rest(self) -> bool:
        """Whether a part of an answer is still to be given to the transport."""
        return bool(self._rest)

    def kept(self) -> int:
        """Bytes that the transport keeps for this connection."""
        return 0 if self._is_lost else self._transport.get_write_buffer_size()

    def bodies(self) -> Sequence[bytes]:
        """What is left to be sent, of which the transport has nothing or a part."""
        return [rest.data for rest in self._rest]

    def pause(self) -> None:
        """Note that the transport has enough."""
        self.is_paused = True
        self.watch_reader()

    def resume(self) -> None:
        """Go on: the client has read most of what the transport had."""
        self.is_paused = False
        self._send_rest()
        self._note()
        if not (self.is_paused or self.is_closing()):
            self._unwatch()

    def is_closing(self) -> bool:
        """Whether nothing more can be said."""
        return self.is_leaving or self._at_end is not None or self._transport.is_closing()

    def close(self) -> None:
        """Say nothing more, and close at once or soon."""
        self.send_head()
        if self.is_quiet or not self._transport.can_write_eof():
            self.close_now()
        elif not self.is_closing():
            self.is_leaving = True
            self._when_sent(self._leave)

    def _leave(self) -> None:
        self._transport.write_eof()
        self._timer = self._loop.call_later(LINGER_SECONDS, self._transport.close)

    def close_now(self) -> None:
        """Take nothing more either."""
        self._when_sent(self._transport.close)

    def _when_sent(self, close: Callable[[], None]) -> None:
        if self._rest:
            self._at_end = close
        else:
            close()
        self.watch_reader()

    def cut(self) -> None:
        """Close at once, whatever was not read."""
        self._transport.abort()
        self._drop_rest()

    def _drop_rest(self) -> None:
        while self._rest:
            self._all.unshare(self._rest.popleft().data)

    def watch_reader(self) -> None:
        """See to it that what is to be sent is taken: neither a full buffer nor a closed connection waits for ever."""
        if self._unread_timer is None and not self._is_lost:
            self._taken_before = self._taken()
            self._unread_timer = self._loop.call_later(UNREAD_SECONDS, self._look_at_reader)

    def _taken(self) -> int:
        return self._given - self.kept() - unacknowledged(self._transport)

    def _look_at_reader(self) -> None:
        self._unread_timer = None
        if not (self._rest or self._transport.get_write_buffer_size()):
            return
        if self._taken() - self._taken_before >= LEAST_BYTES_PER_SECOND * UNREAD_SECONDS:
            self.watch_reader()
        else:
            self.cut()

    def _unwatch(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def lost(self) -> None:
        """When there is nothing left to be closed."""
        self._is_lost = True
        self._head, self._at_end = b"", None
        self._drop_rest()
        self._note()
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def answer_to(failure: Failure) -> bytes:
    """All of the answer, which ends the connection."""
    return _answer(status_of(failure), tuple(headers_of(failure).items()), problem_of(failure))


@lru_cache(_REFUSALS)
def _answer(status: int, headers: tuple[tuple[str, str], ...], problem: Problem) -> bytes:
    """The answer by its values: as a key, the failure itself would keep all of its request."""
    body = msgspec.json.encode(problem)
    own = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (dict(headers) | own).items())
    return STATUS_LINE[status] + lines.encode() + b"\r\n" + body
