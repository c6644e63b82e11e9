"""How the tests are shared out, where several processes run them; and how Java runs for them."""

import os
from typing import Any

import pytest
from coverage import Coverage
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Cassandra ends before the better of its two compilers, which is dear, is worth it: a third of a start's time.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")


ALONE = "tests/system/test_cassandra_ring.py"
"""Three Java programs and the servers on them need both cores: what waits a second for one fails by its own rules."""


class Groups(LoadScopeScheduling):  # type: ignore[misc] # untyped
    """Keeps a file's tests together, as they share servers, and gives all of Cassandra's to one process.

    So there is one Java program at a time, but where a test is about several: that comes last and alone.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "cassandra" if "cassandra" in nodeid.lower() and file != ALONE else file

    def _assign_work_unit(self, node: Any) -> None:
        if ALONE in self.workqueue:
            self.workqueue.move_to_end(ALONE)
        super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        if list(self.workqueue) == [ALONE] and not node.shutting_down:
            others = [other for other in self.nodes if other is not node]
            if not all(other.shutting_down for other in others):
                node.shutdown()  # when it is done with what it has
            if others:
                return
        super()._reschedule(node)

    def remove_node(self, node: Any) -> str | None:
        crashed: str | None = super().remove_node(node)
        for other in self.nodes:
            self._reschedule(other)
        return crashed


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """In a process that runs tests, let only the measurement that pytest-cov is about to begin be under way.

    Others began when Python and the plugin started. They would go on beneath while a test has the mark `no_cover`.
    """
    if hasattr(session.config, "workerinput"):
        while (beneath := Coverage.current()) is not None:
            beneath.stop()
