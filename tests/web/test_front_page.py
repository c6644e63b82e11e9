"""The page at `/`: the top ten, as HTML for people and as JSON for whoever asks for it."""

import re

import httpx
import pytest

from tests.web.conftest import Serve
from tests.web.site import Site, bodies, listed, refused

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
EVIL = "<script>alert(1)</script>"


async def page_of(site: Site) -> httpx.Response:
    response = await site.client.get("/", headers={"Accept": BROWSER})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "text/html"),
        ("", "text/html"),
        ("*/*", "text/html"),
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        ("text/*", "text/html"),
        ("image/png", "text/html"),
        ("application/json;q=0", "text/html"),
        ("application/json;q=0.5, text/html", "text/html"),
        ("application/json;q=0.5, */*;q=0.5", "text/html"),
        ("application/json;q=x, text/html;q=0.1", "text/html"),
        ("application/json", "application/json"),
        ("Application/JSON", "application/json"),
        ("application/*", "application/json"),
        ("application/json, */*;q=0.5", "application/json"),
        ("application/json, text/html;q=0.9", "application/json"),
        ("text/html;q=0, */*", "application/json"),
        ("application/json; charset=utf-8; q=1.0, text/html; q=0.1", "application/json"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_accept_header_chooses_between_page_and_json(
    shared: Site, accept: str | None, media_type: str
) -> None:
    # httpx puts */* where nothing is said.
    client = shared.client_at("127.0.0.1", headers={} if accept is None else {"Accept": accept})
    if accept is None:
        del client.headers["accept"]
    response = await client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert "Accept" in response.headers.get_list("vary", split_commas=True)


async def test_the_page_holds_the_ten_that_the_json_holds(site: Site) -> None:
    root = await site.add_admin()
    for number in range(12):
        await root.posts(f"tweet number {number}", count_retweet=number * 1_000)
    top = listed(await site.client.get("/", headers={"Accept": "application/json"}))
    assert bodies(top) == [f"tweet number {number}" for number in range(11, 1, -1)]
    page = (await page_of(site)).text
    assert re.findall("tweet number [0-9]+", page) == bodies(top)
    assert "11,000" in page
    assert top == listed(await site.get("/top"))


async def test_without_tweets_the_page_says_so(site: Site) -> None:
    page = (await page_of(site)).text
    assert "No tweets yet" in page
    assert "<ol>" not in page


async def test_what_people_write_is_shown_as_text(site: Site) -> None:
    ada = await site.register("ada", display_name=EVIL)
    tweet = await ada.posts(f"{EVIL}{{{{ 7*7 }}}}\"'&", title=f'"><img src=x onerror="{EVIL}"')
    await ada.retweets(tweet, EVIL)
    page = (await page_of(site)).text
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4, (
        "body, title, retweet and the original quoted in it"
    )


async def test_a_retweet_shows_its_original_or_that_it_is_gone(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    first, second, third = [await who.posts(f"original by {who.name}") for who in (ada, bob, eve)]
    for tweet in (first, second, third):
        await ada.retweets(tweet, "mine")
    await bob.deletes(second)
    await eve.leaves()
    page = (await page_of(site)).text
    assert page.count("The original is gone") == 2
    assert page.count("original by ada") == 2
    assert "original by bob" not in page
    assert "original by eve" not in page


async def test_deleted_tweets_are_not_on_the_page(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.posts("kept")
    await ada.deletes(await ada.posts("gone one"))
    await bob.posts("gone two")
    await bob.leaves()
    page = (await page_of(site)).text
    assert "kept" in page
    assert "gone" not in page


async def test_the_page_runs_no_script_and_loads_nothing_from_elsewhere(site: Site) -> None:
    ada = await site.register("ada")
    await ada.posts("hello")
    response = await page_of(site)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    loaded = re.findall(r'(?:src|href)="([^"]*)"', response.text)
    assert loaded
    assert all(re.match("/[^/]", url) for url in loaded)
    for url in set(loaded):
        answer = await site.client.get(url)
        assert answer.status_code == 200, url
        if url.startswith("/static/"):
            assert not re.search(r"url\(|@import|//", answer.text.replace("http://www.w3.org/2000/svg", ""))


async def test_the_pages_own_files_have_their_types_and_others_are_unknown(site: Site) -> None:
    style, icon = await site.client.get("/static/rookery.css"), await site.client.get("/static/rookery.svg")
    assert style.headers["content-type"].partition(";")[0] == "text/css"
    assert icon.headers["content-type"].partition(";")[0] == "image/svg+xml"
    for name in ("x.css", "..%2Fapp.py", "%2e%2e%2fapp.py", "rookery.css%00", "../templates/front.html"):
        refused(await site.client.get(f"/static/{name}"), 404, "unknown_path")


async def test_where_reading_takes_a_token_the_page_does_too(serve: Serve) -> None:
    site = await serve(reads="token")
    ada = await site.register("ada")
    await ada.posts("hello")
    refused(await site.client.get("/", headers={"Accept": BROWSER}), 401, "token_missing")
    assert "hello" in (await site.client.get("/", headers=ada.auth)).text


async def test_the_page_takes_no_parameters(site: Site) -> None:
    refused(await site.client.get("/?limit=5"), 400, "unknown_parameter")
