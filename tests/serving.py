"""A real `rookery serve` for tests: a process of its own on files of its own.

`with running_server(tmp_path) as server:` is enough for most; `Server` can also be stopped, killed and started again on
the same data. What it prints is kept beside its data: `server.out()` and `server.err()`.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_HARDENED = Path(__file__).with_name("hardened.py")
_LISTENS = re.compile(r"listens on (http://\S+) ")
_START_SECONDS = 60.0  # it takes two or three; a machine that runs other things besides may be far slower
_STOP_SECONDS = 45.0  # more than the thirty that the server gives itself, and the drain of tests


class Server:
    """A server on one data folder, which need not exist. Nothing runs until `start`.

    `flags` are those of `rookery serve`; they may override the ones that are here by default: no tokens, no rate limit.
    `env` is added to the environment, from which the settings of this machine are left out. One that is not `measured`
    counts nothing for coverage, and is twice as fast: for tests of much work.
    """

    def __init__(self, data: Path, *flags: str, env: Mapping[str, str] | None = None, measured: bool = True) -> None:
        self.data = data
        self.flags = flags
        self.env = dict(env or {})
        self.measured = measured
        self._process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it listens, or listened last."""
        assert self._url, "the server was never started"
        return self._url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Of its last start."""
        assert self._process, "the server was never started"
        return self._process

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def out(self) -> str:
        """All that it has written to stdout, over all its starts: its log."""
        return _read(self._file("out"))

    def err(self) -> str:
        """All that it has written to stderr, over all its starts."""
        return _read(self._file("err"))

    def start(self, port: int = 0) -> None:
        """Start it and wait until it listens, on a free port or on the one given (such as its last, `server.port`)."""
        assert not self.is_running(), "the server runs already"
        self.data.parent.mkdir(parents=True, exist_ok=True)
        defaults = {"--auth": "open", "--rate-limit": "off", "--log-format": "json"}
        given = {flag.partition("=")[0] for flag in self.flags}
        command = [sys.executable, "-m", "rookery", "serve", "--port", str(port), "--data", str(self.data), *self.flags]
        command += [part for flag, value in defaults.items() if flag not in given for part in (flag, value)]
        measured = self.measured
        if os.environ.get("TEST_HARDENED") == "1":
            command = [sys.executable, str(_HARDENED), str(self.data.parent), *command]
            measured = False  # its figures would have to be written elsewhere
        seen = len(self.err())
        with self._file("out").open("ab") as out, self._file("err").open("ab") as err:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(self.env, measured=measured),
            )
        limit = time.monotonic() + _START_SECONDS
        while not (found := _LISTENS.search(self.err(), seen)):
            if not self.is_running() or time.monotonic() > limit:
                self.kill()
                raise AssertionError(f"the server did not start, status {self.process.returncode}:\n{self._tail()}")
            time.sleep(0.01)
        self._url = found[1]

    def stop(self) -> int:
        """End it with SIGTERM, as a supervisor would; its exit status. Nothing happens to one that has ended."""
        if self.is_running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"the server did not stop:\n{self._tail()}") from None
        return self.process.wait()

    def kill(self) -> None:
        """End it with SIGKILL: what it had in memory is lost, and its measured coverage too."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stopped in its tracks (SIGSTOP) for as long as this lasts."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _file(self, stream: str) -> Path:
        return self.data.parent / f"{self.data.name}.std{stream}"

    def _tail(self) -> str:
        return (self.out() + self.err())[-8_000:]


@contextmanager
def running_server(
    folder: Path, *flags: str, env: Mapping[str, str] | None = None, measured: bool = True
) -> Iterator[Server]:
    """A server with its data in `folder/data`. At the end it is stopped, which must succeed if a test left it running.

    An ordinary context manager, for sync and async tests and for fixtures of any scope.
    """
    server = Server(folder / "data", *flags, env=env, measured=measured)
    server.start()
    try:
        yield server
    except BaseException:
        if server.is_running():
            server.kill()  # whatever went wrong is told, not that the server may not stop after it
        raise
    if server.is_running():
        status = server.stop()
        assert status == 0, f"the server ended with status {status}:\n{server.err()[-8_000:]}"


def environment(extra: Mapping[str, str], *, measured: bool) -> dict[str, str]:
    # The rest is passed on, such as what coverage sets to measure processes of their own.
    dropped = ("ROOKERY_",) if measured else ("ROOKERY_", "COVERAGE_", "COV_CORE_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return ours | {"ROOKERY_CONFIG": os.devnull} | dict(extra)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
