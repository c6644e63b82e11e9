"""Signing in and out. Hashing a password takes long on purpose, so few are used here."""

import pytest

from rookery.services.callers import ANYONE
from rookery.wiring import DATABASE, Sharing, open_rookery
from tests.web.polling import eventually
from tests.web.site import Site, done, listed, refused

PASSWORD = "correct horse"


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
