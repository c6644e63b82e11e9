"""`rookery export`: a person's own data, for that person."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec
from cyclopts import App

from rookery.cli.flags import Flags, read
from rookery.cli.output import say
from rookery.domain.users import UserRecord
from rookery.services.backups import created
from rookery.services.exporting import Exporting
from rookery.wiring import Rookery, Sharing, open_rookery

_COLUMNS = ("id", "user_name", "created_at", "title", "body", "retweet", "count_retweet")
_ABOUT = """\
{name}'s own data on Rookery.

profile.json    what the server shows of {name}
tweets.csv      all tweets, newest first; `retweet` is the id of the tweet that one retweets
following.tsv   whom {name} follows: {name}'s handle and theirs
followers.tsv   who follows {name}: their handle and {name}'s

Another Rookery takes them by `rookery load graph following.tsv` and
`rookery load tweets tweets.csv --title-column title --key-column id --skip-bad`, without the retweets that say nothing.
"""


def add_to(app: App) -> None:
    """Add these commands."""
    app.command(export)


def export(name: str, file: Path | None = None, *, flags: Flags = None) -> None:
    """Write all of a person's own data into a new .zip file, also while the server runs.

    Parameters
    ----------
    name
        Whose: the handle.
    file
        The file to write; NAME.zip, if none is named.
    """
    settings = read(flags).settings

    async def run() -> None:
        async with open_rookery(settings, Sharing.ANYONE) as rookery:
            user = await rookery.services.accounts.find_name(name)
            chosen = file or Path(f"{user.name}.zip")
            with created(chosen) as raw, ZipFile(raw, "w", ZIP_DEFLATED) as archive:
                many = await _fill(archive, rookery, user)
        say(f"{many:,} tweets of {name} are in {chosen}.")

    asyncio.run(run())


async def _fill(archive: ZipFile, rookery: Rookery, user: UserRecord) -> int:
    exporting = Exporting(rookery.backends.store, rookery.services.tweets)
    archive.writestr("README.txt", _ABOUT.format(name=user.name))
    profile = msgspec.json.encode(await rookery.services.accounts.show(user))
    archive.writestr("profile.json", msgspec.json.format(profile, indent=2))
    many = 0
    with archive.open("tweets.csv", "w") as raw, io.TextIOWrapper(raw, "utf-8", newline="") as text:
        table = csv.writer(text)
        table.writerow(_COLUMNS)
        async for tweet in exporting.written_by(user):
            row = msgspec.to_builtins(tweet)
            table.writerow([row[column] for column in _COLUMNS])
            many += 1
    await _pairs(archive, "following.tsv", exporting.followees(user), lambda other: (user.name, other))
    await _pairs(archive, "followers.tsv", exporting.followers(user), lambda other: (other, user.name))
    return many


async def _pairs(
    archive: ZipFile, name: str, others: AsyncIterator[str], pair: Callable[[str], tuple[str, str]]
) -> None:
    with archive.open(name, "w") as raw:
        async for other in others:
            raw.write("\t".join(pair(other)).encode() + b"\n")
