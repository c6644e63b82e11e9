"""A backup costs those who are served meanwhile little, and is small: how long, how large, and others' p99 beside it.

A store of tweets of 140 random letters on SQLite is backed up by `rookery backup` and restored into another file, while
somebody reads a feed from the server a hundred times a second.
"""

import asyncio
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median

from bench.measuring import ROOT, Plan, Table, millis, percentile
from bench.outside import Client, rookery

TWEETS = 100_000
AUTHORS = 100
_PAUSE = 0.01
_ASK = b"GET /tweet/@user1 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(plan: Plan) -> list[Table]:
    tweets, turns = plan.pick(TWEETS, 5_000), plan.pick(3, 1)
    chance = random.Random(1)
    lines = plan.scratch / "tweets.csv"
    with lines.open("w") as file:
        file.write("user,text,created_at,key\n")
        begun = datetime(2026, 1, 1, tzinfo=UTC)
        for number in range(tweets):
            text = "".join(chance.choices(string.ascii_letters, k=140))
            file.write(f"user{number % AUTHORS},{text},{(begun + timedelta(seconds=number)).isoformat()},{number}\n")
    data = plan.scratch / "data"
    data.mkdir()
    columns = ("--author-column", "user", "--body-column", "text", "--key-column", "key")
    _timed("load", "tweets", str(lines), "--data", str(data), *columns)
    backups = [plan.scratch / f"{turn}.rookery" for turn in range(turns)]
    quiet: list[float] = []
    beside: list[float] = []
    backing: list[float] = []
    with rookery(data) as server:
        for kept in backups:
            took, answers = asyncio.run(_ask_during(server.port, partial(_slept, 3)))
            quiet += answers
            backup = partial(_timed, "backup", str(kept), "--data", str(data))
            took, answers = asyncio.run(_ask_during(server.port, backup))
            backing.append(took)
            beside += answers
    restoring = [_timed("restore", str(file), "--data", str(file.with_suffix(".restored"))) for file in backups]
    rows = [
        ["backup", f"{median(backing):.1f} s"],
        ["restore, verified", f"{median(restoring):.1f} s"],
        ["the backup's size for a tweet", f"{backups[0].stat().st_size / tweets:.0f} bytes"],
        ["the SQLite file's for a tweet", f"{(data / 'rookery.db').stat().st_size / tweets:.0f} bytes"],
        ["reads, p99, before it", millis(percentile(quiet, 99))],
        ["reads, p99, beside it", millis(percentile(beside, 99))],
    ]
    return [Table(f"{tweets:,} tweets of 140 random letters by {AUTHORS} authors", ["what", "took"], rows)]


def _timed(*arguments: str) -> float:
    """Seconds that a command took, its start included."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rookery", *arguments], check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - begun


def _slept(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


async def _ask_during(port: int, work: Callable[[], float]) -> tuple[float, list[float]]:
    """What the work gives, and how long answers took meanwhile."""
    client = await Client.connect(port)
    working = asyncio.create_task(asyncio.to_thread(work))
    answers: list[float] = []
    while not working.done():
        begun = time.perf_counter()
        await client.ask(_ASK)
        answers.append(time.perf_counter() - begun)
        await asyncio.sleep(_PAUSE)
    await client.close()
    return await working, answers
