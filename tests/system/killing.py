"""Commands that kill themselves at a step, and which steps there are."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from rookery.adapters.system.faults import KILL_VARIABLE

SOURCE = Path(__file__).parents[2] / "src" / "rookery"


def all_steps(work: str) -> set[str]:
    """Every step of a work (`restore`) that the program knows."""
    pattern = re.compile(rf"""reached\("({work}\.[a-z-]+)"\)""")
    return {step for file in SOURCE.rglob("*.py") for step in pattern.findall(file.read_text())}


def killed_at(step: str, *arguments: str) -> bool:
    """Run `rookery` until it kills itself at a step (`name` or `name:n`); False if it ended well and was not there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOKERY_")}
    done = subprocess.run(
        [sys.executable, "-m", "rookery", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment | {"ROOKERY_CONFIG": os.devnull, KILL_VARIABLE: step},
    )
    assert done.returncode in (0, -signal.SIGKILL), (arguments, done.returncode, done.stdout, done.stderr)
    return done.returncode != 0
