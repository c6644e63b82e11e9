"""Why a part could not answer is in the log, once a minute for each kind of cause, and nowhere else."""

import logging
from types import SimpleNamespace

import pytest

from rookery.domain.errors import Unavailable
from rookery.ports.tracer import UNTRACED
from rookery.services import watching
from rookery.services.watching import Watch
from tests.contract.expecting import refused


class Part:
    """A store that fails for a reason of its own."""

    cause: Exception | None = OSError("disk I/O error at 0x7f")

    async def check(self) -> None:
        raise Unavailable("store_unavailable", "The database can't be read now.") from self.cause


def causes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == watching.__name__]


async def test_each_kind_of_cause_is_told_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("rookery.services.repeating.time", SimpleNamespace(monotonic=lambda: now))
    part = Part()
    watched = Watch("store", UNTRACED).on(part)
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            with pytest.raises(Unavailable) as caught:
                await watched.check()
            assert "disk" not in caught.value.message
        assert causes(caplog) == [
            "the store failed (store_unavailable, asked for check): OSError: disk I/O error at 0x7f"
        ]
        part.cause = TimeoutError("no answer")
        with refused(Unavailable, "store_unavailable"):
            await watched.check()
        assert len(causes(caplog)) == 2, "another kind"
        now += 60.0
        with refused(Unavailable, "store_unavailable"):
            await watched.check()
        assert len(causes(caplog)) == 3
        part.cause = None
        with refused(Unavailable, "store_unavailable"):
            await watched.check()
        assert len(causes(caplog)) == 3, "a refusal without a cause is no failure of the store's own"
