"""The settings as flags, the same for every command that opens the server's files."""

import os
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from rookery.config import SPECS, Loaded, load

_GROUP = Group("Settings", help="Each overrides the environment and the file; docs/settings.md tells all.")

_fields: list[tuple[str, Any, Any]] = [
    (
        "config",
        Annotated[Path | None, Parameter(name="--config", help="The TOML file to read.", group=_GROUP)],
        None,
    )
]
_fields += [
    (
        spec.attribute,
        Annotated[str | None, Parameter(name=spec.flag, help=spec.help, group=_GROUP)],
        None,
    )
    for spec in SPECS
]

_made = make_dataclass("Flags", _fields, frozen=True)
_made.__module__ = __name__  # where its annotations are looked up

Flags: Any = Annotated[_made, Parameter(name="*")]
"""A parameter that takes all settings as flags."""


def read(flags: Any) -> Loaded:
    """The settings with these flags over the environment and the file.

    Raises:
        ConfigError: with every fault.
    """
    given = {spec.name: getattr(flags, spec.attribute) for spec in SPECS} if flags is not None else {}
    return load(flags=given, environ=os.environ, file=flags.config if flags is not None else None)
