"""Real little disks, to be filled and to be made read-only. Only root may mount them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own in this folder. Who may not mount skips the test at home; under CI=true it fails."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "rookery-test", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no disk could be mounted: {made.stderr}")
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        # Lazy: what still holds a file there has failed its test already, and the disk must go all the same.
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the space that is left on a disk; gives the file to remove when there shall be some again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast
