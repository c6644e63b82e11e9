"""`rookery backup` and `rookery restore`."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from rookery import __version__
from rookery.cli.flags import Flags, read
from rookery.cli.output import progress, say
from rookery.config import ConfigError, Settings
from rookery.domain.copies import Part
from rookery.services.backups import Backups, digests_of, verify
from rookery.services.copying import Digest
from rookery.wiring import Rookery, Sharing, open_rookery, put_aside


def add_to(app: App) -> None:
    """Add these commands."""
    app.command(backup)
    app.command(restore)


def backup(file: Path, *, flags: Flags = None) -> None:
    """Write all that the store holds into a new file, also while servers run.

    Counts of retweets and caches are not in it: they are made from it.

    Parameters
    ----------
    file
        The file to write. It appears when it is whole.
    """
    settings = read(flags).settings

    async def run() -> None:
        async with open_rookery(settings, Sharing.ANYONE) as rookery:
            with progress("Backing up", None) as advance:
                end = await _backups(rookery, settings).write(file, advance)
        _say_what(digests_of(end))

    asyncio.run(run())


def restore(
    file: Path,
    *,
    check: Annotated[bool, Parameter(negative="")] = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    flags: Flags = None,
) -> None:
    """Fill an empty store with what a backup holds, whichever kind of store it came from. Stop the servers first.

    The whole file is verified before anything is written. A restore may be stopped and run again.

    Parameters
    ----------
    file
        The backup.
    check
        Only verify the file, and say what is in it.
    force
        Put the SQLite file that is there aside, as rookery.db.before-restore-…, and begin with a new one.
    """
    if check:
        head, end = verify(file)
        made = datetime.fromtimestamp(head.made_at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        say(f"Whole; made on {made} by version {head.version}.")
        _say_what(digests_of(end))
        return
    settings = read(flags).settings
    if force and settings.store != "sqlite":
        raise ConfigError([f"--force: is for store = sqlite; name another store.keyspace in {settings.store} instead"])

    async def run() -> None:
        if force:
            verify(file)
            if (aside := put_aside(settings)) is not None:
                say(f"What was there is in {aside} now.")
        async with open_rookery(settings, Sharing.NO_SERVER) as rookery:
            with progress("Restoring", None) as advance:
                end = await _backups(rookery, settings).restore(file, advance)
            with progress("Counting", None) as advance:
                await rookery.services.top.recount(advance)
            await rookery.backends.cache.clear()
            await asyncio.to_thread(_backups(rookery, settings).finished, file)
        _say_what(digests_of(end))

    asyncio.run(run())


def _backups(rookery: Rookery, settings: Settings) -> Backups:
    place = f"{settings.store} {settings.store_servers} {settings.store_keyspace} {settings.data}"
    return Backups(rookery.backends.store, rookery.backends.clock, __version__, settings.data, place)


def _say_what(digests: Mapping[Part, Digest]) -> None:
    for part, digest in digests.items():
        say(f"{part.value:10} {digest.rows:>12,}  {digest.total:064x}")
