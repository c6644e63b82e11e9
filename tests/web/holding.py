"""A server on a real socket, in a thread of its own, whose event loop is measured: CPU time of each callback."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import uvicorn

from rookery.config import Settings
from rookery.web.connections import Connections
from rookery.web.options import Services
from rookery.wiring import open_server

T = TypeVar("T")

LIMIT_SECONDS = 0.02
"""CPU time for which one callback may hold the event loop."""
REPEATS = 4
"""How often a request beyond the limit is sent again. The least of all counts: other work can only add to it."""
PROXY = "127.0.0.2"
"""An address of this machine that the server takes for a trusted proxy."""
_ANSWER_SECONDS = 60.0


class Holds:
    """The longest callback of one thread's event loop since the last `reset`, in CPU seconds.

    Garbage collections are left out: what they cost goes by all the objects of the process, here those of the test
    runner, too. A server freezes what is there when it starts.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.thread = 0
        self._collecting = 0.0
        self._collected = 0.0

    def reset(self) -> None:
        self.longest = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure all callbacks that the loop runs meanwhile."""
        run_plainly = cast("Any", asyncio.Handle)._run

        def run(handle: asyncio.Handle) -> None:
            if threading.get_ident() != self.thread:
                run_plainly(handle)
                return
            self._collected = 0.0
            begun = time.thread_time()
            run_plainly(handle)
            self.longest = max(self.longest, time.thread_time() - begun - self._collected)

        cast("Any", asyncio.Handle)._run = run
        gc.callbacks.append(self._on_collection)
        try:
            yield
        finally:
            cast("Any", asyncio.Handle)._run = run_plainly
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _: dict[str, int]) -> None:
        if threading.get_ident() != self.thread:
            return
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting


@dataclass(frozen=True)
class Ask:
    """A request as it is sent, with a name to tell it by."""

    name: str
    method: str
    target: bytes
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    more: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that may have a name twice."""
    body: bytes = b""

    def sent(self) -> bytes:
        headers = {b"Host": b"127.0.0.1", **self.headers}
        if self.body:
            headers[b"Content-Length"] = b"%d" % len(self.body)
        lines = b"".join(b"%b: %b\r\n" % line for line in (*headers.items(), *self.more))
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (self.method.encode(), self.target, lines, self.body)


class Held:
    """A running server. It is asked for one thing at a time, so the longest callback is of that."""

    def __init__(self, holds: Holds, loop: asyncio.AbstractEventLoop, services: Services, port: int) -> None:
        self.holds = holds
        self.services = services
        self._loop = loop
        self._port = port
        self._connections: dict[str, Any] = {}

    def run(self, awaitable: Callable[[], Awaitable[T]]) -> T:
        """The result of what is done on the server's own loop."""

        async def wait() -> T:
            return await awaitable()

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(_ANSWER_SECONDS)

    def cost(self, ask: Ask, source: str = "127.0.0.1") -> float:
        """CPU seconds of the longest callback of a request."""
        costs = []
        for _ in range(1 + REPEATS):
            self.holds.reset()
            status, _, _ = self.send(ask, source)
            self._wait_for_callbacks()
            assert status < 500 or status in (501, 503), (ask.name, status)
            costs.append(self.holds.longest)
            if costs[-1] <= LIMIT_SECONDS:
                break
        return min(costs)

    def _wait_for_callbacks(self) -> None:
        """An answer is there before the callback that wrote it has ended."""
        is_next = threading.Event()
        self._loop.call_soon_threadsafe(is_next.set)
        assert is_next.wait(_ANSWER_SECONDS)

    def send(self, ask: Ask, source: str = "127.0.0.1") -> tuple[int, bytes, bytes]:
        """Status, head and body of an answer, on a connection that is kept if the server keeps it."""
        sent = ask.sent()
        kept = self._connections.pop(source, None)
        answers = kept or self._connect(source)
        head = _exchange(answers, sent)
        if not head and kept:  # the server had closed it
            answers = self._connect(source)
            head = _exchange(answers, sent)
        length = head.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0].strip()
        body = answers.read(int(length or b"0")) if ask.method != "HEAD" else b""
        if b"\r\nconnection: close\r\n" in head.lower():
            answers.close()
        else:
            self._connections[source] = answers
        return int(head.split()[1]), head, body

    def _connect(self, source: str) -> Any:
        connection = socket.create_connection(("127.0.0.1", self._port), _ANSWER_SECONDS, (source, 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = connection.makefile("rwb")
        connection.close()  # the file keeps it
        return made

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _exchange(answers: Any, sent: bytes) -> bytes:
    """The head of the answer; nothing where the connection was closed."""
    lines = []
    try:
        answers.write(sent)
        answers.flush()
        while (line := answers.readline()) not in (b"", b"\r\n"):
            lines.append(line)
    except OSError:
        return b""
    return b"".join(lines)


@contextmanager
def holding(data: Path, **settings: Any) -> Iterator[Held]:
    """Run a server on a folder, by the plain event loop, without rate limits."""
    chosen = Settings(data=data, **{"rate_limit": "off", **settings})
    holds, begun = Holds(), threading.Event()
    made: list[Held] = []
    failed: list[Exception] = []

    async def serve() -> None:
        holds.thread = threading.get_ident()
        async with open_server(chosen) as opened:
            http = cast("Any", Connections())
            config = uvicorn.Config(
                cast("Any", opened.app), port=0, http=http, ws="none", lifespan="off", log_config=None
            )
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())  # in a thread it leaves signals alone
            while not server.started:
                await asyncio.sleep(0.001)
            port = server.servers[0].sockets[0].getsockname()[1]
            made.append(Held(holds, asyncio.get_running_loop(), opened.rookery.services, port))
            begun.set()
            await ending.wait()
            server.should_exit = server.force_exit = True
            await serving

    def run() -> None:
        try:
            asyncio.run(serve())
        except Exception as error:  # noqa: BLE001 - raised again by the test's own thread
            failed.append(error)
        finally:
            begun.set()

    ending = asyncio.Event()
    with holds.measured():
        thread = threading.Thread(target=run, name="held server")
        thread.start()
        begun.wait()
        try:
            if made:
                yield made[0]
        finally:
            if made:
                made[0].close()
                made[0].run(lambda: _set(ending))
            thread.join()
    if failed:
        raise failed[0]


async def _set(event: asyncio.Event) -> None:
    event.set()
