"""Secrets from files of their own, which neither `ps` nor the environment of a process shows."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_MOST_BYTES = 4096
"""The longest secret in bytes, its line end included."""


def from_files(
    secrets: Iterable[str], values: dict[str, Any], sources: dict[str, str], faulty: set[str]
) -> Iterator[str]:
    """Give settings that are secrets the values that are in files of their own; every fault, without any secret.

    All are by the settings' names; the one that names the file of `x` is `x_file`. Those with a fault go into `faulty`.
    """
    for secret in secrets:
        name = f"{secret}_file"
        if not values[name]:
            continue
        if values[secret]:
            faulty.add(name)
            yield f"{name}: {secret} is given as well ({sources[secret]}); give one of them ({sources[name]})"
            continue
        try:
            values[secret] = _read(Path(values[name]))
            sources[secret] = f"{name} {values[name]}"
        except ValueError as error:
            faulty.add(name)
            yield f"{name}: {error} ({sources[name]})"


def _read(path: Path) -> str:
    """The one line of a file, without its line end. Raises ValueError with a reason, which never shows the content."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {(error.strerror or 'an error').lower()}") from None
    if len(raw) > _MOST_BYTES:
        raise ValueError(f"{path} is longer than {_MOST_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    line = text.removesuffix("\n").removesuffix("\r")
    if not line or not line.isprintable():
        raise ValueError(f"{path} is not one line of printable characters")
    return line
