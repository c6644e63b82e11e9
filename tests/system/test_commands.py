"""The command line as a person types it, alone and beside a running server."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rookery import __version__
from tests.serving import Server, running_server
from tests.system.commands import database, rookery


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("commands"), "--auth", "token") as server:
        yield server


def data(server: Server) -> tuple[str, str]:
    return "--data", str(server.data)


def test_a_server_says_at_its_start_which_hosts_it_answers_to(server: Server) -> None:
    assert "Answers to localhost, any IP address (setting allowed_hosts)" in server.err()


def test_the_version_is_told() -> None:
    assert rookery("--version").stdout.strip() == __version__


def test_a_command_does_not_wait_for_what_only_a_server_needs() -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rookery", "--version"], check=True, capture_output=True, text=True
    )
    imported = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "rookery.cli.serving" in imported
    assert imported & {"litestar", "uvicorn", "uvloop", "acsylla", "redis", "prometheus_client"} == set()


def test_a_wrong_option_is_one_line_and_status_2() -> None:
    done = rookery("serve", "--prot", "1", status=2)
    assert done.stderr.startswith("rookery: ")
    assert len(done.stderr.splitlines()) == 1


def test_every_fault_of_the_settings_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "rookery.toml"
    file.write_text('prot = 5000\nauth = "never"\n')
    done = rookery("config", "check", "--config", str(file), "--port", "x", status=2)
    assert len(done.stderr.splitlines()) == 3
    assert "port" in done.stderr.splitlines()[0] or "did you mean" in done.stderr


def test_each_setting_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "rookery.toml"
    file.write_text("[cache]\nbytes = 0\n")
    shown = rookery("config", "show", "--config", str(file), "--port", "1").stdout.splitlines()
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in shown}
    assert lines["cache.bytes"] == ["0", str(file)]
    assert lines["port"] == ["1", "flag --port"]
    assert lines["host"] == ["127.0.0.1", "default"]


def test_open_mode_refuses_the_network(tmp_path: Path) -> None:
    done = rookery("serve", "--auth", "open", "--host", "0.0.0.0", "--data", str(tmp_path), status=2)  # noqa: S104
    assert "open_on_network" in done.stderr


def test_a_user_added_beside_the_server_can_act_at_once(server: Server) -> None:
    token = rookery("user", "add", "grace", *data(server)).stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.post(f"{server.url}/tweet/@grace", data={"tweet": "x"}, headers=headers).status_code == 201
    assert "grace\t" in rookery("user", "list", *data(server)).stdout


def test_a_user_added_with_a_password_can_sign_in(server: Server) -> None:
    rookery("user", "add", "heidi", "--password", *data(server), stdin="correct horse\n")
    form = {"name": "heidi", "password": "correct horse"}
    assert httpx.post(f"{server.url}/api/v1/token", data=form).status_code == 201


def test_revoked_tokens_end_within_a_second(server: Server) -> None:
    rookery("user", "add", "ivan", *data(server))
    token = rookery("user", "token", "ivan", *data(server)).stdout.strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{server.url}/top", headers=headers).status_code == 200
    rookery("user", "token", "ivan", "--revoke", *data(server))
    limit = time.monotonic() + 1.0
    while (status := httpx.get(f"{server.url}/top", headers=headers).status_code) == 200:
        assert time.monotonic() < limit
    assert status == 401


def test_an_admin_made_here_may_delete_anyones_tweet(server: Server) -> None:
    admin = rookery("user", "add", "root", "--admin", *data(server)).stdout.strip()
    author = rookery("user", "add", "judy", *data(server)).stdout.strip()
    posted = httpx.post(
        f"{server.url}/tweet/@judy", data={"tweet": "x"}, headers={"Authorization": f"Bearer {author}"}
    ).json()
    gone = httpx.delete(
        f"{server.url}/tweet/@judy?tweet_id={posted['id']}", headers={"Authorization": f"Bearer {admin}"}
    )
    assert gone.status_code == 204
    assert "root\t" in rookery("user", "list", *data(server)).stdout


@pytest.mark.parametrize(
    "command",
    [("serve", "--port", "0"), ("user", "delete", "nobody", "--yes"), ("load", "graph", "FILE")],
    ids=lambda command: command[0],
)
def test_what_needs_the_database_alone_asks_to_stop_the_server(
    command: tuple[str, ...], server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "graph.tsv"
    file.write_text("a\tb\n")
    done = rookery(*(str(file) if part == "FILE" else part for part in command), *data(server), status=1)
    assert "stop it first" in done.stderr
    assert "[database_in_use]" in done.stderr


def test_recount_works_beside_the_server(server: Server) -> None:
    assert "0 were wrong" in rookery("recount", *data(server)).stdout


def test_recount_mends_what_was_tampered_with(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        tweet = httpx.post(f"{server.url}/tweet", data={"user_name": "ada", "body": "x"}).json()
        form = {"user_name": "bob", "retweet": tweet["id"]}
        assert httpx.post(f"{server.url}/retweet", data=form).status_code == 201
        with sqlite3.connect(database(server.data)) as sql:
            sql.execute("UPDATE ranking SET count = 41 WHERE parent IS NULL")
        assert httpx.get(f"{server.url}/tweet?tweet_id={tweet['id']}").json()["count_retweet"] == 41
        assert "2 tweets, 1 were wrong" in rookery("recount", *data(server)).stdout
        assert httpx.get(f"{server.url}/tweet?tweet_id={tweet['id']}").json()["count_retweet"] == 1


def test_deleting_a_user_must_be_meant(tmp_path: Path) -> None:
    where = ("--data", str(tmp_path))
    rookery("user", "add", "mallory", *where)
    assert "--yes" in rookery("user", "delete", "mallory", *where, status=1).stderr
    rookery("user", "delete", "mallory", "--yes", *where)
    assert rookery("user", "list", *where).stdout == ""
    assert "[name_taken]" in rookery("user", "add", "Mallory", *where, status=1).stderr


def test_a_newer_database_is_refused_with_a_clear_word(tmp_path: Path) -> None:
    rookery("user", "add", "ada", "--data", str(tmp_path))
    with sqlite3.connect(database(tmp_path)) as sql:
        sql.execute("PRAGMA user_version = 99")
    done = rookery("serve", "--data", str(tmp_path), status=1)
    assert "schema 99" in done.stderr
    assert "newer Rookery" in done.stderr


def test_a_taken_port_is_told(server: Server, tmp_path: Path) -> None:
    done = rookery("serve", "--port", str(server.port), "--data", str(tmp_path), status=1)
    assert "already in use" in done.stderr


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = rookery("serve", "--data", str(tmp_path / "file" / "below"), status=1)
    assert "[store_unavailable]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


TWEETS = "created_at;who;text;shared\n2020-01-02 03:04:05;ada;Grüße;7\n2020-01-02 03:04:05;ada;Grüße;7\n"
OPTIONS = ("--author-column", "who", "--body-column", "text", "--separator", "semicolon", "--count-column", "shared")


def test_tweets_keep_their_dates_and_counts(tmp_path: Path) -> None:
    file = tmp_path / "tweets.csv"
    file.write_bytes(TWEETS.encode("cp1252"))
    where = ("--data", str(tmp_path / "data"))
    zone = ("--encoding", "cp1252", "--timezone", "Asia/Tokyo")
    assert "2 tweets added, 1 users" in rookery("load", "tweets", str(file), *OPTIONS, *zone, *where).stdout
    assert "0 tweets added, 0 users" in rookery("load", "tweets", str(file), *OPTIONS, *zone, *where).stdout
    with running_server(tmp_path) as server:
        found = httpx.get(f"{server.url}/tweet/@ada").json()
    assert [tweet["created_at"] for tweet in found] == ["2020-01-01T18:04:05Z"] * 2
    assert [(tweet["body"], tweet["count_retweet"]) for tweet in found] == [("Grüße", 7)] * 2


@pytest.mark.parametrize(
    ("content", "options", "code", "line"),
    [
        (b"created_at,user_name,body\n2020-01-01,a,ok\n2020-01-01,a,\xff\n", (), "wrong_encoding", "line 3"),
        (b"created_at,user_name,body\n01/02/20,a,x\n", (), "malformed_date", "line 2"),
        (b"created_at,user_name,body\n2020-01-01,a b,x\n", (), "name_invalid", "line 2"),
        (b"created_at,user_name,body\n2020-01-01,a,\n", (), "body_empty", "line 2"),
        (b"created_at,user_name,body\n2020-01-01,a\n", (), "short_row", "line 2"),
        (b"created_at,user_name,body,n\n2020-01-01,a,x,-1\n", ("--count-column", "n"), "malformed_count", "line 2"),
        (b"created_at,user,body\n", (), "unknown_column", "user_name"),
        (b"created_at,user_name,body\n", ("--timezone", "Mars/Base"), "unknown_timezone", "Mars/Base"),
        (b"created_at,user_name,body\n", ("--encoding", "klingon"), "unknown_encoding", "klingon"),
        (b"created_at,user_name,body\n", ("--encoding", "base64"), "unknown_encoding", "base64"),
        (b"created_at,user_name,body\n", ("--separator", "ab"), "malformed_separator", "separator"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_is_told_with_its_line(
    content: bytes, options: tuple[str, ...], code: str, line: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    done = rookery("load", "tweets", str(file), *options, "--data", str(tmp_path / "data"), status=1)
    assert f"[{code}]" in done.stderr
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_in_another_encoding_is_read(tmp_path: Path) -> None:
    for number, encoding in enumerate(("utf-16", "utf-32", "cp1252", "utf-8-sig")):
        file = tmp_path / "some.csv"
        file.write_bytes(f"created_at,user_name,body\n2020-01-0{number + 1},a,Grüße\n".encode(encoding))
        done = rookery("load", "tweets", str(file), "--encoding", encoding, "--data", str(tmp_path / "data"))
        assert "1 tweets added" in done.stdout


def test_output_that_nobody_reads_on_is_no_error(tmp_path: Path) -> None:
    where = f"--data {tmp_path / 'data'}"
    file = tmp_path / "graph.tsv"
    file.write_text("".join(f"user{number}\tstar\n" for number in range(3_000)))
    rookery("load", "graph", str(file), *where.split())
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m rookery user list {where} | head -1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("created_at,user_name,body\n2020-01-01,a,ok\nsoon,a,x\n2020-01-02,a,ok\n")
    done = rookery("load", "tweets", str(file), "--skip-bad", "--data", str(tmp_path / "data"))
    assert done.stdout.startswith("3 rows: 2 tweets added")
    assert "line 3" in done.stderr


def test_a_graph_can_name_its_columns_and_skips_self_follows(tmp_path: Path) -> None:
    file = tmp_path / "graph.csv"
    file.write_text("to,from\nada,bob\nbob,bob\nada,carol\n")
    where = ("--data", str(tmp_path / "data"))
    named = ("--header", "--separator", "comma", "--follower", "from", "--followee", "to")
    done = rookery("load", "graph", str(file), *named, *where)
    assert done.stdout == "3 rows: 2 follows added, 3 users made, 1 skipped.\n"


def test_a_load_that_was_stopped_can_be_run_again(tmp_path: Path) -> None:
    file = tmp_path / "graph.tsv"
    rows = 60_000
    file.write_text("".join(f"user{number % 3_000}\tstar{number // 3_000}\n" for number in range(rows)))
    where = ("--data", str(tmp_path / "data"))
    load = subprocess.Popen(
        [sys.executable, "-m", "rookery", "load", "graph", str(file), *where], stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 60
    while _follows(tmp_path / "data") < 2_000:
        assert time.monotonic() < limit
        time.sleep(0.005)
    load.send_signal(signal.SIGKILL)
    load.wait()
    first = _follows(tmp_path / "data")
    assert first < rows
    done = rookery("load", "graph", str(file), *where)
    assert f"{rows - first:,} follows added" in done.stdout
    assert _follows(tmp_path / "data") == rows


def _follows(folder: Path) -> int:
    if not database(folder).exists():
        return 0
    with sqlite3.connect(f"file:{database(folder)}?mode=ro", uri=True) as sql:
        try:
            count: int = sql.execute("SELECT count(*) FROM follow").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0
    return count
