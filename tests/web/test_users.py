"""Registering, showing and deleting users."""

from datetime import UTC, datetime
from uuid import UUID

from rookery.services.callers import ANYONE
from rookery.services.counts import COUNTS_SECONDS
from rookery.wiring import Sharing, open_rookery
from tests.web.conftest import Serve
from tests.web.polling import eventually
from tests.web.site import NOBODY, Site, bodies, done, found, listed, names, refused, said

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
KELVIN = "\N{KELVIN SIGN}"


async def test_registering_gives_an_id_and_a_token_that_acts_for_the_user(site: Site) -> None:
    made = done(await site.post("/user", json={"name": "ada"}), 201)
    assert made.keys() == {"user_id", "name", "token"}
    assert made["name"] == "ada"
    assert UUID(made["user_id"]).version == 7
    auth = {"Authorization": f"Bearer {made['token']}"}
    response = await site.post("/tweet", headers=auth, json={"user_name": "ada", "body": "hello"})
    assert done(response, 201)["user_id"] == made["user_id"]


async def test_a_handle_without_a_name_is_nobodys(site: Site) -> None:
    refused(await site.get("/user?user_id=@"), 404, "unknown_user")
    refused(await site.get("/tweet/@"), 404, "unknown_user")


async def test_a_user_is_shown_with_his_counts_and_the_time_of_his_id(site: Site) -> None:
    ada = await site.register("ada", display_name="Ada Lovelace")
    shown = await ada.profile()
    assert shown.keys() == {
        "user_id",
        "name",
        "display_name",
        "created_at",
        "count_followers",
        "count_followees",
        "count_tweets",
    }
    assert (shown["user_id"], shown["name"], shown["display_name"]) == (ada.id, "ada", "Ada Lovelace")
    assert (shown["count_followers"], shown["count_followees"], shown["count_tweets"]) == (0, 0, 0)
    millis = UUID(ada.id).int >> 80
    assert datetime.fromisoformat(shown["created_at"]) == datetime.fromtimestamp(millis / 1000, UTC)


async def test_the_counts_are_those_of_the_rows(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    assert (await ada.profile())["count_followers"] == 0
    await bob.follows(ada)
    await eve.follows(ada)
    await ada.follows(bob)
    gone = await ada.posts("one")
    await ada.posts("two")
    await ada.deletes(gone)
    shown = await ada.profile()
    assert (shown["count_followers"], shown["count_followees"], shown["count_tweets"]) == (2, 1, 1)
    await eve.unfollows(ada)
    assert (await ada.profile())["count_followers"] == 1


async def test_a_user_is_found_by_id_and_by_name_without_case(site: Site) -> None:
    ada = await site.register("Ada_1")
    for name, user_id in ((ada.name, ada.id), (ada.name.lower(), ada.id.upper()), (ada.name.upper(), ada.id)):
        by_name = found(await site.get("/user", params={"name": name}))
        by_at_name = found(await site.get("/user", params={"user_id": "@" + name}))
        by_id = found(await site.get("/user", params={"user_id": user_id}))
        assert by_name == by_at_name == by_id
        assert by_name["name"] == "Ada_1", "the handle is shown as it was typed"


async def test_the_case_of_a_name_is_folded_for_ascii_only(site: Site) -> None:
    await site.register("k")
    assert KELVIN.lower() == "k"
    refused(await site.get("/user", params={"name": KELVIN}), 404, "unknown_user")
    refused(await site.get("/user", params={"user_id": "@" + KELVIN}), 404, "unknown_user")
    refused(await site.get(f"/tweet/@{KELVIN}"), 404, "unknown_user")


async def test_a_handle_is_1_to_30_letters_digits_and_underscores(site: Site) -> None:
    for name in ("a", "Z", "9", "_", "b" * 30, "null", "true", "1e5", "None"):
        by_form = done(await site.post("/user", data={"name": name}), 201)
        assert by_form["name"] == name
        assert (await site.user(name))["user_id"] == by_form["user_id"]


async def test_another_handle_breaks_a_rule_that_is_named(site: Site) -> None:
    wrong = ["", "a" * 31, "a b", "a-b", "a.b", "@ada", "ad\N{LATIN SMALL LETTER E WITH ACUTE}", "ada\n", "\n", KELVIN]
    answers = {name: said(await site.post("/user", json={"name": name})) for name in wrong}
    assert answers == dict.fromkeys(wrong, (422, "name_invalid"))


async def test_a_taken_name_is_a_conflict_whatever_its_case(site: Site) -> None:
    await site.register("ada")
    for name in ("ada", "ADA", "Ada"):
        refused(await site.post("/user", json={"name": name}), 409, "name_taken")


async def test_the_handle_stands_for_a_missing_display_name(site: Site) -> None:
    ada = await site.register("ada")
    bob = await site.register("bob", display_name="")
    assert [(await one.profile())["display_name"] for one in (ada, bob)] == ["ada", "bob"]


async def test_a_display_name_has_50_characters_as_a_reader_counts_them(site: Site) -> None:
    ada = await site.register("ada", display_name=FAMILY * 40)
    assert (await ada.profile())["display_name"] == FAMILY * 40
    response = await site.post("/user", json={"name": "bob", "display_name": "x" * 51})
    refused(response, 422, "display_name_too_long")
    response = await site.post("/user", json={"name": "bob", "display_name": "x" * 201})
    refused(response, 422, "display_name_too_long")


async def test_a_display_name_is_one_line_without_control_characters(site: Site) -> None:
    odd = ["a\nb", "a\tb", "a\0b", "\x7f", "\x85"]
    answers = {text: said(await site.post("/user", json={"name": "ada", "display_name": text})) for text in odd}
    assert answers == dict.fromkeys(odd, (422, "display_name_characters"))


async def test_a_password_of_another_length_breaks_a_rule_that_is_named(site: Site) -> None:
    wrong = ["", "1234567", "x" * 201]
    answers = {text: said(await site.post("/user", json={"name": "ada", "password": text})) for text in wrong}
    assert answers == dict.fromkeys(wrong, (422, "password_length"))


async def test_an_unknown_user_is_not_found(site: Site) -> None:
    for params in ({"name": "nobody"}, {"user_id": "@nobody"}, {"user_id": NOBODY}, {"name": ""}):
        refused(await site.get("/user", params=params), 404, "unknown_user")


async def test_a_user_is_asked_for_in_one_way(site: Site) -> None:
    await site.register("ada")
    assert (await site.get("/user")).status_code == 400
    assert (await site.get("/user", params={"name": "ada", "user_id": "@ada"})).status_code == 400


async def test_a_deleted_user_and_everything_of_his_is_gone_at_once(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await bob.follows(ada)
    await ada.follows(bob)
    tweet = await ada.posts("mine")
    assert bodies(await bob.feed()) == ["mine"]
    await ada.leaves()
    refused(await site.get("/user", params={"name": "ada"}), 404, "unknown_user")
    refused(await site.get("/user", params={"user_id": ada.id}), 404, "unknown_user")
    refused(await site.get(f"/tweet/{ada.id}"), 404, "unknown_user")
    refused(await site.get(f"/feed/{ada.id}"), 404, "unknown_user")
    refused(await site.get(f"/follow/{ada.id}"), 404, "unknown_user")
    refused(await site.get("/tweet", params={"tweet_id": tweet["id"]}), 404, "deleted_tweet")
    assert await bob.feed() == []
    assert listed(await site.get("/top")) == []
    assert listed(await site.get(f"/followers/{bob.id}")) == []
    assert listed(await site.get(f"/follow/{bob.id}")) == []
    refused(await site.get("/top", ada), 401, "token_invalid")


async def test_a_deleted_users_name_is_never_given_to_another(site: Site) -> None:
    ada = await site.register("ada")
    await ada.leaves()
    refused(await site.post("/user", json={"name": "ADA"}), 409, "name_taken")


async def test_a_deleted_users_retweets_are_taken_back_from_the_counts(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    tweet = await ada.posts("mine")
    await bob.retweets(tweet)
    assert await site.count(tweet) == 1
    await bob.leaves()

    async def is_back() -> bool:
        return await site.count(tweet) == 0

    await eventually(is_back)


async def test_a_user_is_deleted_by_id_or_name_in_body_or_query(site: Site) -> None:
    ada, bob, eve, dan = await site.register_all("ada", "bob", "eve", "dan")
    assert (await site.delete("/user", ada, params={"user_id": "@ada"})).status_code == 204
    assert (await site.delete("/user", bob, json={"user_id": bob.id})).status_code == 204
    assert (await site.delete("/user", eve, data={"user_id": "@EVE"})).status_code == 204
    refused(await site.delete("/user", dan), 400, "missing_field")
    both = await site.delete("/user", dan, params={"user_id": dan.id}, json={"user_id": dan.id})
    refused(both, 400, "duplicate_field")
    assert names([await dan.profile()]) == ["dan"]


async def test_a_user_is_deleted_by_himself_or_an_administrator_only(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    root = await site.add_admin()
    refused(await site.delete("/user", bob, params={"user_id": ada.id}), 403, "not_yours")
    refused(await site.delete("/user", params={"user_id": ada.id}), 401, "token_missing")
    assert (await site.delete("/user", root, params={"user_id": ada.id})).status_code == 204
    refused(await site.delete("/user", root, params={"user_id": ada.id}), 404, "unknown_user")


async def test_in_open_mode_there_is_no_token_and_anyone_may_delete(open_mode: Site) -> None:
    ada = await open_mode.register("ada")
    assert ada.token is None
    await ada.leaves()
    refused(await open_mode.get("/user", params={"name": "ada"}), 404, "unknown_user")


async def test_where_registration_is_closed_an_administrator_registers(serve: Serve) -> None:
    site = await serve(registration="closed")
    root = await site.add_admin()
    refused(await site.post("/user", json={"name": "ada"}), 403, "registration_closed")
    made = done(await site.post("/user", root, json={"name": "ada"}), 201)
    ada = {"Authorization": f"Bearer {made['token']}"}
    refused(await site.post("/user", headers=ada, json={"name": "bob"}), 403, "registration_closed")


async def test_reserved_names_are_given_by_administrators_only(serve: Serve) -> None:
    site = await serve(reserved_names=("Acme", "press_"))
    root = await site.add_admin("root")
    for name in ("admin", "ADMIN", "_admin__", "Support", "api", "acme", "ACME_", "press"):
        refused(await site.post("/user", json={"name": name}), 403, "name_reserved")
    refused(await site.get("/user", params={"name": "acme"}), 404, "unknown_user")
    for name in ("Support", "acme"):
        assert done(await site.post("/user", root, json={"name": name}), 201)["name"] == name
    for name in ("administrate", "acme2", "a_p_i"):
        await site.register(name)


async def test_in_open_mode_every_name_can_be_taken(open_mode: Site) -> None:
    assert (await open_mode.register("admin")).name == "admin"
    response = await open_mode.post("/tweet", json={"user_name": "support", "body": "hello"})
    assert response.status_code == 201


async def test_what_another_process_changes_is_seen_within_a_second(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    assert (await ada.profile())["count_followers"] == 0
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        services = beside.services
        users = [await services.accounts.find_name(name) for name in ("bob", "ada")]
        await services.follows.follow(ANYONE, users[0], users[1], None)

    async def is_seen() -> bool:
        return bool((await ada.profile())["count_followers"] == 1)

    await eventually(is_seen, timeout=COUNTS_SECONDS + 0.5)
    assert names(listed(await site.get("/followers/@ada"))) == [bob.name]
