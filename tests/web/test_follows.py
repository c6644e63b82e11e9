"""Following, unfollowing, and the lists of who follows whom."""

from tests.web.conftest import Serve
from tests.web.site import NOBODY, Person, Site, listed, names, next_page, problem, refused


async def followees(person: Person) -> list[str]:
    return names(listed(await person.site.get(f"/follow/{person.id}")))


async def followers(person: Person) -> list[str]:
    return names(listed(await person.site.get(f"/followers/{person.id}")))


async def test_following_shows_in_both_lists(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    assert await followees(ada) == ["bob"]
    assert await followers(bob) == ["ada"]
    assert await followees(bob) == await followers(ada) == []


async def test_a_list_holds_users_as_they_are_shown_everywhere(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob)
    assert listed(await site.get(f"/follow/{ada.id}")) == [await bob.profile()]
    assert listed(await site.get(f"/followers/{bob.id}")) == [await ada.profile()]


async def test_the_followee_is_named_by_id_or_name_in_body_or_query(site: Site) -> None:
    ada, bob, _, dan, fay = await site.register_all("ada", "bob", "eve", "dan", "fay")
    asked = [
        await site.post("/follow/@ADA", ada, json={"followee_id": bob.id}),
        await site.post(f"/follow/{ada.id}", ada, data={"followee_id": "@Eve"}),
        await site.post("/follow/@ada", ada, params={"followee_id": dan.id.upper()}),
        await site.post(f"/follow/{ada.id.upper()}", ada, params={"followee_id": "@fay"}),
    ]
    assert [response.status_code for response in asked] == [204] * 4
    assert all(response.content == b"" for response in asked)
    assert await followees(ada) == ["fay", "dan", "eve", "bob"]
    asked = [
        await site.delete("/follow/@ada", ada, json={"followee_id": bob.id}),
        await site.delete(f"/follow/{ada.id}", ada, data={"followee_id": "@Eve"}),
        await site.delete("/follow/@ada", ada, params={"followee_id": dan.id}),
    ]
    assert [response.status_code for response in asked] == [204] * 3
    assert await followees(ada) == ["fay"]
    assert await followers(fay) == ["ada"]


async def test_following_twice_changes_nothing(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await ada.follows(bob, bob)
    assert await followees(ada) == ["bob"]
    assert (await bob.profile())["count_followers"] == 1


async def test_unfollowing_someone_not_followed_changes_nothing(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await ada.follows(bob)
    await ada.unfollows(eve)
    await ada.unfollows(bob)
    await ada.unfollows(bob)
    assert await followees(ada) == []
    assert (await ada.profile())["count_followees"] == 0
    await ada.follows(bob)
    assert await followees(ada) == ["bob"]


async def test_nobody_follows_or_unfollows_himself(site: Site) -> None:
    ada = await site.register("ada")
    for whom in (ada.id, "@ada", "@ADA"):
        refused(await site.post("/follow/@ada", ada, json={"followee_id": whom}), 422, "self_follow")
        refused(await site.delete("/follow/@ada", ada, json={"followee_id": whom}), 422, "self_follow")
    assert await followees(ada) == []


async def test_the_followee_is_named_once(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    for method in ("POST", "DELETE"):
        refused(await site.ask(method, "/follow/@ada", ada), 400, "missing_field")
        refused(await site.ask(method, "/follow/@ada", ada, json={}), 400, "missing_field")
        both = {"params": {"followee_id": bob.id}, "json": {"followee_id": bob.id}}
        refused(await site.ask(method, "/follow/@ada", ada, **both), 400, "duplicate_field")
    assert await followees(ada) == []


async def test_unknown_and_malformed_users_are_told_apart(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    await bob.leaves()
    for method in ("POST", "DELETE"):
        for whom in (NOBODY, "@nobody", bob.id, "@bob"):
            refused(await site.ask(method, "/follow/@ada", ada, json={"followee_id": whom}), 404, "unknown_user")
        refused(await site.ask(method, "/follow/@ada", ada, json={"followee_id": "bob"}), 400, "malformed_id")
        refused(await site.ask(method, "/follow/ada", ada, json={"followee_id": "@bob"}), 400, "malformed_id")
        refused(await site.ask(method, f"/follow/{NOBODY}", ada, json={"followee_id": "@ada"}), 404, "unknown_user")
    for path in ("/follow", "/followers"):
        refused(await site.get(f"{path}/@bob"), 404, "unknown_user")
        refused(await site.get(f"{path}/bob"), 400, "malformed_id")


async def test_nobody_follows_in_anothers_name(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    root = await site.add_admin()
    for who in (bob, root):
        for method in ("POST", "DELETE"):
            refused(await site.ask(method, "/follow/@ada", who, json={"followee_id": eve.id}), 403, "not_yours")
    refused(await site.post("/follow/@ada", json={"followee_id": eve.id}), 401, "token_missing")
    assert await followees(ada) == []


async def test_in_open_mode_anyone_follows_in_anyones_name(open_mode: Site) -> None:
    ada, bob = await open_mode.register_all("ada", "bob")
    await ada.follows(bob)
    assert await followees(ada) == ["bob"]


async def test_pages_go_on_to_the_end_with_the_newest_members_first(site: Site) -> None:
    people = await site.register_all(*(f"user{number:02}" for number in range(12)))
    first = people[0]
    for other in people[1:]:
        await first.follows(other)
        await other.follows(first)
    everyone = [person.name for person in reversed(people[1:])]
    for path in (f"/follow/{first.id}", f"/followers/{first.id}"):
        assert [names(page) for page in await site.all_pages(path)] == [everyone[:10], everyone[10:]]
        assert [names(page) for page in await site.all_pages(path, limit=11)] == [everyone]
        pages = await site.all_pages(path, limit=3)
        assert [len(page) for page in pages] == [3, 3, 3, 2]
        assert [name for page in pages for name in names(page)] == everyone


async def test_a_page_goes_on_where_it_ended_though_people_come_and_go(site: Site) -> None:
    people = await site.register_all(*(f"user{number}" for number in range(6)))
    first = people[0]
    await first.follows(*people[1:5])
    page = await site.get(f"/follow/{first.id}", params={"limit": 2})
    assert names(listed(page)) == ["user4", "user3"]
    await first.follows(people[5])
    await first.unfollows(people[3])
    link = next_page(page)
    assert link
    assert names(listed(await site.client.get(link))) == ["user2", "user1"]


async def test_a_deleted_user_is_in_no_list(site: Site) -> None:
    ada, bob, eve = await site.register_all("ada", "bob", "eve")
    await ada.follows(bob, eve)
    await bob.follows(eve)
    await bob.leaves()
    assert await followees(ada) == ["eve"]
    assert await followers(eve) == ["ada"]


async def test_one_follows_so_many_and_no_more(serve: Serve) -> None:
    site = await serve(max_followees=2)
    ada, bob, eve, dan = await site.register_all("ada", "bob", "eve", "dan")
    await ada.follows(bob, eve)
    refused(await site.post("/follow/@ada", ada, json={"followee_id": dan.id}), 409, "too_many_followees")
    await ada.follows(bob)
    assert await followees(ada) == ["eve", "bob"]
    await ada.unfollows(bob)
    await ada.follows(dan)
    assert await followees(ada) == ["dan", "eve"]


async def test_a_limit_is_1_to_100(site: Site) -> None:
    await site.register("ada")
    for path in ("/follow/@ada", "/followers/@ada"):
        for limit in ("1", "100"):
            assert listed(await site.get(path, params={"limit": limit})) == []
        for limit in ("0", "101", "-1", "ten", "", "9" * 30, "NaN", "1_0"):
            response = await site.get(path, params={"limit": limit})
            assert (response.status_code, limit) == (400, limit)
            assert "limit" in problem(response)["detail"]


async def test_a_cursor_serves_in_its_own_list_only(site: Site) -> None:
    people = await site.register_all("ada", "bob", "eve")
    for one in people:
        await one.follows(*(other for other in people if other is not one))
    path = f"/follow/{people[0].id}"
    link = next_page(await site.get(path, params={"limit": 1}))
    assert link
    cursor = link.partition("cursor=")[2]
    for elsewhere in ("/followers/@ada", "/feed/@ada", "/tweet/@ada"):
        refused(await site.get(elsewhere, params={"cursor": cursor}), 400, "malformed_cursor")
    for wrong in ("x", cursor[:-1], cursor + "A", cursor + "=", " " + cursor, "%00", "é", "null"):
        refused(await site.get(path, params={"cursor": wrong}), 400, "malformed_cursor")
