"""A server as a child process that never outlives its parent."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_libc = ctypes.CDLL(None)


class Failed(Exception):
    """A server did not start or stop; the end of its log is in the message."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """One server. `command` is run in `folder`, and what it prints is kept there in `log`."""

    start_seconds = 10.0
    stop_seconds = 10.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """What to run."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """What to add to the environment."""
        return {}

    def answers(self) -> bool:
        """Whether it serves; asked again and again after the start."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        """All that it printed, over all its starts."""
        return self.folder / "log"

    @property
    def is_running(self) -> bool:
        """Whether its process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its last start."""
        assert self._process, "it was never started"
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            Failed: when it ends or does not answer in time.
        """
        self.launch()
        self.wait_until_it_answers()
        return self

    def launch(self) -> None:
        """Start it without waiting."""
        assert not self.is_running, "it runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command()),
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the parent's, who ends its servers in order
                preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 - one system call, and no thread holds a lock for it
            )

    def wait_until_it_answers(self) -> None:
        """Return when it serves.

        Raises:
            Failed: when it ends or does not answer in time.
        """
        limit = time.monotonic() + self.start_seconds
        while not self.answers():
            if not self.is_running or time.monotonic() > limit:
                self.kill()
                raise Failed(f"{type(self).__name__} did not start:\n{self._tail()}")
            time.sleep(0.01)

    def ask_to_stop(self) -> None:
        """Send it SIGTERM, without waiting for it."""
        if self.is_running:
            self.resume()
            self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """End it as a supervisor would, with SIGTERM, and with SIGKILL if that does not help."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP): its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)
        while any(_state_of(task) not in "TZ" for task in Path(f"/proc/{self.pid}/task").iterdir()):
            time.sleep(0.001)  # until each of its threads has heard

    def resume(self) -> None:
        """Let it go on with what it had."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it was never started"
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self if self.is_running else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-4_000:] if self.log.exists() else ""


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, however that ends."""
    _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _state_of(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
