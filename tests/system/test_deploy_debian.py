"""Rookery on a fresh Debian: by the script and by the package, up to the next version and back, and away again."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.contract.adapters.mounts import mounted_tmpfs
from tests.servers import do_without, need_root
from tests.system import debian
from tests.system.debian import Debian
from tools.servers.installing import Missing
from tools.servers.process import free_port

ROOT = Path(__file__).parents[2]
SCRIPT = "deploy/debian/deployment.sh"
UNITS = "/usr/local/lib/systemd/system"
NEXT = "0.99.0"

# Stands in for systemd, which is not there: what runs are files in /units. No service of the version in /fails gets
# ready. While the socket listens somebody comes, and starts the service.
SYSTEMCTL = """#!/bin/bash
echo "$@" >>/systemctl.log
command=$1 first=$2
shift
mkdir -p /units
case $command in
list-units)
    case $* in *active,*) (cd /units; for unit in $(ls); do echo "$unit loaded active running Rookery"; done) ;; esac
    if [ -e /ails ]; then echo "$(cat /ails) loaded failed failed Rookery"; fi
    ;;
stop)
    for unit; do
        name=$(echo "$unit" | sed 's/@.*[.]/@./')
        test -e "/usr/local/lib/systemd/system/$name" || test -e "/lib/systemd/system/$name" || exit 5
        rm -f "/units/$unit"
    done
    if [ -e /units/rookery.socket ]; then touch /units/rookery.service; fi
    ;;
start | restart)
    test "$first" != "$(cat /ails 2>/dev/null)" || exit 1
    case $first in *.service) [ ! -e /fails ] || rookery --version | grep -qvxF "$(cat /fails)" || exit 1 ;; esac
    touch "/units/$first"
    if [ -e /cut ]; then # as a power cut would
        rm /cut
        for process in /proc/[0-9]*; do
            ! grep -qs deployment.sh "$process/cmdline" || kill -9 "${process#/proc/}"
        done
    fi
    ;;
is-enabled) test -e /etc/systemd/system/multi-user.target.wants/rookery.service ;;
esac
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    need_root("only root makes a Debian")
    # In memory: packages are synced file by file, which holds up all others who have a disk to wait for.
    with mounted_tmpfs(tmp_path_factory.mktemp("debian") / "memory", "6g") as memory:
        try:
            yield debian.fresh(memory / "root")
        except Missing as missing:
            do_without(missing)


@pytest.fixture
def box(fresh: Debian) -> Iterator[Debian]:
    """A Debian of one's own."""
    made = fresh.copy(fresh.root.with_name("box"))
    yield made
    shutil.rmtree(made.root)


def sources(folder: Path, version: str | None = None) -> Path:
    """What is in the repository; as a later version that has one table more, if one is named."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    if version:
        change(folder / "src/rookery/__init__.py", '"0.1.0"', f'"{version}"')
        schema = folder / "src/rookery/adapters/sqlite/schema.py"
        change(schema, "MIGRATIONS = (_FIRST,)", 'MIGRATIONS = (_FIRST, "CREATE TABLE mood (user BLOB) STRICT;")')
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new))


def sign_up(url: str) -> str:
    made = httpx.post(f"{url}/user", json={"name": "ada"})
    raise_for(made, 201)
    token: str = made.json()["token"]
    return token


def post(url: str, body: str, token: str) -> None:
    answer = httpx.post(
        f"{url}/tweet", json={"user_name": "ada", "body": body}, headers={"Authorization": f"Bearer {token}"}
    )
    raise_for(answer, 201)


def raise_for(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text


def bodies(url: str) -> list[str]:
    return [tweet["body"] for tweet in httpx.get(f"{url}/tweet/@ada").json()]


def kept(box: Debian) -> list[Path]:
    """The databases as they were before a migration."""
    return list(box.path("/var/lib/rookery").glob("rookery.db.before-schema-2-*"))


def test_by_the_script_up_and_back_and_away(box: Debian) -> None:
    sources(box.path("/src"))
    sources(box.path("/next"), NEXT)
    port = free_port()

    # A first time, and a second, which changes nothing.
    assert "installed 0.1.0" in box.run(f"/src/{SCRIPT}").stderr
    assert "installed already" in box.run(f"/src/{SCRIPT}").stderr
    assert box.run("rookery", "--version").stdout == "0.1.0\n"
    with box.serving(port) as url:
        token = sign_up(url)
        post(url, "hello", token)
        assert bodies(url) == ["hello"]
        owners = {file.stat().st_uid for file in box.path("/var/lib/rookery").rglob("*")}
        assert len(owners) == 1
        assert 0 not in owners
        # While a server is on the tables they can't be changed. All stays as it is.
        refused = box.run(f"/next/{SCRIPT}", status=1).stderr
        assert "[database_in_use]" in refused
        assert "0.1.0" in refused.splitlines()[-1]
        assert bodies(url) == ["hello"]
    assert_units_run_what_is_there(box, UNITS)
    assert_cron_makes_backups(box)
    assert_several_run_beside_each_other(box)

    # The next version, and back.
    assert f"upgraded to {NEXT}" in box.run(f"/next/{SCRIPT}").stderr
    assert "schema 2" in box.run("rookery", "migrate", "--check").stdout
    assert len(kept(box)) == 1
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
        post(url, "of the next version", token)
    assert "back to 0.1.0" in box.run(f"/next/{SCRIPT}", "--back").stderr
    assert "schema 1" in box.run("rookery", "migrate", "--check").stdout
    assert "no version before" in box.run(f"/next/{SCRIPT}", "--back", status=1).stderr
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]

    (aside,) = box.path("/var/lib/rookery").glob("rookery.db.before-going-back-*")
    with closing(sqlite3.connect(aside)) as sql:
        assert sql.execute("SELECT body FROM tweet ORDER BY id").fetchall() == [("hello",), ("of the next version",)]

    # One that does not get ready is taken back by the script itself, and its units with it.
    with_systemd(box)
    running = {"rookery.socket", "rookery.service", "rookery@two.service"}
    for unit in running:
        box.path(f"/units/{unit}").touch()
    box.path("/fails").write_text(NEXT)
    refused = box.run(f"/next/{SCRIPT}", status=1).stderr
    assert "could not take over: 0.1.0" in refused.splitlines()[-1]
    assert units(box) == running
    assert "schema 1" in box.run("rookery", "migrate", "--check").stdout
    assert box.run("rookery", "--version").stdout == "0.1.0\n"
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
    # The same when it is better. One that was cut off is finished by the next; then back once more.
    box.path("/fails").unlink()
    box.path("/cut").touch()
    box.run(f"/next/{SCRIPT}", status=None)
    assert not box.path("/opt/rookery/previous").exists()
    assert f"upgraded to {NEXT}" in box.run(f"/next/{SCRIPT}").stderr
    assert units(box) == running
    box.path("/cut").touch()
    box.run(f"/next/{SCRIPT}", "--back", status=None)
    assert "back to 0.1.0" in box.run(f"/next/{SCRIPT}", "--back").stderr
    assert units(box) == running
    assert "schema 1" in box.run("rookery", "migrate", "--check").stdout
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
        # Nobody goes back under a server that systemd does not know of; when it has ended, the same command does it.
    assert f"upgraded to {NEXT}" in box.run(f"/next/{SCRIPT}").stderr
    with box.serving(port) as url:
        assert "a server or a command has the database" in box.run(f"/next/{SCRIPT}", "--back", status=1).stderr
        assert bodies(url) == ["hello"]
    assert "back to 0.1.0" in box.run(f"/next/{SCRIPT}", "--back").stderr
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
    # Who was ill before keeps nobody from getting well. Of several databases the newest of the right schema is taken.
    for name, schema in (("2-1", 1), ("3-9000000000000", 2)):
        with closing(sqlite3.connect(box.path(f"/var/lib/rookery/rookery.db.before-schema-{name}"))) as sql:
            sql.execute(f"PRAGMA user_version = {schema}")
    box.path("/ails").write_text("rookery@ill.service")
    assert f"upgraded to {NEXT}" in box.run(f"/next/{SCRIPT}").stderr
    assert units(box) == running
    assert "back to 0.1.0" in box.run(f"/next/{SCRIPT}", "--back").stderr
    assert units(box) == running
    box.path("/ails").unlink()
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
    # Tables that other machines share are not its business.
    other = box.path("/etc/rookery/ring.toml")
    other.write_text(f'data = "/var/lib/rookery"\nstore = "redis"\nstore.servers = ["127.0.0.1:{free_port()}"]\n')
    assert "/etc/rookery/ring.toml: " in box.run(f"/next/{SCRIPT}", status=1).stderr
    assert box.run("rookery", "--version").stdout == "0.1.0\n"
    other.unlink()
    told = box.path("/systemctl.log").read_text().splitlines()
    stops = [set(line.split()[1:]) for line in told if line.startswith("stop")]
    assert stops
    assert all(running <= stop for stop in stops), "a socket that stays would start the service again"

    # Away: the data stays.
    links = box.path("/etc/systemd/system/multi-user.target.wants")
    links.mkdir(parents=True, exist_ok=True)
    (links / "rookery@two.service").symlink_to(f"{UNITS}/rookery@.service")
    box.run(f"/src/{SCRIPT}", "--uninstall")
    assert units(box) == set()
    assert "disable rookery.socket rookery.service rookery@two.service" in box.path("/systemctl.log").read_text()
    for path in ("/usr/sbin/rookery", "/opt/rookery", f"{UNITS}/rookery.service", "/usr/share/doc/rookery"):
        assert not os.path.lexists(box.path(path))
    assert box.path("/var/lib/rookery/rookery.db").exists()
    assert box.path("/etc/rookery/rookery.toml").exists()
    # A later version finds the data, and brings the tables up.
    assert f"installed {NEXT}" in box.run(f"/next/{SCRIPT}").stderr
    assert units(box) == {"rookery.socket", "rookery.service"}
    assert "schema 2" in box.run("rookery", "migrate", "--check").stdout
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]


def with_systemd(box: Debian) -> None:
    box.path("/usr/bin/systemctl").write_text(SYSTEMCTL)
    box.path("/usr/bin/systemctl").chmod(0o755)
    for folder in ("/run/systemd/system", "/units"):
        box.path(folder).mkdir(parents=True, exist_ok=True)


def units(box: Debian) -> set[str]:
    """What runs."""
    return {file.name for file in box.path("/units").iterdir()}


def assert_cron_makes_backups(box: Debian) -> None:
    """By the line of our book, with the environment that Debian's cron gives it."""
    text = (ROOT / "docs/backup.md").read_text().partition("```cron\n")[2].partition("\n```")[0]
    *_, user, command = text.split(maxsplit=6)
    assert user == "rookery"
    who = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")
    box.run(*who, "env", "-i", "PATH=/usr/bin:/bin", "SHELL=/bin/sh", "/bin/sh", "-c", command.replace("\\%", "%"))
    (made,) = box.path("/var/backups/rookery").iterdir()
    assert made.name.endswith(".rookery")
    made.unlink()


def assert_several_run_beside_each_other(box: Debian) -> None:
    """As rookery@.service starts them, each with a folder that systemd would make."""
    unit = box.path(f"{UNITS}/rookery@.service").read_text()
    options = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    with ExitStack() as stack:
        urls = []
        for name in ("two", "three"):
            port = free_port()
            folder = f"/var/lib/{options['StateDirectory'].replace('%i', name)}"
            box.run("install", "-d", "-o", options["User"], "-g", options["Group"], "-m", "0700", folder)
            box.path(f"/etc/rookery/{name}.toml").write_text(f'port = {port}\ndata = "{folder}"\n')
            command = options["ExecStart"].replace("%i", name).split()
            urls.append(stack.enter_context(box.running(port, *command)))
        for url in urls:
            post(url, f"hello to {url}", sign_up(url))
        for url in urls:
            assert bodies(url) == [f"hello to {url}"]
    for name in ("two", "three"):
        box.path(f"/etc/rookery/{name}.toml").unlink()


def assert_units_run_what_is_there(box: Debian, folder: str) -> None:
    for unit in ("rookery.service", "rookery@.service"):
        text = box.path(f"{folder}/{unit}").read_text()
        program = next(line for line in text.splitlines() if line.startswith("ExecStart=")).split("=")[1].split()[0]
        assert os.access(box.path(program), os.X_OK)
    assert "ListenStream=127.0.0.1:5000" in box.path(f"{folder}/rookery.socket").read_text()


def build(folder: Path, target: Path) -> Path:
    (folder / ".venv").symlink_to(ROOT / ".venv")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # those are copies
    done = subprocess.run(
        [folder / "deploy/debian/build-deb", target], env=environment, check=True, capture_output=True, text=True
    )
    return Path(done.stdout.strip())


def test_by_the_package_up_and_away(box: Debian, tmp_path: Path) -> None:
    packages = box.path("/packages")
    first = build(sources(tmp_path / "src"), packages)
    following = build(sources(tmp_path / "next", NEXT), packages)
    port = free_port()
    box.run("apt-get", "update")
    with_systemd(box)
    before = everything(box)

    box.run("apt-get", "install", "-y", "--no-install-recommends", f"/packages/{first.name}")
    assert box.run("rookery", "--version").stdout == "0.1.0\n"
    assert_units_run_what_is_there(box, "/lib/systemd/system")
    with box.serving(port) as url:
        token = sign_up(url)
        post(url, "hello", token)
        assert bodies(url) == ["hello"]
    box.path("/units/rookery@two.service").touch()
    box.run("apt-get", "install", "-y", f"/packages/{following.name}")
    assert "schema 2" in box.run("rookery", "migrate", "--check").stdout
    assert len(kept(box)) == 1
    assert units(box) == {"rookery.socket", "rookery.service", "rookery@two.service"}
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
    assert box.run("dpkg", "--verify", "rookery").stdout == ""

    box.run("apt-get", "remove", "-y", "rookery")
    assert units(box) == set()
    assert box.path("/etc/rookery/rookery.toml").exists()
    box.run("apt-get", "install", "-y", f"/packages/{following.name}")
    assert units(box) == {"rookery.socket", "rookery.service"}
    with box.serving(port) as url:
        assert bodies(url) == ["hello"]
    box.run("apt-get", "purge", "-y", "rookery")
    assert box.run("dpkg", "--audit").stdout == ""
    assert box.path("/var/lib/rookery/rookery.db").exists()
    left = {path for path in everything(box) - before if "rookery" in path}
    assert {path for path in left if not path.startswith(("/var/lib/rookery", "/var/backups/rookery"))} == set()


def everything(box: Debian) -> set[str]:
    return {f"/{path.relative_to(box.root)}" for path in box.root.rglob("*") if "/proc/" not in str(path)}
