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
from rookery.services.backups import Backups, digests_of, identity, verify
from rookery.services.copying import Digest
from rookery.wiring import Rookery, Sharing, open_rookery, place_beside, put_database_in_place


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
                end = await _backups(rookery).write(file, advance)
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
        Replace the SQLite file that is there when the new one is whole; it is kept, as rookery.db.before-restore-….
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
        if settings.store == "sqlite":
            await _replace(settings, file, force=force)
        async with open_rookery(settings, Sharing.NO_SERVER, filling=True) as rookery:
            with progress("Restoring", None) as advance:
                end = await _backups(rookery).restore(file, advance)
            with progress("Counting", None) as advance:
                await rookery.services.top.recount(advance)
            rookery.backends.reached("restore.counted")
            await rookery.backends.cache.clear()
            rookery.backends.reached("restore.cleared")
            await _backups(rookery).finished()
        _say_what(digests_of(end))

    asyncio.run(run())


async def _replace(settings: Settings, file: Path, *, force: bool) -> None:
    """Fill a new database beside the one that is there, and let it take its place when all rows are in it."""
    which = identity(*await asyncio.to_thread(verify, file))
    if (fresh := place_beside(settings, which, force=force)) is None:
        return
    async with open_rookery(settings, Sharing.NO_SERVER, filling=True, file=fresh) as rookery:
        with progress("Restoring", None) as advance:
            await _backups(rookery).restore(file, advance)
    if (aside := put_database_in_place(settings, fresh)) is not None:
        say(f"What was there is in {aside} now.")


def _backups(rookery: Rookery) -> Backups:
    backends = rookery.backends
    return Backups(backends.store, backends.clock, __version__, backends.reached)


def _say_what(digests: Mapping[Part, Digest]) -> None:
    for part, digest in digests.items():
        say(f"{part.value:10} {digest.rows:>12,}  {digest.total:064x}")
