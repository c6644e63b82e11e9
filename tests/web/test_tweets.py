"""Posting, showing, listing and deleting tweets, and what their text may be."""

from datetime import UTC, datetime
from uuid import UUID

from tests.web.site import NOBODY, Site, bodies, done, listed, next_page, refused, said

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
STACK = "e" + "\N{COMBINING LOW LINE}" * 6
E_ACUTE = "\N{LATIN SMALL LETTER E WITH ACUTE}"
# U+1FA7 in NFD is four code points; the four marks behind it stay as they are. In NFC: five code points.
SHRINKING = "\u03c9\u0314\u0342\u0345" + "\N{COMBINING LOW LINE}" * 4


async def test_a_posted_tweet_is_answered_as_it_is_shown_afterwards(site: Site) -> None:
    ada = await site.register("ada")
    posted = await ada.posts("hello", title="News")
    assert posted.keys() == {
        "id",
        "user_id",
        "user_name",
        "title",
        "body",
        "retweet",
        "count_retweet",
        "created_at",
    }
    assert (posted["user_id"], posted["user_name"]) == (ada.id, "ada")
    assert (posted["title"], posted["body"], posted["retweet"], posted["count_retweet"]) == ("News", "hello", None, 0)
    assert await site.tweet(posted["id"]) == posted
    assert listed(await site.get("/tweet/@ada")) == [posted]


async def test_ids_ascend_and_created_at_is_the_ids_own_millisecond(site: Site) -> None:
    ada = await site.register("ada")
    posted = [await ada.posts(str(number)) for number in range(5)]
    ids = [tweet["id"] for tweet in posted]
    assert ids == sorted(ids)
    for tweet in posted:
        assert UUID(tweet["id"]).version == 7
        millis = UUID(tweet["id"]).int >> 80
        assert datetime.fromisoformat(tweet["created_at"]) == datetime.fromtimestamp(millis / 1000, UTC)


async def test_a_tweet_is_posted_in_each_of_the_ways(site: Site) -> None:
    ada = await site.register("Ada")
    for number, (path, asked) in enumerate(
        [
            (f"/tweet/{ada.id}", {"tweet": "0"}),
            ("/tweet/@ada", {"body": "1", "title": "T"}),
            ("/tweet", {"user_name": "ADA", "body": "2"}),
            ("/tweet", {"user_name": "Ada", "body": "3", "count_retweet": "0"}),
        ]
    ):
        tweet = done(await site.post(path, ada, data=asked), 201)
        assert (tweet["body"], tweet["user_name"]) == (str(number), "Ada")
    assert bodies(listed(await site.get("/tweet/@ada"))) == ["3", "2", "1", "0"]


async def test_ones_own_tweet_has_its_text_in_one_field(site: Site) -> None:
    ada = await site.register("ada")
    for asked in ({}, {"title": "only"}, {"tweet": "a", "body": "a"}):
        assert (await site.post("/tweet/@ada", ada, json=asked)).status_code == 400
    assert listed(await site.get("/tweet/@ada")) == []


async def test_line_ends_become_newlines_and_text_is_composed(site: Site) -> None:
    ada = await site.register("ada")
    tweet = await ada.posts("a\r\nb\rc\nd\te\u0301", title="e\u0301\r")
    assert tweet["body"] == f"a\nb\nc\nd\t{E_ACUTE}"
    assert tweet["title"] == f"{E_ACUTE}\n"
    assert await site.tweet(tweet["id"]) == tweet


async def test_text_comes_back_as_it_was_sent(site: Site) -> None:
    ada = await site.register("ada")
    texts = ["null", "true", "0", '"', "\\", "</script>", "{{ 7*7 }}", "%s", " ", "\u202e\u200d\ufeff", "\U0010ffff"]
    for text in texts:
        assert (await ada.posts(text))["body"] == text
        assert done(await site.post("/tweet/@ada", ada, data={"tweet": text}), 201)["body"] == text
    assert bodies(listed(await site.get("/tweet/@ada", params={"limit": 100})))[::-2] == texts


async def test_a_body_has_280_characters_as_a_reader_counts_them(site: Site) -> None:
    ada = await site.register("ada")
    for text in ("x" * 280, FAMILY * 280, "\r\n" * 280, "e\u0301" * 280, STACK * 280):
        assert (await site.post("/tweet", ada, json={"user_name": "ada", "body": text})).status_code == 201, text[:9]
    for text in ("x" * 281, FAMILY * 281, "\r\n" * 281, "e\u0301" * 281):
        refused(await site.post("/tweet", ada, json={"user_name": "ada", "body": text}), 422, "body_too_long")


async def test_a_body_has_2000_code_points_once_it_is_composed(site: Site) -> None:
    ada = await site.register("ada")
    exact = "e" + "\N{COMBINING LOW LINE}" * 1_999
    assert (await ada.posts(exact))["body"] == exact
    assert len(SHRINKING * 280) == 2_240
    assert len((await ada.posts(SHRINKING * 280))["body"]) == 1_400
    for text in (exact + "\N{COMBINING LOW LINE}", "x" * 2_001, "x" * 60_000):
        refused(await site.post("/tweet", ada, json={"user_name": "ada", "body": text}), 422, "body_too_long")
        refused(await site.post("/tweet/@ada", ada, json={"tweet": text}), 422, "body_too_long")


async def test_a_title_has_140_characters_and_may_be_empty(site: Site) -> None:
    ada = await site.register("ada")
    assert (await ada.posts("x", title=""))["title"] == ""
    assert (await ada.posts("x", title=FAMILY * 140))["title"] == FAMILY * 140
    assert len((await ada.posts("x", title=SHRINKING * 140))["title"]) == 700
    for title in ("x" * 141, FAMILY * 141, "x" * 1_001, "e" + "\N{COMBINING LOW LINE}" * 1_000):
        response = await site.post("/tweet", ada, json={"user_name": "ada", "body": "x", "title": title})
        refused(response, 422, "title_too_long")


async def test_control_characters_are_refused_but_newline_and_tab(site: Site) -> None:
    ada = await site.register("ada")
    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t\r"]
    wrong = {text: said(await site.post("/tweet/@ada", ada, json={"body": f"a{text}"})) for text in controls}
    assert wrong == dict.fromkeys(controls, (422, "body_characters"))
    response = await site.post("/tweet/@ada", ada, json={"body": "a", "title": "\0"})
    refused(response, 422, "title_characters")


async def test_a_tweet_without_a_body_breaks_a_rule_that_is_named(site: Site) -> None:
    ada = await site.register("ada")
    refused(await site.post("/tweet", ada, json={"user_name": "ada", "body": ""}), 422, "body_empty")
    refused(await site.post("/tweet/@ada", ada, json={"tweet": ""}), 422, "body_empty")
    refused(await site.post("/tweet/@ada", ada, data={"body": ""}), 422, "body_empty")


async def test_nobody_posts_in_anothers_name(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    root = await site.add_admin()
    for who in (bob, root):
        refused(await site.post("/tweet", who, json={"user_name": "ada", "body": "x"}), 403, "not_yours")
        refused(await site.post(f"/tweet/{ada.id}", who, json={"tweet": "x"}), 403, "not_yours")
    refused(await site.post("/tweet", json={"user_name": "ada", "body": "x"}), 401, "token_missing")
    refused(await site.post(f"/tweet/{ada.id}", json={"tweet": "x"}), 401, "token_missing")
    assert listed(await site.get("/tweet/@ada")) == []


async def test_an_unknown_author_is_not_found(site: Site) -> None:
    ada = await site.register("ada")
    refused(await site.post("/tweet", ada, json={"user_name": "nobody", "body": "x"}), 404, "unknown_user")
    refused(await site.post(f"/tweet/{NOBODY}", ada, json={"tweet": "x"}), 404, "unknown_user")
    refused(await site.post("/tweet/@nobody", ada, json={"tweet": "x"}), 404, "unknown_user")
    refused(await site.get(f"/tweet/{NOBODY}"), 404, "unknown_user")
    refused(await site.get("/tweet/ada"), 400, "malformed_id")


async def test_in_open_mode_posting_makes_an_unknown_author(open_mode: Site) -> None:
    tweet = done(await open_mode.post("/tweet", data={"user_name": "Ada", "body": "hello"}), 201)
    again = done(await open_mode.post("/tweet", data={"user_name": "ada", "body": "again"}), 201)
    assert (await open_mode.user("ada"))["user_id"] == tweet["user_id"] == again["user_id"]
    assert again["user_name"] == "Ada"
    refused(await open_mode.post("/tweet", data={"user_name": "a b", "body": "x"}), 422, "name_invalid")
    await open_mode.delete("/user", params={"user_id": "@ada"})
    refused(await open_mode.post("/tweet", data={"user_name": "ada", "body": "x"}), 404, "unknown_user")


async def test_a_count_starts_from_more_than_0_for_administrators_and_in_open_mode_only(
    site: Site, open_mode: Site
) -> None:
    ada, root = await site.register("ada"), await site.add_admin()
    assert (await ada.posts("x", count_retweet=0))["count_retweet"] == 0
    response = await site.post("/tweet", ada, json={"user_name": "ada", "body": "x", "count_retweet": 1})
    refused(response, 403, "initial_count_refused")
    assert (await root.posts("x", count_retweet=7))["count_retweet"] == 7
    anyone = await open_mode.register("anyone")
    tweet = await anyone.posts("x", count_retweet=10**12)
    assert await open_mode.count(tweet) == 10**12
    for wrong in (-1, 10**12 + 1, 2**63, 2**64, 10**30):
        response = await open_mode.post("/tweet", json={"user_name": "anyone", "body": "x", "count_retweet": wrong})
        refused(response, 422, "initial_count_range")


async def test_a_deleted_tweet_is_gone_everywhere(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await bob.follows(ada)
    kept, gone = await ada.posts("kept"), await ada.posts("gone")
    assert bodies(await bob.feed()) == ["gone", "kept"]
    await ada.deletes(gone)
    refused(await site.get("/tweet", params={"tweet_id": gone["id"]}), 404, "deleted_tweet")
    assert listed(await site.get("/tweet/@ada")) == [kept]
    assert listed(await site.get("/top")) == [kept]
    assert await bob.feed() == [kept]
    page = await site.client.get("/")
    assert "kept" in page.text
    assert "gone" not in page.text


async def test_deleting_a_tweet_twice_changes_nothing(site: Site) -> None:
    ada = await site.register("ada")
    tweet = await ada.posts("x")
    assert (await site.delete("/tweet/@ada", ada, json={"tweet_id": tweet["id"]})).status_code == 204
    assert (await site.delete(f"/tweet/{ada.id}", ada, data={"tweet_id": tweet["id"].upper()})).status_code == 204


async def test_a_tweet_is_deleted_by_its_author_or_an_administrator_only(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    root = await site.add_admin()
    tweet, other = await ada.posts("x"), await ada.posts("y")
    named = {"tweet_id": tweet["id"]}
    refused(await site.delete("/tweet/@ada", bob, params=named), 403, "not_yours")
    refused(await site.delete("/tweet/@bob", bob, params=named), 404, "unknown_tweet")
    refused(await site.delete("/tweet/@ada", params=named), 401, "token_missing")
    assert (await site.delete("/tweet/@ada", root, params=named)).status_code == 204
    assert listed(await site.get("/tweet/@ada")) == [other]


async def test_which_tweet_is_meant_is_said_once_and_in_full(site: Site) -> None:
    ada = await site.register("ada")
    tweet = await ada.posts("x")
    refused(await site.delete("/tweet/@ada", ada), 400, "missing_field")
    refused(await site.delete("/tweet/@ada", ada, params={"tweet_id": "x"}), 400, "malformed_id")
    refused(await site.delete("/tweet/@ada", ada, params={"tweet_id": NOBODY}), 404, "unknown_tweet")
    both = {"params": {"tweet_id": tweet["id"]}, "json": {"tweet_id": tweet["id"]}}
    refused(await site.delete("/tweet/@ada", ada, **both), 400, "duplicate_field")
    assert (await site.get("/tweet")).status_code == 400
    refused(await site.get("/tweet", params={"tweet_id": "x"}), 400, "malformed_id")
    refused(await site.get("/tweet", params={"tweet_id": NOBODY}), 404, "unknown_tweet")


async def test_pages_of_ones_tweets_go_on_to_the_end(site: Site) -> None:
    ada = await site.register("ada")
    posted = [await ada.posts(str(number)) for number in range(12)]
    newest_first = posted[::-1]
    assert await site.all_pages("/tweet/@ada") == [newest_first[:10], newest_first[10:]]
    assert await site.all_pages("/tweet/@ada", limit=12) == [newest_first]
    page = await site.get("/tweet/@ada", params={"limit": 4})
    await ada.posts("later")
    await ada.deletes(newest_first[4])
    link = next_page(page)
    assert link
    assert listed(await site.client.get(link)) == newest_first[5:9]
