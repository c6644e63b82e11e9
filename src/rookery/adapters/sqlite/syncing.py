"""Names of files that are on the disk, not only the files."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Return when what was made, renamed and removed in a folder survives a loss of power."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
