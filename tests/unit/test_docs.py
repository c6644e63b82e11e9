"""What can be set, called or answered is written down."""

import ast
import re
from pathlib import Path

import pytest

from rookery.cli import build
from rookery.config import SPECS, Settings, Spec, load, reference
from rookery.web.app import create_routes, openapi_document
from rookery.wiring import web_options
from tests.clocks import HandClock

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "rookery"
FAILURES = {
    *("Malformed", "Unauthenticated", "Forbidden", "NotFound", "Conflict", "BrokenRule", "TooMany", "Unavailable"),
    "Refusal",
}
# Said on the command line only, where the line that is printed tells all.
SAID_AT_THE_TERMINAL = re.compile(
    r"line |src/rookery/cli/|address_unavailable|database_in_use|schema_|too_few_nodes|datacenter_missing|not_rookery"
    r"|malformed_date|snapshot_too_old"
)


def page(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_setting_is_documented(spec: Spec) -> None:
    assert f"| `{spec.name}` |" in page("settings.md")


def test_the_page_of_settings_is_the_codes_own() -> None:
    assert reference().strip() in page("settings.md")


SHOWN = [
    text for file in sorted(DOCS.glob("*.md")) for text in re.findall(r"```toml\n(.*?)```", file.read_text(), re.DOTALL)
]


@pytest.mark.parametrize("text", SHOWN)
def test_settings_that_pages_show_can_be_read(text: str, tmp_path: Path) -> None:
    file = tmp_path / "rookery.toml"
    file.write_text(text)
    load(flags={}, environ={}, file=file)


def routes() -> set[tuple[str, str]]:
    found = set()
    for path, item in openapi_document()["paths"].items():
        found |= {(method.upper(), path.removeprefix("/api/v1")) for method in item}
    return found


def test_every_route_is_documented_and_no_other() -> None:
    written = set(re.findall(r"^\| `(GET|POST|DELETE) (/[^`]*)` \|", page("api.md"), re.MULTILINE))
    assert written == routes()


def test_the_aliases_are_marked_as_they_are() -> None:
    app = create_routes(None, web_options(Settings(data=Path())), HandClock())
    at_root = {
        (method, re.sub(r"\{(\w+):str\}", r"{\1}", route.path))
        for route in app.routes
        for method in getattr(route, "methods", ())
    }
    marked = re.findall(r"^\| `(GET|POST|DELETE) (/[^`]*)` \| (●?) \|", page("api.md"), re.MULTILINE)
    assert {(method, path): bool(mark) for method, path, mark in marked} == {
        (method, path): (method, path) in at_root for method, path, _ in marked
    }


def commands() -> list[str]:
    found = []
    for name in build():
        if name.startswith("-"):
            continue
        below = [inner for inner in build()[name] if not inner.startswith("-")]
        found += [f"{name} {inner}" for inner in below] or [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    assert f"## `rookery {command}`" in page("commands.md")


def codes() -> dict[str, str]:
    """Every error code in the source, with where it is."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        where = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAILURES:
                for argument in node.args[:2]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        found[argument.value] = where
                        break
    return {code: where for code, where in found.items() if re.fullmatch(r"[a-z0-9_]+", code)}


def test_every_error_code_is_documented() -> None:
    known = page("api.md") + page("commands.md")
    missing = [
        f"{code} ({where})"
        for code, where in codes().items()
        if f"`{code}`" not in known and not SAID_AT_THE_TERMINAL.search(f"{code} {where}")
    ]
    assert missing == []


def test_no_documented_code_is_made_up() -> None:
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    table = page("api.md").split("## Errors")[1]
    written = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", table))
    fields = {"body", "title", "display_name"}
    made = {f"{field}_{end}" for field in fields for end in ("too_long", "characters")} | set(
        re.findall(r"\w+", source)
    )
    assert written - made == set()


@pytest.mark.parametrize("path", sorted([ROOT / "README.md", *DOCS.rglob("*.md")]), ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []
