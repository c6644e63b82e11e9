"""Host names that a server answers to: a page whose name was pointed here (DNS rebinding) reads and writes nothing."""

from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from rookery.web.origins import describe_hosts
from rookery.wiring import web_options
from tests.web.conftest import Serve
from tests.web.site import Site, listed, refused

OWN = [
    *("127.0.0.1", "127.0.0.1:5000", "192.168.0.1", "[::1]:5000", "[::2]", "[::ffff:10.0.0.1]"),
    *("localhost", "localhost:5000", "LOCALHOST", "localhost.", "localhost:"),
    *("Rookery.Example", "rookery.example.:80", "other.example", "here.example:1"),
]
FOREIGN = [
    *("evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost.evil.example:5000", "evil.localhost"),
    *("rookery.example.evil.example", "rookery.example@evil.example", "rookery.example,evil.example"),
    *("", ":", "::1", "[localhost]", "[127.0.0.1]", "[::1", "127.1", "0x7f.0.0.1", "localhost..", "a" * 30_000),
]
ASKED = [
    *(
        ("GET", "/top"),
        ("GET", "/livez"),
        ("GET", "/readyz"),
        ("GET", "/status"),
        ("HEAD", "/top"),
        ("OPTIONS", "/top"),
    ),
    *(("POST", "/user"), ("POST", "/token"), ("DELETE", "/token"), ("PATCH", "/top"), ("GET", "/nowhere")),
]
MODES: list[dict[str, Any]] = [{}, {"auth": "open"}, {"reads": "token"}]


async def ask(client: httpx.AsyncClient, host: str, method: str = "GET", path: str = "/top") -> httpx.Response:
    return await client.request(method, f"/api/v1{path}", headers={"Host": host})


@pytest.mark.parametrize("mode", MODES, ids=str)
async def test_a_server_answers_to_its_own_hosts_only(serve: Serve, mode: dict[str, Any]) -> None:
    site = await serve(host="here.example", allowed_hosts=("rookery.example", "OTHER.example."), **mode)
    for host in OWN:
        assert (await ask(site.client, host, path="/livez")).status_code == 200, host
        assert (await ask(site.client, host)).status_code == (401 if "reads" in mode else 200), host
    for host in FOREIGN:
        for method, path in ASKED:
            response = await ask(site.client, host, method, path)
            if method == "HEAD":
                assert response.status_code == 421
                continue
            told = refused(response, 421, "unknown_host")
            assert told["title"] == "Misdirected Request"
            assert "allowed_hosts" in told["detail"], "what to set"


async def test_a_token_does_not_make_a_foreign_host_known(site: Site) -> None:
    ada = await site.register("ada")
    foreign = {"Host": "evil.example"}
    for who in (ada, None):
        refused(await site.get("/feed/@ada", who, headers=foreign), 421, "unknown_host")
        refused(await site.post("/tweet/@ada", who, headers=foreign, json={"tweet": "x"}), 421, "unknown_host")
    refused(await site.client.get("/", headers=foreign), 421, "unknown_host")
    assert listed(await site.get("/tweet/@ada")) == []


async def test_a_foreign_host_uses_up_nothing_of_its_victims_limit(serve: Serve) -> None:
    """The page runs in the victim's browser, so it comes from the victim's address."""
    site = await serve(rate_limit="on", rate_limit_address=2)
    for _ in range(5):
        refused(await ask(site.client, "evil.example"), 421, "unknown_host")
    assert (await ask(site.client, "localhost")).status_code == 200


async def test_who_sends_no_host_is_no_browser(site: Site) -> None:
    """A health check in HTTP/1.0, say, or HAProxy's own without `hdr Host`."""
    request = site.client.build_request("GET", "/livez")
    del request.headers["host"]
    assert (await site.client.send(request)).status_code == 200


async def test_a_trusted_proxy_answers_for_the_host(serve: Serve) -> None:
    site = await serve(trusted_proxies=(ip_network("10.0.0.1/32"),))
    async with site.client_at("10.0.0.1") as proxy, site.client_at("10.0.0.2") as stranger:
        assert (await ask(proxy, "rookery.example")).status_code == 200
        refused(await ask(stranger, "rookery.example"), 421, "unknown_host")
        forged = {"Host": "evil.example", "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Host": "localhost"}
        refused(await stranger.get("/api/v1/top", headers=forged), 421, "unknown_host")


async def test_in_open_mode_no_proxy_answers_for_the_host(serve: Serve) -> None:
    """One that speaks HTTP has no certificate that a foreign name would fail by, and without tokens all is open."""
    site = await serve(auth="open", trusted_proxies=(ip_network("127.0.0.1/32"),), allowed_hosts=("rookery.example",))
    assert (await ask(site.client, "rookery.example")).status_code == 200
    refused(await ask(site.client, "evil.example"), 421, "unknown_host")


async def test_the_start_says_which_hosts_are_answered(serve: Serve) -> None:
    site = await serve(host="::", allowed_hosts=("rookery.example", "::1"))
    allowed = web_options(site.settings).allowed_hosts
    assert describe_hosts(allowed, by_proxies=False) == (
        "Answers to localhost, any IP address, rookery.example (setting allowed_hosts)"
    )
    assert "trusted proxy" in describe_hosts(allowed, by_proxies=True)
