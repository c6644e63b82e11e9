"""memcached."""

import os
import pwd
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.servers.installing import require, require_file
from tools.servers.process import Failed, Process, free_port

_FAKETIME = "usr/lib/*/faketime/libfaketimeMT.so.1"


class Memcached(Process):
    """One memcached of some MiB. It keeps its port over its starts, and nothing else.

    With `own_time` its clock can be put forward (by libfaketime), so that nobody has to wait for what runs out.
    """

    def __init__(self, folder: Path, *, megabytes: int = 64, port: int = 0, own_time: bool = False) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self._megabytes = megabytes
        self._own_time = own_time
        self._ahead = 0

    @property
    def address(self) -> str:
        """`host:port`, as the setting `cache.servers` takes it."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        program = require("memcached", "memcached")
        user = pwd.getpwuid(os.geteuid()).pw_name  # as root it wants to be told so; another could not read its clock
        return [program, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", str(self._megabytes), "-u", user]

    def environment(self) -> Mapping[str, str]:
        if not self._own_time:
            return {}
        self._clock.write_text(f"+{self._ahead}\n")
        return {
            "LD_PRELOAD": require_file(_FAKETIME, "faketime"),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
        }

    def answers(self) -> bool:
        try:
            return self._ask(b"mn\r\n", b"MN\r\n") == b"MN\r\n"
        except OSError:
            return False

    def pass_time(self, seconds: int) -> None:
        """Put its clock forward. It looks at it once a second, so this takes up to one."""
        assert self._own_time, "it goes by the machine's clock"
        before = self.statistic("uptime")
        self._ahead += seconds
        self._clock.write_text(f"+{self._ahead}\n")
        limit = time.monotonic() + 5
        while self.statistic("uptime") < before + seconds:
            if time.monotonic() > limit:
                raise Failed("memcached's clock stands still")
            time.sleep(0.01)

    def statistic(self, name: str) -> int:
        """A number of its own, such as get_hits."""
        found = self._ask(b"stats\r\n", b"END\r\n").partition(b"STAT %b " % name.encode())[2]
        return int(found.partition(b"\r\n")[0])

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def _ask(self, command: bytes, end: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(command)
            answer = b""
            while not answer.endswith(end):
                some = connection.recv(65_536)
                if not some:
                    raise ConnectionResetError
                answer += some
            return answer
