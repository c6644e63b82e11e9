"""Rookery itself, on servers that were started before it."""

import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.servers.process import Failed, Process


def apply_schema(flags: Sequence[str]) -> None:
    """Make the tables that the servers need.

    Raises:
        Failed: when they can't be made.
    """
    command = [sys.executable, "-m", "rookery", "schema", "apply", *flags]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise Failed(f"rookery schema apply: {made.stderr}")


class Rookery(Process):
    """One `rookery serve` on a port; `folder` has its log, `data` its data, which several may share."""

    start_seconds = 60.0
    stop_seconds = 30.0

    def __init__(self, folder: Path, data: Path, port: int, flags: Sequence[str]) -> None:
        super().__init__(folder)
        self._data = data
        self._port = port
        self._flags = flags

    def command(self) -> Sequence[str]:
        where = ("--data", str(self._data), "--port", str(self._port), "--auth", "open")
        return [sys.executable, "-m", "rookery", "serve", *where, *self._flags]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), 5) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return b" 200 OK" in connection.recv(1_000)
        except OSError:
            return False
