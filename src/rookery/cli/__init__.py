"""The command line: thin commands that call services."""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from rookery import __version__
from rookery.cli import backing, configuring, copying, exporting, loading, people, schema, serving
from rookery.cli.output import complain
from rookery.config import ConfigError
from rookery.domain.errors import Failure, is_out_of_memory

USAGE = 2
"""Exit status for a wrong command line or wrong settings; 1 is for what fails, 130 for Ctrl-C."""


def build() -> App:
    """All commands."""
    app = App(
        name="rookery",
        help="A self-hosted Twitter server. Start with `rookery serve`.",
        version=__version__,
        version_flags=["--version"],
    )
    serving.add_to(app)
    people.add_to(app)
    loading.add_to(app)
    copying.add_to(app)
    backing.add_to(app)
    exporting.add_to(app)
    schema.add_to(app)
    configuring.add_to(app)
    return app


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status. Errors are one line each on stderr."""
    try:
        build()(tokens, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        complain(str(error).splitlines()[0] if str(error) else "the command line can't be read")
        sys.exit(USAGE)
    except ConfigError as error:
        for fault in error.faults:
            complain(fault)
        sys.exit(USAGE)
    except Failure as error:
        complain(f"{error.message} [{error.code}]")
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        complain("there is no memory left, or no thread")
        sys.exit(1)
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at the end
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
