"""What the tests of HAProxy ask it by, and servers to stand behind it that note what they are sent."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from tests.serving import Server
from tools.certificates import Authority
from tools.servers import HAProxy


def addresses(servers: list[Server]) -> list[str]:
    return [f"127.0.0.1:{server.port}" for server in servers]


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.certificate)


def client_of(proxy: HAProxy, authority: Authority) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"https://127.0.0.1:{proxy.tls_port}", verify=trusting(authority), timeout=20)


def wait_until_all_are_up(proxy: HAProxy, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while set(proxy.states().values()) != {"UP"}:
        assert time.monotonic() < limit, proxy.states()
        time.sleep(0.05)


class StandIn:
    """A server that is always ready, and answers with nothing but 200, or ends each POST without an answer."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        """How often it was sent what, by path."""
        self.address = ""
        self._breaks = False
        self._connections: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self, *, breaks: bool = False) -> AsyncIterator["StandIn"]:
        self._breaks = breaks
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                method, path, *_ = head.split()
                self.sent[path] += 1
                if method == "post" and self._breaks:
                    break
                await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0] or 0))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self._connections.discard(writer)
        writer.close()


@asynccontextmanager
async def before(folder: Path, servers: Sequence[StandIn], certificate: Path) -> AsyncIterator[HAProxy]:
    """An HAProxy before stand-ins of this process, which has to go on meanwhile."""
    proxy = HAProxy(folder / "before", [server.address for server in servers], certificate)
    await asyncio.to_thread(proxy.start)
    try:
        await asyncio.to_thread(wait_until_all_are_up, proxy)
        yield proxy
    finally:
        await asyncio.to_thread(proxy.stop)
