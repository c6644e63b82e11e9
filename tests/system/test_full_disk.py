"""The disk of a running server fills up: writes are refused, reads go on, nothing is lost, and it heals by itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.adapters.mounts import fill, mounted_tmpfs, remount_read_only
from tests.serving import Server, running_server
from tests.system.commands import rookery

LONG = "x" * 280


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with mounted_tmpfs(tmp_path / "data", "6m"), running_server(tmp_path) as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as http:
        yield http


async def post(http: httpx.AsyncClient, key: str) -> httpx.Response:
    body = f"{key} {LONG}"[:280]
    return await http.post("/tweet", json={"user_name": "ada", "body": body}, headers={"Idempotency-Key": key})


async def everything(http: httpx.AsyncClient) -> dict[str, Any]:
    """What anyone may read."""
    paths = ("/feed/@bob?limit=100", "/tweet/@ada?limit=100", "/top?limit=100", "/user?name=ada", "/followers/@ada")
    found = {}
    for path in paths:
        answer = await http.get(path)
        assert answer.status_code == 200, answer.text
        found[path] = answer.json()
    assert (await http.get("/")).status_code == 200
    return found


async def fill_up(http: httpx.AsyncClient, data: Path, kept: dict[str, Any], turn: int) -> tuple[Path, str]:
    """Take the space away and post until that is refused: what took the space, and the key that was refused."""
    ballast = fill(data)
    for number in range(5_000):
        answer = await post(http, f"{turn}/{number}")
        if answer.status_code != 201:
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            return ballast, f"{turn}/{number}"
        kept[f"{turn}/{number}"] = answer.json()
    pytest.fail("the disk was never full")


async def test_a_full_disk_refuses_writes_and_loses_nothing(server: Server, http: httpx.AsyncClient) -> None:
    kept = {"first": (await post(http, "first")).json()}
    await http.post("/tweet", json={"user_name": "bob", "body": "hello"})
    await http.post("/follow/@bob", json={"followee_id": "@ada"})
    for turn in range(2):
        ballast, refused = await fill_up(http, server.data, kept, turn)
        before = await everything(http)
        assert (await post(http, refused)).status_code == 503
        assert (await http.post("/user", json={"name": "eve"})).status_code == 503
        assert (await http.get("/livez")).status_code == 200
        async with asyncio.timeout(10):
            while (await http.get("/readyz")).status_code != 503:
                await asyncio.sleep(0.05)
        assert (await http.get("/status")).json()["store"] == "store_unavailable"
        assert await everything(http) == before

        ballast.unlink()
        answer = await post(http, refused)
        assert answer.status_code == 201, answer.text
        kept[refused] = answer.json()
        async with asyncio.timeout(10):
            while (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)

    found, path = [], "/tweet/@ada?limit=100"
    while path:
        page = await http.get(path)
        found += page.json()
        path = page.links.get("next", {}).get("url", "")
    assert sorted(tweet["id"] for tweet in found) == sorted(tweet["id"] for tweet in kept.values())
    assert server.process.poll() is None
    assert " 0 were wrong" in rookery("recount", "--data", str(server.data)).stdout


def test_a_folder_that_can_not_be_written_is_told_at_once(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "1m") as disk:
        remount_read_only(disk)
        done = rookery("serve", "--port", "0", "--data", str(disk / "data"), status=1)
        assert done.stderr.count("\n") == 1
        assert "Read-only file system" in done.stderr
        assert "[store_unavailable]" in done.stderr
