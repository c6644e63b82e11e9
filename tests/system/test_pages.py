"""The pages in a real browser: they show what they should, and load nothing from elsewhere."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from rookery.client import Client
from tests.serving import Server, running_server

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("pages")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "chromium is missing"
        pytest.skip("chromium is missing")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, browser: Browser) -> None:
        self.page: Page = browser.new_page(viewport={"width": 1000, "height": 1400})
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def foreign(self, server: Server) -> list[str]:
        return [url for url in self.asked if not url.startswith((server.url, "data:"))]


def test_swagger_ui_shows_every_operation_and_loads_nothing_foreign(browser: Browser, server: Server) -> None:
    watched = Watched(browser)
    watched.page.goto(f"{server.url}/api/v1/")
    watched.page.wait_for_selector(".opblock")
    document = watched.page.request.get(f"{server.url}/api/v1/openapi.json").json()
    operations = sum(len(item) for item in document["paths"].values())
    assert watched.page.locator(".opblock").count() == operations
    _show(watched.page, "swagger.png")
    assert watched.foreign(server) == []
    assert watched.complaints == []


def test_swagger_ui_can_post(browser: Browser, server: Server) -> None:
    watched = Watched(browser)
    watched.page.goto(f"{server.url}/api/v1/")
    block = watched.page.locator("#operations-users-registerUser")
    block.click()
    block.get_by_role("button", name="Try it out").click()
    block.locator("textarea").first.fill('{"name": "from_swagger"}')
    block.get_by_role("button", name="Execute").click()
    block.locator(".live-responses-table .response-col_status", has_text="201").wait_for()
    assert watched.complaints == []


async def _tell_stories(url: str) -> None:
    async with Client(url) as client:
        first = await client.post("ada", "Hello <script>alert('no')</script> & good\nmorning 👩‍👩‍👧", title="On rooks")
        arabic = await client.post("layla", "مرحبا بالعالم", count_retweet=12_345)
        await client.retweet("bob", first.id, "Listen to her", count_retweet=3)
        gone = await client.post("carol", "soon gone")
        await client.retweet("dave", gone.id, "passing on", count_retweet=2)
        await client.delete_tweet("@carol", gone.id)
        await client.retweet("eve", arabic.id)


def test_the_front_page_shows_the_top_ten(browser: Browser, server: Server) -> None:
    import asyncio  # noqa: PLC0415 - playwright's sync API and a running loop don't mix
    import threading  # noqa: PLC0415

    thread = threading.Thread(target=lambda: asyncio.run(_tell_stories(server.url)))
    thread.start()
    thread.join()
    watched = Watched(browser)
    watched.page.goto(f"{server.url}/")
    counts = watched.page.locator("ol .count").all_inner_texts()
    assert counts[:3] == ["12,346", "3", "2"]
    assert "<script>alert('no')</script> & good\nmorning" in watched.page.inner_text("main")
    assert watched.page.get_by_text("The original is gone.").count() == 1
    assert watched.page.get_by_text("soon gone").count() == 0
    _show(watched.page, "front.png")
    assert watched.foreign(server) == []
    assert watched.complaints == []


def _show(page: Page, name: str) -> None:
    """Keep a picture where SCREENSHOTS says, to be looked at."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / name, full_page=True)
