"""`rookery user`: who may use this server, from the machine itself."""

import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable

from cyclopts import App

from rookery.cli.flags import Flags, read
from rookery.cli.output import say, tell
from rookery.domain.errors import BrokenRule
from rookery.services.callers import ANYONE
from rookery.wiring import Rookery, Sharing, open_rookery

_PAGE = 500


def add_to(app: App) -> None:
    """Add these commands."""
    user = App(name="user", help="Add, list and delete users, and give them tokens.")
    user.command(add)
    user.command(listed, name="list")
    user.command(token)
    user.command(delete)
    app.command(user)


def add(
    name: str, *, admin: bool = False, password: bool = False, display_name: str | None = None, flags: Flags = None
) -> None:
    """Add a user and print his token. Works beside a running server.

    Parameters
    ----------
    name
        The unique handle: 1 to 30 of A-Z a-z 0-9 _.
    admin
        He may delete any tweet or user, and register users where registration is closed.
    password
        Ask for a password, or read it as the first line of standard input.
    display_name
        The name that is shown; the handle when not given.
    """
    secret = _ask_password() if password else None

    async def run(rookery: Rookery) -> None:
        made = await rookery.services.accounts.register(ANYONE, name, secret, display_name, is_admin=admin)
        tell(f"Added {made.name}, id {made.user_id}.")
        if made.token:
            say(made.token)

    _with_rookery(run, flags, Sharing.ANYONE)


def listed(*, flags: Flags = None) -> None:
    """Print all users by handle: handle, id, and admin where he is one."""

    async def run(rookery: Rookery) -> None:
        after = ""
        while page := await rookery.services.accounts.list(after, _PAGE):
            for user in page:
                shown = await rookery.services.accounts.show(user)
                say(f"{user.name}\t{shown.user_id}\t{'admin' if user.is_admin else ''}".rstrip())
            after = page[-1].name

    _with_rookery(run, flags, Sharing.ANYONE)


def token(name: str, *, revoke: bool = False, flags: Flags = None) -> None:
    """Print a new token for a user, or end all of his.

    Parameters
    ----------
    name
        The user's handle.
    revoke
        End all his tokens instead; a running server refuses them within a second.
    """

    async def run(rookery: Rookery) -> None:
        accounts = rookery.services.accounts
        user = await accounts.find_name(name)
        if revoke:
            tell(f"Ended {await accounts.revoke_tokens(user)} of {user.name}'s tokens.")
        else:
            say(await accounts.give_token(user))

    _with_rookery(run, flags, Sharing.ANYONE)


def delete(name: str, *, yes: bool = False, flags: Flags = None) -> None:
    """Delete a user and everything of his, for good. The server must be stopped; beside it, use the API.

    Parameters
    ----------
    name
        The user's handle, which is never given to another.
    yes
        Really do it.
    """
    if not yes:
        raise BrokenRule("not_confirmed", f"This deletes {name} and everything of his; say --yes if you mean it.")

    async def run(rookery: Rookery) -> None:
        user = await rookery.services.accounts.find_name(name)
        await rookery.services.accounts.delete(ANYONE, user)
        await rookery.chores.purge_user(user.id)
        tell(f"Deleted {user.name}.")

    _with_rookery(run, flags, Sharing.NO_SERVER)


def _ask_password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\n")


def _with_rookery(run: Callable[[Rookery], Awaitable[None]], flags: Flags, sharing: Sharing) -> None:
    settings = read(flags).settings

    async def inside() -> None:
        async with open_rookery(settings, sharing) as rookery:
            await run(rookery)

    asyncio.run(inside())
