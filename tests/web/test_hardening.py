"""Things that went wrong once and show only from outside."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rookery.adapters.sqlite import Database
from rookery.web.api import users
from tests.web.conftest import Serve
from tests.web.site import Site, refused


async def test_a_refused_tweet_makes_no_user(open_mode: Site) -> None:
    for path, more in (("/tweet", {}), ("/retweet", {"retweet": "0" * 8 + "-0000" * 3 + "-" + "0" * 12})):
        answer = await open_mode.client.post(path, data={"user_name": "ghost", "body": "\x07", **more})
        refused(answer, 422, "body_characters")
    refused(await open_mode.client.get("/user?name=ghost"), 404, "unknown_user")


@pytest.mark.usefixtures("clock")
async def test_one_address_can_not_multiply_its_limit_by_tokens(serve: Serve) -> None:
    site = await serve(rate_limit="on", rate_limit_token=1_000, rate_limit_address=4)
    token = (await site.client.post("/user", data={"name": "ada"})).json()["token"]
    answers = [
        (await site.client.get("/top", headers={"Authorization": f"Bearer {token}"})).status_code for _ in range(60)
    ]
    assert answers.count(200) == 4
    assert answers[-1] == 429


@pytest.mark.usefixtures("clock")
async def test_passwords_can_not_be_tried_without_end(serve: Serve) -> None:
    site = await serve(rate_limit="on")
    paths = ("/api/v1/token", "/api/v1/token/")
    sent = {"name": "ada", "password": "x"}
    for path in ("/api//v1//token", "/api/v1/%74oken"):
        assert (await site.client.post(path, data=sent)).status_code == 404
    answers = [(await site.client.post(paths[number % 2], data=sent)).status_code for number in range(32)]
    assert answers[-2:] == [429, 429]
    assert set(answers[:-2]) == {401}


@pytest.mark.usefixtures("clock")
async def test_passwords_can_not_be_made_without_end(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "NEW_PASSWORDS", 2)
    site = await serve(rate_limit="on")
    await site.register("taken")
    sent = {"name": "taken", "password": "correct horse"}
    answers = [(await site.client.post("/user", data=sent)).status_code for _ in range(3)]
    assert answers == [409, 409, 429]
    assert (await site.client.post("/user", data={**sent, "name": "no name"})).status_code == 422, "nothing is hashed"
    assert (await site.client.post("/user", data={"name": "ada"})).status_code == 201
    async with site.client_at("10.0.0.9") as elsewhere:
        assert (await elsewhere.post("/user", data={**sent, "name": "bob"})).status_code == 201


async def test_open_mode_answers_to_its_own_ipv6_address(serve: Serve) -> None:
    site = await serve(auth="open", host="fd00::5", open_on_network=True)
    answer = await site.client.post(
        "/tweet", data={"user_name": "ada", "body": "x"}, headers={"Host": "[fd00::5]:5000"}
    )
    assert answer.status_code == 201


async def test_a_content_type_may_say_more(open_mode: Site) -> None:
    answer = await open_mode.client.post(
        "/user", content='{"name": "ada"}', headers={"Content-Type": 'application/json; v=1; charset="UTF-8"'}
    )
    assert answer.status_code == 201


async def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    database = Database(folder / "rookery.db")
    try:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}
    finally:
        await database.close()
    assert modes.pop("data") == 0o700
    assert modes
    assert set(modes.values()) == {0o600}


def test_a_traceback_on_a_terminal_shows_no_values() -> None:

    program = (
        "import logging\nfrom rookery.web import logs\nlogs.configure('pretty', 'info')\n"
        "def check(password):\n    raise ValueError('wrong')\n"
        "try:\n    check('correct ' + 'horse')\nexcept ValueError:\n    logging.getLogger('x').exception('failed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "ValueError" in done.stdout
    assert "correct horse" not in done.stdout + done.stderr
