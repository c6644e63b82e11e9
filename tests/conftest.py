"""How the tests are shared out, where several processes run them."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before the plugin looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests together, as they share servers, and give all of Cassandra's to one process.

    So there is one Java program at a time, but where a test is about several.
    """
    for item in items:
        group = "cassandra" if "cassandra" in item.nodeid.lower() else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
