"""`python -m bench [name …] [--quick]`: run the benchmarks and print what they found as Markdown.

Loopback only, with servers that are started and ended here. Databases are made in a folder of their own below ./data
(or $TMPDIR) and removed. A full run takes about half an hour, `--quick` a few minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from bench.measuring import ROOT, Plan

NAMES = (
    "feed",
    "flat",
    "deliveries",
    "memcached",
    "cassandra",
    "redis",
    "redis_ranking",
    "redis_store",
    "cluster",
    "posts",
    "memory",
    "visibility",
    "graph",
    "retweet",
    "backup",
    "slow",
    "production",
)
SHARED = "BENCH_DATA"


def main() -> None:
    arguments = _arguments()
    folder = Path(os.environ.get("TMPDIR") or ROOT / "data")
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NAMES:
        bench = import_module(f"bench.{name}")
        claim = " ".join((bench.__doc__ or "").split("\n\n")[0].split())
        print(f"### {name}\n\n{claim}\n", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bench-", dir=folder) as scratch:
            for table in bench.run(Plan(arguments.quick, Path(scratch), arguments.data)):
                print(table.markdown() + "\n", flush=True)
        print(f"{name} took {time.monotonic() - began:.0f} s", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="Run benchmarks.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"which of {', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer turns: for a glance, not for a claim")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get(SHARED) or ROOT.parent / "shared" / "data"),
        help=f"the folder of real graphs and tweets (default: ${SHARED}, then ../shared/data); generated if not there",
    )
    found = parser.parse_args()
    if unknown := set(found.names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return found


if __name__ == "__main__":
    main()
