"""Redis with its append-only file: one server, or a cluster of several."""

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tools.servers.installing import require
from tools.servers.process import Failed, Process, free_port

_SLOTS = 16_384
_NODE_TIMEOUT_MILLIS = 2_000
"""How long a node of a cluster is not heard of until it is taken for dead. Redis's own is 15 seconds."""


class Redis(Process):
    """One Redis with AOF. It keeps port and data over its starts. With `bus_port` it may be part of a cluster.

    With `tls`, which are its own settings for that, it takes TLS only. With a `file` it is configured as told there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: str = "everysec",
        bus_port: int = 0,
        password: str = "",
        tls: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._password = password
        self._tls = tls
        self._file = file
        self._bus_port = bus_port
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
        where = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.folder), "daemonize": "no"}
        if self._file is not None:
            bus = {"cluster-port": str(self._bus_port)} if self._bus_port else {}
            return [program, str(self._file), *_flags(where | bus)]
        options = where | {"appendonly": "yes", "appendfsync": self._fsync, "save": ""}
        if self._bus_port:
            options |= {
                "cluster-enabled": "yes",
                "cluster-port": str(self._bus_port),
                "cluster-node-timeout": str(_NODE_TIMEOUT_MILLIS),
            }
        if self._password:
            options["requirepass"] = self._password
        if self._tls is not None:
            options |= {"port": "0", "tls-port": str(self.port), **self._tls}
        return [program, *_flags(options)]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                if self._tls is not None:
                    return True
                connection.sendall(b"PING\r\n")
                return connection.recv(7) in {b"+PONG\r\n", b"-NOAUTH"}
        except OSError:
            return False


def _flags(options: Mapping[str, str]) -> Sequence[str]:
    return [part for name, value in options.items() for part in (f"--{name}", value)]


class RedisCluster:
    """Masters with a replica each; at first the nodes of the first half are the masters."""

    def __init__(self, folder: Path, *, masters: int = 3, fsync: str = "everysec") -> None:
        self._masters = masters
        self.nodes = [
            Redis(folder / f"node-{number}", fsync=fsync, bus_port=free_port()) for number in range(2 * masters)
        ]

    @property
    def address(self) -> str:
        """`host:port` of all, as the setting `ranking.servers` takes it."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> Self:
        """Start all, join them the first time, and wait until every slot is served and every master has its replica.

        Raises:
            Failed: when that takes too long.
        """
        new = not (self.nodes[0].folder / "nodes.conf").exists()
        try:
            for node in self.nodes:
                node.start()
            if new:
                self._join()
            self.wait_until_whole()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_until_whole(self, seconds: float = 60.0) -> None:
        """Return when all nodes that run agree that all slots are served, and each replica follows its master.

        Raises:
            Failed: when that takes too long.
        """
        limit = time.monotonic() + seconds
        while not all(self._is_whole(node) for node in self.nodes if node.is_running):
            if time.monotonic() > limit:
                raise Failed(f"the cluster is not whole:\n{_ask(self.nodes[0], 'cluster', 'nodes')}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End all that run."""
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.stop()

    def _join(self) -> None:
        program = require("redis-cli", "redis-tools")
        addresses = [node.address for node in self.nodes]
        command = [program, "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise Failed(f"the cluster could not be made:\n{made.stdout}{made.stderr}")

    def _is_whole(self, node: Redis) -> bool:
        told = _ask(node, "cluster", "info")
        if "cluster_state:ok" not in told or f"cluster_slots_ok:{_SLOTS}" not in told:
            return False
        replication = _ask(node, "info", "replication")
        alone = "role:master" in replication and "connected_slaves:0" in replication
        return not alone and ("role:master" in replication or "master_link_status:up" in replication)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _ask(node: Redis, *command: str) -> str:
    program = require("redis-cli", "redis-tools")
    asked = [program, "-p", str(node.port), *command]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout
