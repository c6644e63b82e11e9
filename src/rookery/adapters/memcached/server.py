"""One memcached server and the connection to it, kept open in the background.

A server that does not answer is left alone at once (the circuit opens): commands fail without waiting until a new
connection has answered. Its keys are never moved elsewhere: they would be there twice when it comes back.
"""

import asyncio
import logging
from contextlib import suppress

from rookery.adapters.memcached.connection import Broken, Connection, Reply

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 0.5
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Server:
    """A server by its address, `host:port` or the path of a socket. `run` keeps it connected."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self._dial = address
        self._timeout = timeout
        self._connection: Connection | None = None

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
        """Open a connection and hear it answer; whether it did."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._open()
            await connection.send(b"")
        except (OSError, TimeoutError, Broken):
            return False
        self._connection = connection
        return True

    async def run(self) -> None:
        """Keep the server connected until cancelled."""
        pause, was_told = _FIRST_PAUSE, False
        while True:
            connection = self.connection
            if connection is not None or await self.connect():
                if was_told:
                    _log.warning("memcached %s answers again", self.address)
                pause, was_told = _FIRST_PAUSE, False
                if self._connection is not None:
                    await asyncio.shield(self._connection.closed)
                continue
            if not was_told:
                _log.warning("memcached %s does not answer", self.address)
                was_told = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        host, _, port = self._dial.rpartition(":")
        with suppress(ValueError):
            made = await loop.create_connection(lambda: Connection(self._timeout), host.strip("[]"), int(port))
            return made[1]
        raise OSError(f"{self.address} is not an address")
