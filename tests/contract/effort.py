"""How long the tests by chance go on: seconds as a rule, minutes with TEST_LONG (make test-long)."""

import os

from hypothesis import settings

_LONGER = 30


def examples(few: int) -> settings:
    """So many random examples, or thirty times as many. Real files take their time: there is no deadline for one."""
    long = bool(os.environ.get("TEST_LONG"))
    return settings(max_examples=few * _LONGER if long else few, deadline=None)
