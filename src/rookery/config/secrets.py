"""Secrets from files of their own, which neither `ps` nor the environment of a process shows."""

from pathlib import Path

_MOST_BYTES = 4096
"""The longest secret in bytes, its line end included."""


def read_secret(path: Path) -> str:
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
