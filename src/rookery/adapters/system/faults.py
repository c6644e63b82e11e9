"""A process that kills itself at a named step, so that tests can see what is left of it."""

import os
import signal
from collections.abc import Mapping

from rookery.ports.steps import Steps, unwatched

KILL_VARIABLE = "TEST_ROOKERY_KILL_AT"
"""The environment variable that names the step, or `step:n` for the n-th time that it is reached. Only tests set it."""


def steps(environ: Mapping[str, str]) -> Steps:
    """What kills this process with SIGKILL at the step that the environment names; without one it does nothing."""
    if not (wanted := environ.get(KILL_VARIABLE)):
        return unwatched
    name, _, number = wanted.partition(":")
    left = int(number or 1)

    def reached(step: str, /) -> None:
        nonlocal left
        if step != name:
            return
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # the signal may reach another thread first, and this one must not go on

    return reached
