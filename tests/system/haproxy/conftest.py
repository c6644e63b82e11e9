"""Two servers behind the HAProxy that we ship."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.servers import running, started
from tests.serving import Server
from tests.system.haproxy.asking import addresses, client_of, wait_until_all_are_up
from tools.certificates import Authority
from tools.servers import HAProxy, Memcached, Redis


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Path:
    return authority.sign("haproxy", "127.0.0.1")


@pytest.fixture(scope="module")
def flags() -> Sequence[str]:
    keeping, caching = running(Redis), running(Memcached)
    return (
        *("--store", "redis", "--store-servers", keeping.address),
        *("--ranking", "redis", "--ranking-servers", keeping.address),
        *("--cache", "memcached", "--cache-servers", caching.address),
        *("--trusted-proxies", "127.0.0.1", "--drain-seconds", "3"),
    )


@pytest.fixture(scope="module")
def servers(flags: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("servers")
    made = [Server(folder / name, *flags, measured=False) for name in ("one", "two")]
    with ExitStack() as stack:
        for server in made:
            server.start()
            stack.callback(server.stop)
        yield made


@pytest.fixture
def proxy(servers: list[Server], certificate: Path, tmp_path: Path) -> Iterator[HAProxy]:
    with started(HAProxy(tmp_path / "haproxy", addresses(servers), certificate)) as proxy:
        wait_until_all_are_up(proxy)
        yield proxy


@pytest.fixture
async def http(proxy: HAProxy, authority: Authority) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(proxy, authority) as http:
        yield http
