"""Servers that tests share, started when the first test asks and ended with the run. A missing one skips at home."""

import atexit
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tools.servers import Missing, Ring
from tools.servers.process import Process

P = TypeVar("P", bound=Process | Ring)


def running(kind: type[P], **options: Any) -> P:
    """A server of this kind that runs to the end of all tests."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.__name__.lower()}-"))
    made = kind(folder, **options)
    try:
        made.start()
    except Missing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    atexit.register(made.stop)
    return made
