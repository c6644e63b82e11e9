"""The command line as a user has it: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def rookery(*arguments: str, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `rookery` and expect an exit status."""
    done = subprocess.run(
        [sys.executable, "-m", "rookery", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROOKERY_")}
        | {"ROOKERY_CONFIG": os.devnull},
    )
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done


def database(data: Path) -> Path:
    """The file in a data folder."""
    return data / "rookery.db"
