"""Settings as the tests read them: no file of this machine, and a home that is always the same."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rookery.config import SPECS, ConfigError, FlagValue, Loaded, load

SPEC = {spec.name: spec for spec in SPECS}
HOME = {"HOME": "/home/ada"}

Toml = Callable[[str], Path]


def loaded(
    flags: Mapping[str, FlagValue] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> Loaded:
    return load(flags=flags or {}, environ=HOME | dict(environ or {}), file=file)


def faults(
    flags: Mapping[str, FlagValue] | None = None, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(flags, environ, file)
    assert str(caught.value) == "\n".join(caught.value.faults)
    assert all(line.isprintable() for line in caught.value.faults), "a fault is one line"
    return caught.value.faults


def from_flag(name: str, text: FlagValue) -> Any:
    return getattr(loaded({name: text}).settings, SPEC[name].attribute)
