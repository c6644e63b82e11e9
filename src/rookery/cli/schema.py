"""`rookery migrate` and `rookery schema`: the tables of a store."""

import asyncio
from typing import Annotated

from cyclopts import App, Parameter

from rookery.cli.flags import Flags, read
from rookery.cli.output import say
from rookery.domain.errors import Conflict
from rookery.wiring import apply_schema, schemas_of
from rookery.wiring import migrate as migrate_all


def add_to(app: App) -> None:
    """Add these commands."""
    app.command(migrate)
    schema = App(name="schema", help="The tables of a store that is a server of its own.")
    schema.command(apply)
    app.command(schema)


def migrate(*, check: Annotated[bool, Parameter(negative="")] = False, flags: Flags = None) -> None:
    """Bring the tables up to this Rookery. A SQLite file is kept as it was; of Cassandra make a backup first.

    Parameters
    ----------
    check
        Change nothing: say which schema there is, with status 1 when it must be brought up.
    """
    settings = read(flags).settings
    before = asyncio.run(schemas_of(settings))
    if check:
        for part, (found, needed) in before.items():
            if 0 < found < needed:
                raise _too_old(part, found, needed)
        if settings.store == "cassandra" and not before["store"][0]:
            raise Conflict(
                "schema_missing", "The keyspace has no tables of Rookery: make them with rookery schema apply."
            )
    elif any(found != needed for found, needed in before.values()):
        kept = asyncio.run(migrate_all(settings))
        if kept is not None:
            say(f"What was there is kept in {kept}.")
    for part, (found, needed) in asyncio.run(schemas_of(settings)).items():
        say(
            f"The {part} has schema {found}."
            if found
            else f"The {part} is made when it is first used, with schema {needed}."
        )


def _too_old(part: str, found: int, needed: int) -> Conflict:
    return Conflict("schema_too_old", f"The {part} has schema {found}, this Rookery needs {needed}: rookery migrate.")


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
