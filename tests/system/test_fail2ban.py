"""The filter for fail2ban, on lines that a real server wrote: who is banned for what, in either format of the log."""

import re
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import httpx
import pytest

from tests.servers import do_without
from tests.serving import Server, running_server
from tools.servers.installing import Missing, require

FILTER = Path("deploy/fail2ban/rookery.conf")
PASSWORD, TYPED_AS_NAME = "correct horse", 'my "secret" password'
TOKEN = "rk_a_token_that_is_not_valid"
GUESSED = ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
PROXY = "127.0.0.1"
ELSEWHERE = "127.0.0.2"
"""Of a client that comes by no proxy."""
REFUSED = [*GUESSED, "192.0.2.3", "192.0.2.4"]


@pytest.fixture(scope="module", params=["json", "pretty"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a server wrote about clients of these addresses, in this order."""
    flags = ("--auth", "token", "--trusted-proxies", "127.0.0.1", "--log-format", request.param)
    with running_server(tmp_path_factory.mktemp("log"), *flags) as server:
        ada = ask(server, "192.0.2.9", "/user", {"name": "ada", "password": PASSWORD}, 201)["token"]
        for address, name in zip(GUESSED, ("ada", "nobody", TYPED_AS_NAME), strict=True):
            ask(server, address, "/token", {"name": name, "password": "wrong horse"}, 401)
        ask(server, "192.0.2.3", "/tweet", {"user_name": "ada", "body": "x"}, 401, Authorization=f"Bearer {TOKEN}")
        ask(server, "192.0.2.4", "/user", {"name": "bob"}, 403, Origin="https://evil.example")
        ask(server, "192.0.2.5", "/tweet", {"user_name": "ada", "body": "x"}, 401)
        forged = '"client":"192.0.2.66","code":"bad_credentials"'
        ask(server, "192.0.2.6", "/user", {"name": "eve"}, 201, **{"User-Agent": forged, "X-Request-Id": forged})
        ask(server, f"{forged}", "/token", {"name": "ada", "password": "x"}, 401)
        ask(server, "192.0.2.9", "/tweet", {"user_name": "ada", "body": "x"}, 201, Authorization=f"Bearer {ada}")
        with httpx.Client(transport=httpx.HTTPTransport(local_address=ELSEWHERE)) as client:
            assert client.get(f"{server.url}/top", headers={"Host": "evil.example"}).status_code == 421
        server.stop()
        yield server.out()


def ask(server: Server, address: str, path: str, body: dict[str, str], status: int, **headers: str) -> dict[str, str]:
    sent = {"X-Forwarded-For": address, **headers}
    answer = httpx.post(f"{server.url}/api/v1{path}", json=body, headers=sent, timeout=60)
    assert answer.status_code == status, answer.text
    told: dict[str, str] = answer.json()
    return told


def expressions(mode: str) -> list[re.Pattern[str]]:
    """The filter's own expressions, as fail2ban reads them: its tag for an address is any address here."""
    found = RawConfigParser()
    found.read(FILTER)
    rules = found["Definition"]
    texts = rules["failregex"].replace("<_codes-<mode>>", rules[f"_codes-{mode}"]).splitlines()
    return [re.compile(text.replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)")) for text in texts if text]


def banned(log: str, mode: str) -> list[str]:
    matches = [expression.search(line) for line in log.splitlines() for expression in expressions(mode)]
    return [match["address"] for match in matches if match]


def test_wrong_passwords_are_found(log: str) -> None:
    assert banned(log, "normal") == [*GUESSED, PROXY], "what a proxy sends in words counts for the proxy"


def test_in_its_other_mode_the_filter_finds_other_refusals(log: str) -> None:
    assert banned(log, "aggressive") == [*REFUSED, PROXY, ELSEWHERE]


@pytest.mark.parametrize(
    ("mode", "expected"), [("normal", [*GUESSED, PROXY]), ("aggressive", [*REFUSED, PROXY, ELSEWHERE])]
)
def test_fail2ban_itself_finds_the_same(log: str, tmp_path: Path, mode: str, expected: list[str]) -> None:
    try:
        program = require("fail2ban-regex", "fail2ban")
    except Missing as missing:
        do_without(missing)
    file = tmp_path / "log"
    file.write_text(log)
    command = [program, "-o", "ip", str(file), f"{FILTER.resolve()}[mode={mode}]"]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == expected


def test_names_are_logged_and_no_secret_is(log: str) -> None:
    refused = [line for line in log.splitlines() if "bad_credentials" in line]
    assert re.search(r'"?name"?[:=]"?ada\b', refused[0])
    assert re.search(r'"?name"?[:=]"?nobody\b', refused[1])
    assert "name" not in refused[2], "it may be a password"
    for secret in (PASSWORD, "wrong horse", "secret", TOKEN, "192.0.2.66"):
        assert secret not in log
    assert [line for line in log.splitlines() if "192.0.2.9" in line] == [], "who is not refused leaves no address"
