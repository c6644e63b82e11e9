"""`rookery copy`: everything from one store to another."""

import asyncio
import os
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import App, Parameter

from rookery.cli.output import progress, say, tell
from rookery.config import load
from rookery.services.copying import Copying, copies_differ
from rookery.wiring import Sharing, open_rookery


def add_to(app: App) -> None:
    """Add these commands."""
    app.command(copy)


def copy(
    *,
    source: Annotated[Path, Parameter(name="--from")],
    target: Annotated[Path, Parameter(name="--to")],
    verify: bool = False,
) -> None:
    """Copy everything from the store of one settings file to that of another, or compare them. Stop the servers first.

    It may be stopped and run again. Counts and caches of the target are made anew.

    Parameters
    ----------
    source
        The settings file of the store to copy from.
    target
        The settings file of the store to copy to, which is empty or has a part of the copy.
    verify
        Copy nothing and compare: exit status 1 when they differ.
    """
    command = f"rookery copy --from {quote(str(source.absolute()))} --to {quote(str(target.absolute()))}"
    asyncio.run(_run(source, target, command, verify=verify))


async def _run(source: Path, target: Path, command: str, *, verify: bool) -> None:
    # Each file by itself: the rest of the environment can't be meant for both.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ROOKERY_")}
    settings = [load(flags={}, environ=environ, file=file).settings for file in (source, target)]
    async with (
        open_rookery(settings[0], Sharing.NO_SERVER) as here,
        open_rookery(settings[1], Sharing.NO_SERVER, filling=True) as there,
    ):
        stores = here.backends.store, there.backends.store
        copying = Copying(*stores, there.backends.clock, settings[1].data, command, there.backends.reached)
        if verify:
            with progress("Comparing", None) as advance:
                differing = await copying.compare(advance)
            for part, (mine, theirs) in differing.items():
                tell(
                    f"{part.value}: {mine.rows:,} rows and {theirs.rows:,}, digests {mine.total:x} and {theirs.total:x}"
                )
            if differing:
                raise copies_differ()
            say("Both stores hold the same.")
            return
        with progress("Copying", None) as advance:
            copied = await copying.run(advance)
        with progress("Counting", None) as advance:
            await there.services.top.recount(advance)
        there.backends.reached("copy.counted")
        await there.backends.cache.clear()
        there.backends.reached("copy.cleared")
        await copying.finished()
        say(f"{copied:,} rows are copied.")
