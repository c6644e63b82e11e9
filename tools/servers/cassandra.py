"""Cassandra from its published jars, without packages or containers: one node, or a ring of several."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import acsylla

from tools.servers.installing import Missing, require
from tools.servers.process import Failed, Process, free_port

VERSION = "5.0.5"

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rookery</groupId>
  <artifactId>cassandra</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.cassandra</groupId>
      <artifactId>cassandra-all</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
_LOGBACK = """\
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"""
# What Cassandra's own start script opens to it of Java 17's inside.
_OPENED = (
    *(f"java.base/java.{name}" for name in ("lang", "lang.module", "lang.reflect", "net", "nio", "util", "io", "math")),
    *(f"java.base/java.util.{name}" for name in ("concurrent", "concurrent.atomic")),
    *(f"java.base/jdk.internal.{name}" for name in ("loader", "ref", "reflect", "math", "module", "util.jar")),
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)
_EXPORTED = (
    *(f"java.base/{name}" for name in ("jdk.internal.misc", "jdk.internal.ref", "sun.nio.ch", "java.lang.ref")),
    "java.base/jdk.internal.vm.annotation",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    *(f"java.rmi/sun.rmi.{name}" for name in ("registry", "server", "transport", "transport.tcp")),
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "jdk.attach/sun.tools.attach",
    "jdk.compiler/com.sun.tools.javac.file",
)


class Cassandra(Process):
    """One node of a ring, which may be its only one. It keeps its ports and data over its starts.

    `sync` is its `commitlog_sync`: `batch` and `group` answer when the disk has it, `periodic` before. With `keystore`,
    a PEM file of a key and its certificate, it takes TLS only; with `passwords` it asks who comes (at first
    `cassandra`, `cassandra`).
    """

    start_seconds = 120.0
    stop_seconds = 30.0

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
        seed: str = "127.0.0.1",
        sync: str = "periodic",
        keystore: Path | None = None,
        passwords: bool = False,
    ) -> None:
        super().__init__(folder)
        self.keystore = keystore
        self._passwords = passwords
        self.host = host
        self.port = port or free_port(host)
        self._storage_port = storage_port or free_port(host)
        self._seed = seed
        self._sync = sync

    @property
    def address(self) -> str:
        """`host:port`, as the setting `store.servers` takes it."""
        return f"{self.host}:{self.port}"

    def command(self) -> Sequence[str]:
        jars = _jars()
        java = require("java", "openjdk-17-jre-headless")
        conf = self.folder / "conf"
        conf.mkdir(exist_ok=True)
        (conf / "cassandra.yaml").write_text(self._settings())
        (conf / "logback.xml").write_text(_LOGBACK)
        properties = {
            "jdk.attach.allowAttachSelf": "true",
            "cassandra.config": f"file://{conf}/cassandra.yaml",
            "logback.configurationFile": f"{conf}/logback.xml",
            "cassandra.storagedir": str(self.folder),
            "cassandra.skip_wait_for_gossip_to_settle": "0",
            "cassandra.ring_delay_ms": "2000",
            "cassandra.shutdown_announce_in_ms": "100",
        }
        return [
            java,
            *("-Xms512M", "-Xmx1G", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"),
            *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENED),
            *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTED),
            *(f"-D{name}={value}" for name, value in properties.items()),
            *("-cp", f"{conf}:{jars}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def _settings(self) -> str:
        sync = {
            "periodic": "commitlog_sync: periodic\ncommitlog_sync_period: 1000ms",
            "group": "commitlog_sync: group\ncommitlog_sync_group_window: 1ms",
            "batch": "commitlog_sync: batch",
        }[self._sync]
        folders = "\n".join(
            f"{name}_directory: {self.folder}/{name}" for name in ("commitlog", "hints", "saved_caches", "cdc_raw")
        )
        return f"""\
cluster_name: rookery
num_tokens: 16
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [ {self.folder}/data ]
{folders}
{sync}
commitlog_segment_size: 8MiB
memtable_heap_space: 64MiB
memtable_offheap_space: 64MiB
auto_snapshot: false
dynamic_snitch: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [ {{ seeds: "{self._seed}:{self._storage_port}" }} ]
listen_address: {self.host}
rpc_address: {self.host}
storage_port: {self._storage_port}
native_transport_port: {self.port}
endpoint_snitch: SimpleSnitch
authenticator: {"PasswordAuthenticator" if self._passwords else "AllowAllAuthenticator"}
{self._encryption()}"""

    def _encryption(self) -> str:
        if self.keystore is None:
            return ""
        return f"""\
client_encryption_options:
  enabled: true
  optional: false
  keystore: {self.keystore}
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
"""

    def answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), 1) as plain, self._secured(plain) as connection:
                connection.sendall(bytes([4, 0, 0, 0, 5, 0, 0, 0, 0]))  # OPTIONS of the native protocol, version 4
                return connection.recv(5)[4:] == b"\x06"  # SUPPORTED
        except OSError:
            return False

    def _secured(self, connection: socket.socket) -> socket.socket:
        if self.keystore is None:
            return connection
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # whether it answers is all that is asked
        return context.wrap_socket(connection)


class Ring:
    """Three nodes (or so many) of one ring, on 127.0.0.1 and the addresses behind it."""

    def __init__(self, folder: Path, *, many: int = 3, sync: str = "periodic", port: int = 0) -> None:
        hosts = [f"127.0.0.{number}" for number in range(1, many + 1)]
        port, storage = port or _port_free_on(hosts), _port_free_on(hosts)
        self.nodes = [
            Cassandra(folder / f"node-{number}", host=host, port=port, storage_port=storage, sync=sync)
            for number, host in enumerate(hosts, 1)
        ]

    @property
    def address(self) -> str:
        """`host:port` of all, as the setting `store.servers` takes it."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> Self:
        """Start them one after the other, as each joins the ring of those before it."""
        try:
            for number, node in enumerate(self.nodes):
                node.start()
                limit = time.monotonic() + node.start_seconds
                while any(asyncio.run(_peers_of(other)) < number for other in self.nodes[: number + 1]):
                    if time.monotonic() > limit:
                        raise Failed(f"not all nodes know of the one on {node.address}")
                    time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End all that run."""
        for node in self.nodes:  # at once: none needs to see another go
            node.ask_to_stop()
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _peers_of(node: Cassandra) -> int:
    """How many others it knows."""
    cluster = acsylla.create_cluster([node.host], port=node.port, whitelist_hosts=node.host, log_level="disabled")
    session = await cluster.create_session()
    try:
        return len(await session.execute(acsylla.create_statement("SELECT peer FROM system.peers_v2")))
    finally:
        await session.close()


def _port_free_on(hosts: Sequence[str]) -> int:
    for _ in range(100):
        port = free_port(hosts[0])
        try:
            for host in hosts[1:]:
                with socket.socket() as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        return port
    raise Failed(f"no port is free on all of {', '.join(hosts)}")


def _jars() -> Path:
    """The folder with Cassandra's jars, fetched once by Maven and kept for the next time."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rookery" / f"cassandra-{VERSION}"
    if kept.is_dir():
        return kept
    maven = require("mvn", "maven")
    making = kept.with_name(f"{kept.name}.{os.getpid()}")
    making.mkdir(parents=True)
    try:
        (making / "pom.xml").write_text(_POM)
        fetched = subprocess.run(
            [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={making}"],
            cwd=making,
            capture_output=True,
            text=True,
            check=False,
        )
        if fetched.returncode:
            raise Missing(f"Cassandra's jars could not be fetched by Maven:\n{fetched.stdout[-2_000:]}")
        if not kept.is_dir():  # another process may have been as fast
            making.rename(kept)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return kept
