"""A person's own data, and that another Rookery takes it."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from rookery.cli import main
from rookery.client import Client
from rookery.services import exporting
from tests.serving import running_server
from tests.system.commands import rookery

LOAD_TWEETS = ("--title-column", "title", "--key-column", "id")


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    """Of Ada, written while the server runs."""
    file = tmp_path / "ada.zip"
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            first = await client.post("Ada", 'Hello, "world",\nand all', title="A title")
            answer = await client.retweet("bob", first.id, body="so")
            await client.retweet("Ada", answer.id)
            gone = await client.post("Ada", "gone")
            await client.delete_tweet("@Ada", gone.id)
            await client.post("eve", "not hers")
            await client.follow("@Ada", "@bob")
            await client.follow("@eve", "@Ada")
            done = rookery("export", "ada", str(file), "--data", str(server.data))
    assert "2 tweets of ada" in done.stdout
    return file


def rows(archive: Path) -> list[dict[str, str]]:
    with ZipFile(archive) as opened:
        return list(csv.DictReader(io.StringIO(opened.read("tweets.csv").decode(), newline="")))


def test_all_that_is_hers_is_there_and_nothing_else(archive: Path) -> None:
    with ZipFile(archive) as opened:
        assert opened.testzip() is None
        assert set(opened.namelist()) == {
            "README.txt",
            "profile.json",
            "tweets.csv",
            "following.tsv",
            "followers.tsv",
        }
        profile = json.loads(opened.read("profile.json"))
        assert opened.read("following.tsv").decode() == "Ada\tbob\n"
        assert opened.read("followers.tsv").decode() == "eve\tAda\n"
    assert (profile["name"], profile["count_tweets"], profile["count_followers"]) == ("Ada", 2, 1)
    assert [row["body"] for row in rows(archive)] == ["", 'Hello, "world",\nand all']
    assert [row["count_retweet"] for row in rows(archive)] == ["0", "2"]


async def test_another_rookery_takes_it(archive: Path, tmp_path: Path) -> None:
    with ZipFile(archive) as opened:
        opened.extractall(tmp_path / "out")
    written = [row for row in rows(archive) if row["body"]]
    data = str(tmp_path / "elsewhere" / "data")
    rookery("load", "tweets", str(tmp_path / "out" / "tweets.csv"), *LOAD_TWEETS, "--skip-bad", "--data", data)
    rookery("load", "graph", str(tmp_path / "out" / "following.tsv"), "--data", data)
    with running_server(tmp_path / "elsewhere") as server:
        async with Client(server.url) as client:
            found = [tweet async for tweet in client.tweets("@ada")]
            assert [(tweet.body, tweet.title) for tweet in found] == [('Hello, "world",\nand all', "A title")]
            assert f"{found[0].created_at:%Y-%m-%dT%H:%M:%S}" == written[0]["created_at"][:19]
            assert [user.name async for user in client.followees("@ada")] == ["bob"]


async def test_what_fills_many_pages_is_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_PAGE", 2)
    monkeypatch.setenv("ROOKERY_CONFIG", os.devnull)
    others = [f"user{number}" for number in range(5)]
    with running_server(tmp_path) as server:
        async with Client(server.url) as client:
            for name in others:
                await client.post(name, "I am here")
                await client.post("ada", f"to {name}")
                await client.follow("@ada", f"@{name}")
                await client.follow(f"@{name}", "@ada")
        file = tmp_path / "ada.zip"

        def export() -> None:
            with pytest.raises(SystemExit) as ended:
                main(["export", "ada", str(file), "--data", str(server.data)])
            assert ended.value.code == 0

        await asyncio.to_thread(export)
    assert [row["body"] for row in rows(file)] == [f"to {name}" for name in reversed(others)]
    with ZipFile(file) as opened:
        assert set(opened.read("following.tsv").decode().splitlines()) == {f"ada\t{name}" for name in others}
        assert set(opened.read("followers.tsv").decode().splitlines()) == {f"{name}\tada" for name in others}


def test_it_bears_the_persons_name_if_it_is_given_none(archive: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "rookery", "export", "ada", "--data", str(archive.parent / "data")]
    environment = os.environ | {"ROOKERY_CONFIG": os.devnull}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
    (made,) = here.iterdir()
    assert made.name.lower() == "ada.zip"
    assert made.name in done.stdout
    assert rows(made) == rows(archive)


def test_nothing_is_overwritten_and_nobody_is_made_up(archive: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    before = archive.read_bytes()
    assert "[file_exists]" in rookery("export", "ada", str(archive), "--data", data, status=1).stderr
    assert archive.read_bytes() == before
    assert "[unknown_user]" in rookery("export", "nobody", str(tmp_path / "x.zip"), "--data", data, status=1).stderr
    missing = str(tmp_path / "no folder" / "x.zip")
    assert "[unwritable_file]" in rookery("export", "ada", missing, "--data", data, status=1).stderr
    assert not (tmp_path / "x.zip").exists()
