"""`rookery migrate` and `rookery schema`: the tables of a store."""

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

from rookery.cli.flags import Flags, read
from rookery.cli.output import say
from rookery.domain.errors import Conflict
from rookery.wiring import apply_schema, schema_of
from rookery.wiring import migrate as migrate_store


def add_to(app: App) -> None:
    """Add these commands."""
    app.command(migrate)
    schema = App(name="schema", help="The tables of a store that is a server of its own.")
    schema.command(apply)
    app.command(schema)


def migrate(*, check: Annotated[bool, Parameter(negative="")] = False, flags: Flags = None) -> None:
    """Bring the store's tables up to this Rookery. Make a backup first, with the Rookery that made them.

    Parameters
    ----------
    check
        Change nothing: say which schema there is, with status 1 when it must be brought up.
    """
    settings = read(flags).settings
    found, needed = asyncio.run(schema_of(settings))
    if found == needed:
        say(f"The store has schema {found}, the one of this Rookery.")
    elif not check:
        asyncio.run(migrate_store(settings))
        say(f"The store has schema {needed} now, and had {found or 'none'} before.")
    elif found:
        raise Conflict("schema_too_old", f"The store has schema {found}, this Rookery needs {needed}: rookery migrate.")
    else:
        say(f"There is no store yet; it is made with schema {needed}.")


def apply(*, flags: Flags = None) -> None:
    """Make the tables in Cassandra, or bring those of an older Rookery up. Doing it twice changes nothing."""
    settings = read(flags).settings
    if settings.store != "cassandra":
        raise Conflict("no_schema", f"store = {settings.store} makes its tables itself, when it is opened.")
    before, now = asyncio.run(apply_schema(settings))
    if before == now:
        say(f"The keyspace {settings.store_keyspace} has schema {now} already.")
    else:
        say(f"The keyspace {settings.store_keyspace} has schema {now} now.")
