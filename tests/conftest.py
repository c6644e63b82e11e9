"""How the tests are shared out, where several processes run them; and how Java runs for them."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Cassandra ends before the better of its two compilers, which is dear, is worth it: a third of a start's time.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")


class Groups(LoadScopeScheduling):  # type: ignore[misc] # untyped
    """Keeps a file's tests together, as they share servers, and gives all of Cassandra's to one process.

    So there is one Java program at a time, but where a test is about several.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "cassandra" if "cassandra" in nodeid.lower() else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)
