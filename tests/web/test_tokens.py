"""Signing in and out. Hashing a password takes long on purpose, so few are used here."""

import asyncio
import time

import pytest

from rookery.adapters.argon2 import Argon2Hasher
from rookery.adapters.system import SystemClock
from rookery.services.accounts import REFUSED_SECONDS, TOKEN_SECONDS
from rookery.services.callers import ANYONE
from rookery.wiring import DATABASE, Sharing, open_rookery
from tests.web.conftest import Clock, Serve
from tests.web.polling import eventually
from tests.web.site import NOBODY, Person, Site, done, listed, refused

PASSWORD = "correct horse"
NEW_PASSWORD = "battery staple"
KEY = {"Idempotency-Key": "a key that nobody guesses"}
DAY_MILLIS = 24 * 60 * 60 * 1000


async def test_a_name_and_password_give_one_more_token(site: Site) -> None:
    ada = await site.register("Ada", password=PASSWORD)
    answer = done(await site.post("/token", json={"name": "aDA", "password": PASSWORD}), 201)
    assert answer.keys() == {"token"}
    assert answer["token"] != ada.token
    await ada.posts("by the first")
    ada.token = answer["token"]
    await ada.posts("by the second")


async def test_a_wrong_password_and_an_unknown_name_are_answered_alike(site: Site) -> None:
    await site.register("ada", password=PASSWORD)
    await site.register("bob")
    wrong = await site.post("/token", json={"name": "ada", "password": "wrong horse"})
    unknown = await site.post("/token", json={"name": "nobody", "password": PASSWORD})
    without = await site.post("/token", json={"name": "bob", "password": PASSWORD})
    assert refused(wrong, 401, "bad_credentials") == unknown.json() == without.json()
    assert unknown.status_code == without.status_code == 401


async def test_signing_out_ends_the_token_that_was_used_and_no_other(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    first = ada.token
    ada.token = done(await site.post("/token", data={"name": "ada", "password": PASSWORD}), 201)["token"]
    assert (await site.delete("/token", ada)).status_code == 204
    refused(await site.delete("/token", ada), 401, "token_invalid")
    refused(await site.get("/top", ada), 401, "token_invalid")
    ada.token = first
    await ada.posts("still here")


async def test_signing_out_takes_a_token(site: Site) -> None:
    refused(await site.delete("/token"), 401, "token_missing")


async def test_in_open_mode_signing_out_changes_nothing(open_mode: Site) -> None:
    assert (await open_mode.delete("/token")).status_code == 204


async def test_a_token_revoked_beside_the_server_is_refused_within_a_second(site: Site) -> None:
    ada = await site.register("ada")
    assert listed(await site.get("/top", ada)) == []
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        accounts = beside.services.accounts
        assert await accounts.revoke_tokens(await accounts.find_name("ada")) == 1

    async def is_refused() -> bool:
        return (await site.get("/top", ada)).status_code == 401

    await eventually(is_refused, timeout=1.5)


async def test_a_token_given_beside_the_server_serves_at_once(site: Site) -> None:
    ada = await site.register("ada")
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        accounts = beside.services.accounts
        ada.token = await accounts.give_token(await accounts.find_name("ada"))
    await ada.posts("hello")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_without_case(site: Site, scheme: str) -> None:
    ada = await site.register("ada")
    response = await site.delete("/token", headers={"Authorization": f"{scheme} {ada.token}"})
    assert response.status_code == 204


async def test_what_is_stored_tells_neither_token_nor_password(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    asked = {"name": "bob"}
    bob = done(await site.post("/user", json=asked, headers={"Idempotency-Key": "a secret key of bob"}), 201)
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        eve = await beside.services.accounts.register(ANYONE, "eve", None)
    stored = b"".join(path.read_bytes() for path in site.settings.data.glob(f"{DATABASE}*"))
    assert b"$argon2id$" in stored
    for secret in (PASSWORD, ada.token, bob["token"], eve.token, "a secret key of bob"):
        assert secret
        assert secret.encode() not in stored
        assert secret.removeprefix("rk_").encode() not in stored


async def test_a_token_has_256_bits_and_none_is_given_twice(site: Site) -> None:
    tokens = [(await site.register(f"user{number}")).token or "" for number in range(20)]
    assert len(set(tokens)) == 20
    assert all(token.startswith("rk_") and len(token) == len("rk_") + 43 for token in tokens)


# Tokens under a key, which a client may send again


def asked_owners(site: Site) -> int:
    """How often the store was asked whose token one is."""
    return site.calls("token_owner")


def a_day_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "now", lambda _: time.time_ns() // 1_000_000 + DAY_MILLIS + 1_000)


async def test_a_key_used_again_after_its_day_brings_no_revoked_token_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await site.register("ada", password=PASSWORD)
    asked = {"name": "ada", "password": PASSWORD}
    first = done(await site.post("/token", json=asked, headers=KEY), 201)["token"]
    assert done(await site.post("/token", json=asked, headers=KEY), 201)["token"] == first
    assert (await site.delete("/token", headers={"Authorization": f"Bearer {first}"})).status_code == 204
    a_day_later(monkeypatch)
    ada.token = done(await site.post("/token", json=asked, headers=KEY), 201)["token"]
    assert ada.token != first
    refused(await site.get("/top", headers={"Authorization": f"Bearer {first}"}), 401, "token_invalid")
    await ada.posts("by the new one")


async def test_a_replay_of_a_revoked_token_is_refused(site: Site) -> None:
    registered = done(await site.post("/user", json={"name": "ada", "password": PASSWORD}, headers=KEY), 201)
    auth = {"Authorization": f"Bearer {registered['token']}"}
    asked = {"name": "ada", "password": PASSWORD}
    other_key = {"Idempotency-Key": "another that nobody guesses"}
    signed_in = done(await site.post("/token", json=asked, headers=other_key), 201)["token"]
    assert (await site.delete("/token", params={"all": True}, headers=auth)).status_code == 204
    refused(await site.post("/token", json=asked, headers=other_key), 409, "token_revoked")
    again = await site.post("/user", json={"name": "ada", "password": PASSWORD}, headers=KEY)
    refused(again, 409, "token_revoked")
    for token in (registered["token"], signed_in):
        refused(await site.get("/top", headers={"Authorization": f"Bearer {token}"}), 401, "token_invalid")


async def test_a_token_that_is_not_valid_is_refused_without_asking_the_store(site: Site, clock: Clock) -> None:
    ada = await site.register("ada")
    assert (await site.delete("/token", ada)).status_code == 204
    before = asked_owners(site)
    for _ in range(10):
        refused(await site.get("/top", ada), 401, "token_invalid")
    assert asked_owners(site) == before + 1
    clock.now += REFUSED_SECONDS
    refused(await site.get("/top", ada), 401, "token_invalid")
    assert asked_owners(site) == before + 2


async def test_what_can_not_be_a_token_is_refused_without_asking_the_store(site: Site) -> None:
    before = asked_owners(site)
    for token in ("rk_", "x" * 46, "rk_" + "a" * 44, "rk_" + "a" * 42 + "+", "a" * 10_000):
        refused(await site.get("/top", headers={"Authorization": f"Bearer {token}"}), 401, "token_invalid")
    assert asked_owners(site) == before


async def test_tokens_that_are_made_up_ask_the_store_no_more_than_an_address_may(serve: Serve, clock: Clock) -> None:
    site = await serve(rate_limit="on", rate_limit_token=100, rate_limit_address=5)
    ada = await site.register("ada")
    assert (await site.get("/top", ada)).status_code == 200
    before = asked_owners(site)
    for number in range(30):
        response = await site.get("/top", headers={"Authorization": f"Bearer rk_{number:043}"})
        assert response.status_code in {401, 429}
    assert asked_owners(site) - before <= 5
    assert (await site.get("/top", ada)).status_code == 200, "one that is known goes on"
    clock.now += TOKEN_SECONDS + 0.1
    assert (await site.get("/top", ada)).status_code == 200, "also when it must be asked for again"


async def test_requests_with_one_token_share_a_look_into_the_store(site: Site, clock: Clock) -> None:
    ada = await site.register("ada")
    for passed in (0.0, TOKEN_SECONDS + 0.1):
        clock.now += passed
        before = asked_owners(site)
        answers = await asyncio.gather(*(site.get("/top", ada) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert asked_owners(site) == before + 1


async def test_what_can_not_be_a_token_is_no_reason_to_look_for_a_deletion(site: Site) -> None:
    before = site.calls("recall")
    refused(await site.delete("/user", headers={"Authorization": "Bearer x"}), 401, "token_invalid")
    assert site.calls("recall") == before
    refused(await site.delete("/user", headers={"Authorization": "Bearer rk_" + "a" * 43}), 401, "token_invalid")
    assert site.calls("recall") == before + 1


# Ending all of them


async def test_whoever_lost_a_token_ends_all_of_them(site: Site) -> None:
    ada, bob = await site.register("ada", password=PASSWORD), await site.register("bob")
    lost = ada.token
    ada.token = done(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 201)["token"]
    await ada.posts("hello")
    assert (await site.delete("/token", ada, params={"all": "true"})).status_code == 204
    for token in (lost, ada.token):
        refused(await site.get("/top", headers={"Authorization": f"Bearer {token}"}), 401, "token_invalid")
    await bob.posts("not mine")
    ada.token = done(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 201)["token"]
    await ada.posts("back")


async def test_all_false_ends_the_one_that_was_used(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    first = ada.token
    ada.token = done(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 201)["token"]
    assert (await site.delete("/token", ada, params={"all": "false"})).status_code == 204
    ada.token = first
    await ada.posts("still here")
    refused(await site.delete("/token", ada, params={"all": "perhaps"}), 400, "malformed_parameter")


# Passwords


async def change(site: Site, ada: Person, password: str | None = PASSWORD, new: str = NEW_PASSWORD) -> int:
    asked = {"new_password": new} | ({"password": password} if password is not None else {})
    return (await site.post("/password", ada, json=asked)).status_code


async def test_a_new_password_ends_all_tokens_but_the_one_that_is_used(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    stolen = ada.token
    ada.token = done(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 201)["token"]
    assert listed(await site.get("/top", headers={"Authorization": f"Bearer {stolen}"})) == []
    assert await change(site, ada) == 204
    refused(await site.get("/top", headers={"Authorization": f"Bearer {stolen}"}), 401, "token_invalid")
    await ada.posts("mine")
    refused(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 401, "bad_credentials")
    done(await site.post("/token", json={"name": "ada", "password": NEW_PASSWORD}), 201)


async def test_a_password_is_changed_by_who_knows_it(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    wrong = {"password": "wrong horse", "new_password": NEW_PASSWORD}
    refused(await site.post("/password", ada, json=wrong), 401, "bad_credentials")
    refused(await site.post("/password", ada, json={"new_password": NEW_PASSWORD}), 401, "bad_credentials")
    refused(await site.post("/password", ada, json=wrong | {"new_password": "short"}), 422, "password_length")
    refused(await site.post("/password", json=wrong), 401, "token_missing")
    done(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 201)


async def test_a_user_without_a_password_sets_the_first_with_a_token(site: Site) -> None:
    ada = await site.register("ada")
    assert await change(site, ada, "a guess that is none") == 401
    assert await change(site, ada, None) == 204
    done(await site.post("/token", json={"name": "ada", "password": NEW_PASSWORD}), 201)
    await ada.posts("by the old token")


async def test_a_change_that_is_sent_again_is_answered_alike(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    asked = {"password": PASSWORD, "new_password": NEW_PASSWORD}
    for _ in range(2):
        assert (await site.post("/password", ada, json=asked, headers=KEY)).status_code == 204
    refused(await site.post("/password", ada, json=asked), 401, "bad_credentials")


async def test_a_sign_in_by_the_old_password_does_not_outlast_its_change(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.register("ada", password=PASSWORD)
    verified, go_on = asyncio.Event(), asyncio.Event()
    verify = Argon2Hasher.verify

    async def slow(self: Argon2Hasher, hashed: str | None, password: str) -> bool:
        is_right = await verify(self, hashed, password)
        verified.set()
        await go_on.wait()
        return is_right

    monkeypatch.setattr(Argon2Hasher, "verify", slow)
    signing_in = asyncio.create_task(site.post("/token", json={"name": "ada", "password": PASSWORD}))
    await verified.wait()
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        user = await beside.services.accounts.find_name("ada")
        await beside.backends.store.set_password(user.id, "another hash")
        go_on.set()
        refused(await signing_in, 401, "bad_credentials")
        assert await beside.backends.store.revoke_tokens(user.id) == 0, "no token is left"


async def test_in_open_mode_nobody_has_a_password(open_mode: Site) -> None:
    refused(await open_mode.post("/password", json={"new_password": NEW_PASSWORD}), 401, "token_missing")


# A deletion whose answer was lost


async def test_a_lost_answer_to_ones_own_deletion_can_be_asked_for_again(site: Site) -> None:
    ada, bob = await site.register_all("ada", "bob")
    for reference in (ada.id, "@ada", "@ADA"):
        assert (await site.delete("/user", ada, params={"user_id": reference})).status_code == 204
    assert (await site.client.delete("/user", headers=ada.auth, params={"user_id": ada.id})).status_code == 204
    for reference in (bob.id, "@bob", "@nobody", NOBODY):
        refused(await site.delete("/user", ada, params={"user_id": reference}), 401, "token_invalid")
    refused(await site.get("/user", ada, params={"name": "bob"}), 401, "token_invalid")
    refused(await site.delete("/token", ada), 401, "token_invalid")
    refused(await site.post("/tweet", ada, json={"user_name": "bob", "body": "x"}), 401, "token_invalid")
    assert (await bob.profile())["name"] == "bob"


async def test_it_can_be_asked_for_at_another_server_and_for_a_day(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await serve()
    ada = await site.register("ada")
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        caller = await beside.services.accounts.authenticate(ada.token or "")
        assert caller.user
        await beside.services.accounts.delete(caller, caller.user)
    assert (await site.delete("/user", ada, params={"user_id": "@ada"})).status_code == 204
    a_day_later(monkeypatch)
    refused(await site.delete("/user", ada, params={"user_id": "@ada"}), 401, "token_invalid")


async def test_another_token_of_a_deleted_user_is_not_heard(site: Site) -> None:
    ada = await site.register("ada", password=PASSWORD)
    other = done(await site.post("/token", json={"name": "ada", "password": PASSWORD}), 201)["token"]
    await ada.leaves()
    auth = {"Authorization": f"Bearer {other}"}
    refused(await site.delete("/user", headers=auth, params={"user_id": "@ada"}), 401, "token_invalid")


async def test_a_deletion_that_failed_is_not_told_as_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token was revoked since, and the user is there."""
    ada = await site.register("ada", password=PASSWORD)
    accounts = site.app._accounts  # type: ignore[attr-defined]

    async def fails(*_: object) -> bool:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(accounts._store._inner, "delete_user", fails)
        accounts._store.__dict__.pop("delete_user", None)
        assert (await site.delete("/user", ada, params={"user_id": "@ada"})).status_code == 500
        accounts._store.__dict__.pop("delete_user", None)
    assert (await site.delete("/token", ada)).status_code == 204
    refused(await site.delete("/user", ada, params={"user_id": "@ada"}), 401, "token_invalid")
