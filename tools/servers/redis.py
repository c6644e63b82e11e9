"""Redis, with its append-only file."""

import socket
from collections.abc import Sequence
from pathlib import Path

from tools.servers.installing import require
from tools.servers.process import Process, free_port


class Redis(Process):
    """One Redis with AOF. It keeps port and data over its starts."""

    def __init__(self, folder: Path, *, fsync: str = "everysec", port: int = 0) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self._fsync = fsync

    @property
    def address(self) -> str:
        """`host:port`, as the setting `ranking.servers` takes it."""
        return f"127.0.0.1:{self.port}"

    @property
    def append_only_folder(self) -> Path:
        """Where its AOF is: a base file, increments and a manifest."""
        return self.folder / "appendonlydir"

    def command(self) -> Sequence[str]:
        program = require("redis-server", "redis-server")
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "save": "",
            "daemonize": "no",
        }
        return [program, *(part for name, value in options.items() for part in (f"--{name}", value))]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
