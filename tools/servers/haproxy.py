"""HAProxy, with the configuration that we ship or another."""

import http.client
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.servers.installing import require
from tools.servers.process import Process, free_port

SHIPPED = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"


class HAProxy(Process):
    """One HAProxy before two servers (`host:port`), with a PEM file of its key and certificate.

    `unlimited` is whom the limits of one address leave out, if not loopback as in the file.
    """

    def __init__(
        self, folder: Path, servers: Sequence[str], certificate: Path, *, file: Path = SHIPPED, unlimited: str = ""
    ) -> None:
        super().__init__(folder)
        self.port, self.tls_port, self.statistics_port = free_port(), free_port(), free_port()
        self._servers = servers
        self._certificate = certificate
        self._file = file
        self._unlimited = unlimited

    def command(self) -> Sequence[str]:
        program, file = require("haproxy", "haproxy"), self._file
        if os.geteuid():  # only root can become somebody else
            file = self.folder / "haproxy.cfg"
            lines = self._file.read_text().splitlines(keepends=True)
            file.write_text("".join(line for line in lines if line.split()[:1] not in (["user"], ["group"])))
        return [program, "-W", "-f", str(file)]  # as its service runs it: a master, which can be told to reload

    def reload(self) -> None:
        """Have it read its files again, as `systemctl reload` does. A new process takes over from the old one."""
        self._signal(signal.SIGUSR2)

    def environment(self) -> Mapping[str, str]:
        unlimited = {"ROOKERY_UNLIMITED": self._unlimited} if self._unlimited else {}
        return unlimited | {
            "ROOKERY_HTTP": f"127.0.0.1:{self.port}",
            "ROOKERY_HTTPS": f"127.0.0.1:{self.tls_port}",
            "ROOKERY_PEM": str(self._certificate),
            "ROOKERY_STATS": f"127.0.0.1:{self.statistics_port}",
            "ROOKERY_LOG": "127.0.0.1:9",  # nobody listens there
            "ROOKERY_SERVER1": self._servers[0],
            "ROOKERY_SERVER2": self._servers[1],
        }

    def answers(self) -> bool:
        try:
            return len(self.states()) == len(self._servers)
        except OSError:
            return False

    def states(self) -> Mapping[str, str]:
        """What it believes of each server: UP, DOWN, or on the way from one to the other."""
        lines = [line.split(",") for line in self._ask("/;csv").splitlines()]
        status = lines[0].index("status")
        return {line[1]: line[status] for line in lines[1:] if line[0] == "servers" and line[1].startswith("api")}

    def metrics(self) -> str:
        """What it tells Prometheus."""
        return self._ask("/metrics")

    def _ask(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.statistics_port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()
