"""One memcached server and the connection to it, kept open in the background.

A server that does not answer is left alone at once (the circuit opens): commands fail without waiting until a new
connection has answered. Its keys are never moved elsewhere: they would be there twice when it comes back.
"""

import asyncio
import logging

from rookery.adapters.memcached.connection import Broken, Connection, Reply

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 0.5
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Server:
    """A server by its address, `host:port`. `run` keeps it connected."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self._dial = address
        self._timeout = timeout
        self._connection: Connection | None = None
        self._dialing: asyncio.Task[bool] | None = None
        self._pause = self._retry_at = 0.0

    @property
    def connection(self) -> Connection | None:
        """The connection, if there is one that answers. Tokens of a swap are good on this one only."""
        found = self._connection
        return found if found is not None and found.is_open else None

    async def send(self, commands: bytes) -> list[Reply]:
        """Send quiet commands; what they had to say.

        Raises:
            Broken: also at once while there is no connection.
        """
        connection = self.connection
        if connection is None:
            raise Broken("no connection")
        return await connection.send(commands)

    async def connect(self) -> bool:
        """See that there is a connection that answers; whether there is. After a failure it is not tried at once."""
        if self.connection is not None:
            return True
        if asyncio.get_running_loop().time() < self._retry_at:
            return False
        if self._dialing is None:
            self._dialing = asyncio.create_task(self._try_to_open(), name=f"memcached {self.address}")
        return await asyncio.shield(self._dialing)

    async def run(self) -> None:
        """Keep the server connected until cancelled."""
        while True:
            await self.connect()
            connection = self.connection
            if connection is not None:
                await asyncio.shield(connection.closed)
            else:
                await asyncio.sleep(max(_FIRST_PAUSE, self._retry_at - asyncio.get_running_loop().time()))

    def close(self) -> None:
        """End the connection; `run` opens another."""
        if self._connection is not None:
            self._connection.close()

    async def stop(self) -> None:
        """End the connection and what is under way to open one."""
        if self._dialing is not None:
            self._dialing.cancel()
            await asyncio.gather(self._dialing, return_exceptions=True)
        self.close()

    async def _try_to_open(self) -> bool:
        try:
            connection = await self._open()
        except (OSError, TimeoutError, Broken):
            if not self._pause:
                _log.warning("memcached %s does not answer", self.address)
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
            self._retry_at = asyncio.get_running_loop().time() + self._pause
            return False
        finally:
            self._dialing = None
        if self._pause:
            _log.warning("memcached %s answers again", self.address)
        self._pause = self._retry_at = 0.0
        self._connection = connection
        return True

    async def _open(self) -> Connection:
        """A connection that has answered."""
        host, _, port = self._dial.rpartition(":")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(lambda: Connection(self._timeout), host.strip("[]"), int(port))
        try:
            await connection.send(b"")
        except BaseException:
            connection.close()
            raise
        return connection
