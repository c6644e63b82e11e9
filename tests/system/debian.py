"""A fresh Debian in a folder, made by debootstrap, and programs run in it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tools.servers.installing import require

RELEASE = "bookworm"


class Debian:
    """A root of its own; only the network is the machine's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self._inside(command),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert status is None or done.returncode == status, (command, done.returncode, done.stdout, done.stderr)
        return done

    @contextmanager
    def serving(self, port: int, *flags: str) -> Iterator[str]:
        """`rookery serve`, as root starts it; its address."""
        with self.running(port, "rookery", "serve", "--port", str(port), *flags) as url:
            yield url

    @contextmanager
    def running(self, port: int, *command: str) -> Iterator[str]:
        """A command that serves on a port; its address. In the end it is told to stop, and must do so well."""
        with (self.root / "serve.log").open("ab") as log:
            process = subprocess.Popen(self._inside(command), env=_environment(), stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while not _ready(url):
                assert process.poll() is None, (self.root / "serve.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield url
        finally:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            assert process.wait(60) == 0, (self.root / "serve.log").read_text()

    def path(self, inside: str) -> Path:
        return self.root / inside.removeprefix("/")

    def copy(self, folder: Path) -> "Debian":
        """One like this, to be changed."""
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.root), str(folder)], check=True)
        return Debian(folder)

    def _inside(self, command: Sequence[str]) -> list[str]:
        # The processes of the inside are their own; with the first of them all others end.
        own = ["unshare", "--pid", "--fork", "--kill-child", "--mount", f"--mount-proc={self.root / 'proc'}"]
        return [*own, "chroot", str(self.root), *command]


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def _environment() -> dict[str, str]:
    """What a login has, and how this machine's pip finds its packages."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_CONFIG_FILE": "/etc/pip-of-the-host.conf",
        **pip,
        "PIP_CERT": "/etc/authorities-of-the-host.crt",
    }


def fresh(folder: Path) -> Debian:
    """A Debian with what every Debian has, and where this machine gets its packages from.

    Raises:
        Missing: when there is no debootstrap.
    """
    program = require("debootstrap", "debootstrap")
    subprocess.run(
        [program, "--variant=minbase", RELEASE, str(folder), _mirror()], check=True, stdout=subprocess.DEVNULL
    )
    for path in Path("/etc/apt/apt.conf.d").glob("99*"):
        shutil.copy(path, folder / "etc/apt/apt.conf.d")
    for source, target in (
        ("/etc/resolv.conf", "etc/resolv.conf"),
        ("/etc/ssl/certs/ca-certificates.crt", "etc/authorities-of-the-host.crt"),
        ("/etc/pip.conf", "etc/pip-of-the-host.conf"),
    ):
        if Path(source).exists():
            shutil.copy(source, folder / target)
    return Debian(folder)


def _mirror() -> str:
    """The first of this machine's own."""
    for file in [*sorted(Path("/etc/apt").glob("sources.list.d/*.sources")), Path("/etc/apt/sources.list")]:
        for line in file.read_text().splitlines() if file.exists() else ():
            words = line.split()
            if words[:1] in (["URIs:"], ["deb"]) and "/debian" in line and "security" not in line:
                return next(word for word in words if word.startswith("http"))
    raise AssertionError("this Debian has no mirror")
