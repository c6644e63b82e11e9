"""The README's tour, line by line, as a newcomer types it."""

import re
import subprocess
from pathlib import Path

from tests.serving import running_server

README = Path(__file__).parents[2] / "README.md"
# What differs from one run to the next, and only that.
_VARIES = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"rk_[A-Za-z0-9_-]{43}"), "TOKEN"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"), "TIME"),
)


def tour() -> list[tuple[str, str]]:
    """The commands, each with what the README says it prints."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], ""))
            else:
                command, said = steps[-1]
                steps[-1] = (command, said + line + "\n")
    return steps


def same(text: str) -> str:
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return text.rstrip("\n")


def test_the_readme_begins_with_the_two_commands() -> None:
    first, second = README.read_text().splitlines()[:2]
    assert first.split()[:2] == ["make", "serve"]
    assert second.split()[:2] == ["make", "test"]


def test_the_tour_works_line_by_line(tmp_path: Path) -> None:
    steps = tour()
    assert len(steps) >= 12
    with running_server(tmp_path, "--auth", "token") as server:
        script = "".join(f"{command}\necho; echo '~~~ {number}'\n" for number, (command, _) in enumerate(steps))
        script = script.replace("http://127.0.0.1:5000", server.url)
        done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=60, check=True)
    said = re.split(r"\n?~~~ \d+\n", done.stdout)
    for (command, expected), found in zip(steps, said, strict=False):
        assert same(found) == same(expected), command
    assert done.stderr == ""
