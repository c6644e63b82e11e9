"""The command `rookery`. `python -m rookery` is the same."""

import resource
import sys
from contextlib import suppress

LEAST_MEBIBYTES = 256
"""Address space below which nothing is begun: extensions that find none while they are loaded end by SIGSEGV."""

_M_ARENA_MAX = -8
"""Of mallopt(3): how many heaps glibc has. Each reserves 64 MiB of address space, for any thread that has to wait."""


def main() -> None:
    """Load the program and run a command, if the limit on address space (`ulimit -v`) leaves room for that."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEBIBYTES << 20:
        sys.stderr.write(f"rookery: it needs at least {LEAST_MEBIBYTES} MiB of address space (ulimit -v)\n")
        sys.exit(1)
    if limit != resource.RLIM_INFINITY:
        import ctypes  # noqa: PLC0415 - needed for this alone

        with suppress(AttributeError):  # another libc has other heaps
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    from rookery.cli import main as run  # noqa: PLC0415 - it takes most of that

    run()


if __name__ == "__main__":
    main()
