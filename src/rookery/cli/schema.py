"""`rookery schema`: the tables of a store that is a server of its own."""

import asyncio

from cyclopts import App

from rookery.cli.flags import Flags, read
from rookery.cli.output import say
from rookery.domain.errors import Conflict
from rookery.wiring import apply_schema


def add_to(app: App) -> None:
    """Add these commands."""
    schema = App(name="schema", help="The tables of a store that is a server of its own.")
    schema.command(apply)
    app.command(schema)


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
