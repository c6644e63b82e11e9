"""The command `rookery`. `python -m rookery` is the same."""

import resource
import sys

LEAST_MEBIBYTES = 256
"""Address space below which nothing is begun: extensions that find none while they are loaded end by SIGSEGV."""


def main() -> None:
    """Load the program and run a command, if the limit on address space (`ulimit -v`) leaves room for that."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEBIBYTES << 20:
        sys.stderr.write(f"rookery: it needs at least {LEAST_MEBIBYTES} MiB of address space (ulimit -v)\n")
        sys.exit(1)
    from rookery.cli import main as run  # noqa: PLC0415 - it takes most of that

    run()


if __name__ == "__main__":
    main()
