"""What we ship and advise for Redis: its configurations, and the rights that Rookery needs."""

from pathlib import Path

import pytest
import redis

from rookery.adapters.redis import Access, RedisRanking, RedisStore
from rookery.adapters.system import SystemClock
from tests.contract.given import Given
from tests.servers import started
from tools.servers import Redis
from tools.servers.process import free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "redis"
SHIPPED = {"ranking.conf": "everysec", "store.conf": "always", "cluster.conf": "always"}
RIGHTS = "~{rookery* +@all -@dangerous +info +cluster|slots +function|load"


@pytest.mark.parametrize(("name", "fsync"), SHIPPED.items())
async def test_a_shipped_configuration_keeps_what_is_written(
    tmp_path: Path, name: str, fsync: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert "\ndir /" in (FOLDER / name).read_text(), "else it keeps its file wherever it is started"
    with started(Redis(tmp_path / "redis", file=FOLDER / name, bus_port=free_port())) as server:
        with redis.Redis(port=server.port) as connection:
            found = connection.config_get("append*", "maxmemory-policy", "save")
        assert (found["appendonly"], found["appendfsync"]) == ("yes", fsync)
        assert (found["maxmemory-policy"], found["save"]) == ("noeviction", "")
        assert (server.folder / found["appenddirname"]).is_dir()
        if name == "cluster.conf":
            return
        store = RedisStore(Access([server.address]), SystemClock())
        await store.open()
        ada = await Given(store).user()
        await store.close()
        assert caplog.text == "", "nothing to warn of"
        server.kill()
        server.start()
        again = RedisStore(Access([server.address]), SystemClock())
        await again.open()
        assert await again.users([ada.id]) == {ada.id: ada}
        await again.close()


def test_every_shipped_configuration_is_tested() -> None:
    assert {file.name for file in FOLDER.iterdir()} == SHIPPED.keys()


async def test_a_user_with_the_rights_of_the_manual_is_enough(tmp_path: Path) -> None:
    assert RIGHTS.split(" ", 1)[1] in (ROOT / "docs" / "redis.md").read_text()
    with started(Redis(tmp_path / "redis")) as server:
        with redis.Redis(port=server.port) as connection:
            connection.execute_command("ACL", "SETUSER", "someone", "on", ">open sesame", *RIGHTS.split())
        access = Access([server.address], user="someone", password="open sesame")
        store, ranking = RedisStore(access, SystemClock()), RedisRanking(access, SystemClock())
        await store.open()
        await store.check()
        await Given(store).user()
        await ranking.check()
        assert await ranking.run()
        await store.close()
        await ranking.close()
