"""Getting into a Cassandra that asks who comes and takes TLS only, and not into one that is not who it should be."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rookery.adapters.cassandra import Access, CassandraStore, apply_schema, connect
from rookery.adapters.system import SystemClock
from rookery.domain.errors import Conflict, Failure, Unavailable
from tests.contract.expecting import refused
from tests.servers import started
from tools.certificates import Authority
from tools.servers import Cassandra

SECONDS = 10.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def node(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cassandra]:
    keystore = tmp_path_factory.mktemp("node") / "keystore.pem"
    keystore.write_text(authority.sign("node", "127.0.0.1").read_text())
    node = Cassandra(keystore.parent / "data", keystore=keystore, passwords=True)
    with started(node):
        yield node


def access(node: Cassandra, authority: Path | None, password: str = "cassandra") -> Access:
    return Access([node.address], user="cassandra", password=password, authority=authority)


async def enter(by: Access) -> None:
    session = await connect(by, SystemClock(), keyspace=None, seconds=SECONDS)
    await session.close()


async def test_who_knows_the_password_and_the_authority_gets_in(node: Cassandra, authority: Authority) -> None:
    by = access(node, authority.certificate)
    async with asyncio.timeout(60):
        while True:  # its first user is made some seconds after it began to answer
            try:
                await apply_schema(by, SystemClock(), "rookery", "1")
                break
            except Unavailable:
                await asyncio.sleep(0.5)
    session = await connect(by, SystemClock(), keyspace="rookery", seconds=SECONDS)
    store = CassandraStore(session, SystemClock())
    await store.check()
    await store.close()


async def test_who_does_not_know_the_password_stays_out(node: Cassandra, authority: Authority) -> None:
    with pytest.raises(Unavailable) as caught:
        await enter(access(node, authority.certificate, "wrong"))
    assert "cassandra" not in caught.value.message


async def test_a_node_that_another_authority_signed_is_not_believed(
    node: Cassandra, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with refused(Unavailable, "store_unavailable"):
        await enter(access(node, other.certificate))
    with refused(Unavailable, "store_unavailable"):
        await enter(access(node, None))


async def test_an_authority_that_can_not_be_read_is_told(node: Cassandra, tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        await enter(access(node, tmp_path / "nobody.pem"))
    assert caught.value.code == "unreadable_file"


async def test_a_certificate_for_another_address_is_not_believed(node: Cassandra, authority: Authority) -> None:
    await enter(access(node, authority.certificate))
    node.stop()
    assert node.keystore
    right = node.keystore.read_text()
    try:
        node.keystore.write_text(authority.sign("elsewhere", "127.0.0.99").read_text())
        node.start()
        with refused(Unavailable, "store_unavailable"):
            await enter(access(node, authority.certificate))
    finally:
        node.stop()
        node.keystore.write_text(right)
        node.start()


async def test_a_datacenter_that_is_not_there_is_told(node: Cassandra, authority: Authority) -> None:
    by = Access([node.address], "nowhere", "cassandra", "cassandra", authority.certificate)
    with pytest.raises((Conflict, Unavailable)):
        await enter(by)
