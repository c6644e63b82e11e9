"""What the commands print: results on stdout, everything else on stderr."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rookery.ports.ranking import Progress as Advance


def say(line: str) -> None:
    """A line of the result."""
    print(line)


def tell(line: str) -> None:
    """A line for whoever looks on. That nobody does, or that his disk is full, is no reason to end."""
    with suppress(OSError):
        print(line, file=sys.stderr)


def complain(line: str) -> None:
    """One error in one line."""
    tell(f"rookery: {line}")


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on stderr while the work goes on; call what it gives with how much more is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)
