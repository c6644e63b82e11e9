"""Programs that the servers need: found, or installed when root on Debian, or told about."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

_LOCK = Path("/run/lock/rookery-install")


class Missing(Exception):
    """A program is not there and could not be installed; the message says what to install."""


def require(program: str, package: str) -> str:
    """The path of a program, installed from its Debian package if need be.

    Raises:
        Missing: when it is not there and this is not root on Debian.
    """
    found = _found_or_installed(package, lambda: shutil.which(program))
    if found is None:
        raise Missing(f"there is no {program}: install the package {package} (apt-get install {package})")
    return found


def require_file(pattern: str, package: str) -> str:
    """The path of a file, given as a pattern below /, installed with its Debian package if need be.

    Raises:
        Missing: as for `require`.
    """
    found = _found_or_installed(package, lambda: next(map(str, sorted(Path("/").glob(pattern))), None))
    if found is None:
        raise Missing(f"there is no /{pattern}: install the package {package} (apt-get install {package})")
    return found


def _found_or_installed(package: str, find: Callable[[], str | None]) -> str | None:
    found = find()
    if found is not None or not _may_install():
        return found
    with _LOCK.open("w") as lock:  # others who share the tests may want it in the same moment
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find() is None:
            _apt("update")
            _apt("install", "-y", "--no-install-recommends", package)
    return find()


def _may_install() -> bool:
    release = Path("/etc/os-release")
    is_debian = release.exists() and "\nID=debian\n" in f"\n{release.read_text()}\n"
    return os.geteuid() == 0 and is_debian and shutil.which("apt-get") is not None


def _apt(*arguments: str) -> None:
    # Debian would start the server as it installs it; ours are started here, on ports of their own.
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        subprocess.run(
            ["apt-get", "-qq", *arguments],
            check=False,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    finally:
        if made:
            policy.unlink()
