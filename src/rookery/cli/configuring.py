"""`rookery config` and `rookery openapi`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from rookery.cli.flags import Flags, read
from rookery.cli.output import complain, say
from rookery.config import SPECS, Settings, Spec
from rookery.domain.errors import Malformed


def add_to(app: App) -> None:
    """Add these commands."""
    config = App(name="config", help="Look at the settings.")
    config.command(show)
    config.command(check)
    app.command(config)
    app.command(openapi)


def show(*, flags: Flags = None) -> None:
    """Print every setting with its value and where it comes from."""
    loaded = read(flags)
    rows = [(spec.name, _text(loaded.settings, spec), loaded.sources[spec.name]) for spec in SPECS]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        say(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")


def check(*, flags: Flags = None) -> None:
    """Check the settings; every fault is named. Exit status 2 when there is one."""
    read(flags)
    say("The settings are good.")


def openapi(*, against: Annotated[Path | None, Parameter(name="--check")] = None) -> None:
    """Print the OpenAPI document.

    Parameters
    ----------
    against
        Compare with this file instead; exit status 1 when they differ.
    """
    from rookery.adapters.system import SystemClock
    from rookery.web.app import create_routes
    from rookery.wiring import web_options

    made: bytes = create_routes(None, web_options(Settings(data=Path())), SystemClock()).state.document
    if against is None:
        sys.stdout.buffer.write(made + b"\n")
        return
    try:
        kept = against.read_bytes()
    except OSError as error:
        raise Malformed("unreadable_file", f"{against}: {(error.strerror or 'not readable').lower()}") from None
    if kept.strip() != made.strip():
        complain(f"{against} is not what the code says; write it anew with: make openapi")
        sys.exit(1)


def _text(settings: Settings, spec: Spec) -> str:
    value = getattr(settings, spec.attribute)
    if spec.is_secret:
        return "(secret)" if value else "(none)"
    if value == "":
        return "(none)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | frozenset):
        return ",".join(str(item) for item in value) or "(none)"
    return str(value)
