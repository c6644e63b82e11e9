"""What several files of unit tests share."""

from pathlib import Path

import pytest

from rookery.config import settings as config
from tests.unit.configs import Toml


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "etc" / "rookery.toml")


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    def write(text: str) -> Path:
        path = tmp_path / "rookery.toml"
        path.write_text(text)
        return path

    return write
