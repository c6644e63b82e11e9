"""A process that kills itself at a named step: only where a test asks for it."""

import signal
import subprocess
import sys

import pytest

from rookery.adapters.system import steps
from rookery.adapters.system.faults import KILL_VARIABLE

_PROGRAM = """
import os
from rookery.adapters.system import steps
reached = steps(os.environ)
for step in ("one", "two", "one", "two"):
    reached(step)
    print(step, flush=True)
"""


@pytest.mark.parametrize(
    ("wanted", "printed", "status"),
    [
        ("two", "one", -signal.SIGKILL),
        ("one:2", "one two", -signal.SIGKILL),
        ("two:3", "one two one two", 0),
        ("three", "one two one two", 0),
        ("", "one two one two", 0),
    ],
)
def test_a_process_is_killed_at_the_step_that_its_environment_names(wanted: str, printed: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env={KILL_VARIABLE: wanted}, capture_output=True, text=True, check=False
    )
    assert (done.stdout.split(), done.returncode) == (printed.split(), status), done.stderr


def test_without_it_no_step_does_anything() -> None:
    reached = steps({})
    reached("one")
