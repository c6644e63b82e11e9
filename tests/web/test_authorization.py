"""Who may do what, as one table: each route by each caller, in each mode, by each form of its path.

`RULES` declares what a route needs, and has to name every route there is. What each cell answers follows from that.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import httpx
import pytest

from rookery.services.callers import ANYONE
from rookery.wiring import Sharing, open_rookery
from tests.web.conftest import Serve
from tests.web.routes import all_routes, filled
from tests.web.site import API, NOBODY, Person, Site, done, said

Answer = tuple[int, str]
"""Status and code; an accepted request has no code."""


class Needs(Enum):
    """What a route asks of its caller."""

    NOTHING = auto()
    """It does not even look at a token."""
    NO_WRONG_TOKEN = auto()
    """No token, or a good one."""
    ITS_USER = auto()
    """A token in any mode: without one there is no user whom it could be about."""
    READER = auto()
    """A token where reads need one."""
    TOKEN = auto()
    OWNER = auto()
    """The token of the user that it is about."""
    OWNER_OR_ADMIN = auto()
    REGISTRAR = auto()
    """Anyone where registration is open, else an administrator."""


@dataclass(frozen=True)
class Rule:
    """What a route needs, and what a caller who has that gets for this request."""

    needs: Needs
    answer: Answer = (200, "")
    params: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, str] | None = None
    ends: bool = False
    """Whether it ends the user or token that it is about, so that each cell needs new ones."""


TWEET, USER, USER_NAME, NEW_NAME = "<tweet>", "<user>", "<user name>", "<new name>"
"""What is put in each request anew."""
RULES: dict[tuple[str, str], Rule] = {
    ("GET", "/livez"): Rule(Needs.NOTHING),
    ("GET", "/readyz"): Rule(Needs.NOTHING),
    ("GET", "/status"): Rule(Needs.NO_WRONG_TOKEN),
    ("GET", "/openapi.json"): Rule(Needs.NO_WRONG_TOKEN),
    ("GET", "/assets/{name}"): Rule(Needs.NO_WRONG_TOKEN),
    ("GET", API): Rule(Needs.NO_WRONG_TOKEN),
    ("GET", "/static/{name}"): Rule(Needs.NO_WRONG_TOKEN),
    ("GET", "/"): Rule(Needs.READER),
    ("GET", "/top"): Rule(Needs.READER),
    ("GET", "/user"): Rule(Needs.READER, params={"user_id": USER}),
    ("GET", "/tweet"): Rule(Needs.READER, params={"tweet_id": TWEET}),
    ("GET", "/chain"): Rule(Needs.READER, params={"tweet_id": TWEET}),
    ("GET", "/tweet/{user_id}"): Rule(Needs.READER),
    ("GET", "/feed/{user_id}"): Rule(Needs.READER),
    ("GET", "/follow/{follower_id}"): Rule(Needs.READER),
    ("GET", "/followers/{user_id}"): Rule(Needs.READER),
    ("POST", "/user"): Rule(Needs.REGISTRAR, (201, ""), json={"name": NEW_NAME}),
    ("DELETE", "/user"): Rule(Needs.OWNER_OR_ADMIN, (204, ""), params={"user_id": USER}, ends=True),
    # It stops before a password is hashed, which would take long: whoever comes so far was let in.
    ("POST", "/token"): Rule(Needs.NO_WRONG_TOKEN, (400, "missing_field"), json={"name": "ada"}),
    ("POST", "/password"): Rule(Needs.ITS_USER, (422, "password_length"), json={"new_password": "x"}),
    ("DELETE", "/token"): Rule(Needs.TOKEN, (204, ""), ends=True),
    ("POST", "/tweet"): Rule(Needs.OWNER, (201, ""), json={"user_name": USER_NAME, "body": "x"}),
    ("POST", "/retweet"): Rule(Needs.OWNER, (201, ""), json={"user_name": USER_NAME, "retweet": TWEET, "body": "x"}),
    ("POST", "/tweet/{user_id}"): Rule(Needs.OWNER, (201, ""), json={"tweet": "x"}),
    ("DELETE", "/tweet/{user_id}"): Rule(Needs.OWNER_OR_ADMIN, (404, "unknown_tweet"), params={"tweet_id": NOBODY}),
    ("POST", "/follow/{follower_id}"): Rule(Needs.OWNER, (204, ""), json={"followee_id": "@eve"}),
    ("DELETE", "/follow/{follower_id}"): Rule(Needs.OWNER, (204, ""), params={"followee_id": "@eve"}),
}
WRONG = {"malformed", "another scheme", "invalid", "revoked", "deleted"}
CALLERS = ("none", *sorted(WRONG), "other", "own", "admin")
MODES: list[dict[str, Any]] = [
    *(
        {"auth": "token", "reads": reads, "registration": registration}
        for reads, registration in itertools.product(("public", "token"), ("open", "closed"))
    ),
    {"auth": "open"},
    {"auth": "open", "reads": "token", "registration": "closed"},
]


def expected(rule: Rule, caller: str, mode: Mapping[str, str]) -> Answer:
    """The answer that follows from what a route needs."""
    needs = rule.needs
    if mode["auth"] == "open" and needs is Needs.ITS_USER:
        return 401, "token_missing"
    if mode["auth"] == "open" or needs is Needs.NOTHING:
        return rule.answer
    if caller in WRONG:
        return 401, "token_invalid"
    is_let_in = {
        Needs.NO_WRONG_TOKEN: True,
        Needs.READER: mode["reads"] == "public" or caller != "none",
        Needs.TOKEN: caller != "none",
        Needs.ITS_USER: caller != "none",
        Needs.OWNER: caller == "own",
        Needs.OWNER_OR_ADMIN: caller in ("own", "admin"),
        Needs.REGISTRAR: mode["registration"] == "open" or caller == "admin",
    }[needs]
    if is_let_in:
        return rule.answer
    if needs is Needs.REGISTRAR:
        return 403, "registration_closed"
    return (401, "token_missing") if caller == "none" else (403, "not_yours")


class Town:
    """The users of a mode, and what their callers send."""

    def __init__(self, site: Site, admins: list[Person]) -> None:
        self.site = site
        self.admins = admins
        self._names = (f"new{number}" for number in itertools.count())
        self.ada: Person
        self.bob: Person
        self.tweet = ""
        self._wrong: dict[str, dict[str, str]] = {}

    async def settle(self) -> None:
        self.ada, self.bob = await self.register("ada"), await self.register("bob")
        await self.register("eve")
        self.tweet = (await self.ada.posts("x"))["id"]
        revoked, deleted = await self.register(), await self.register()
        if revoked.token:
            done_with = await self.site.delete("/token", revoked)
            assert done_with.status_code == 204
            await deleted.leaves()
        self._wrong = {
            "malformed": {"Authorization": "Bearer"},
            "another scheme": {"Authorization": f"Basic {self.ada.token}"},
            "invalid": {"Authorization": "Bearer rk_invalid"},
            "revoked": {"Authorization": f"Bearer {revoked.token}"},
            "deleted": {"Authorization": f"Bearer {deleted.token}"},
        }

    def new_name(self) -> str:
        return next(self._names)

    async def register(self, name: str | None = None) -> Person:
        made = await self.site.post("/user", self.admins[0], json={"name": name or self.new_name()})
        return Person(self.site, done(made, 201))

    async def cell(self, rule: Rule, caller: str) -> tuple[Person, dict[str, str]]:
        """The user that a request is about, and the headers of who sends it."""
        subject, other, admin = self.ada, self.bob, self.admins[0]
        if rule.ends:
            subject, other = await self.register(), await self.register()
        if rule.ends and rule.needs is Needs.TOKEN and caller == "admin":
            admin = self.admins.pop()
        known = {"none": {}, "own": subject.auth, "other": other.auth, "admin": admin.auth}
        return subject, known[caller] if caller in known else self._wrong[caller]


def forms(path: str, subject: Person) -> list[str]:
    """A path by id and by name, plain and with a slash behind it."""
    filled_in = {path}
    for place in ("{user_id}", "{follower_id}"):
        filled_in = {one.replace(place, ref) for one in filled_in for ref in (subject.id, f"@{subject.name}")}
    plain = [filled(one) for one in sorted(filled_in)]
    return [*plain, *(f"{one}/" for one in plain if one != "/")]


async def ask(town: Town, asked: tuple[str, str], rule: Rule, subject: Person, auth: dict[str, str]) -> httpx.Response:
    """Send a rule's request, with its method and path."""
    method, path = asked
    put = {TWEET: town.tweet, USER: subject.id, USER_NAME: subject.name}
    params = {name: put.get(value, value) for name, value in rule.params.items()}
    sent: dict[str, Any] = {"headers": auth, "params": params}
    if rule.json is not None and method != "HEAD":
        sent["json"] = {
            name: town.new_name() if value == NEW_NAME else put.get(value, value) for name, value in rule.json.items()
        }
    return await town.site.client.request(method, path, **sent)


def rule_of(method: str, path: str) -> Rule:
    return RULES[method, path if path == API else path.removeprefix(API)]


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    routes = {
        (method, path if path == API else path.removeprefix(API))
        for path, methods in all_routes().items()
        for method in methods
    }
    assert routes == RULES.keys()


@pytest.fixture
async def town(serve: Serve, request: pytest.FixtureRequest) -> Town:
    mode: dict[str, Any] = request.param
    site = await serve(**mode)
    async with open_rookery(site.settings, Sharing.ANYONE) as beside:
        made = [await beside.services.accounts.register(ANYONE, f"admin{n}", None, is_admin=True) for n in range(8)]
    admins = [Person(site, {"user_id": str(one.user_id), "name": one.name, "token": one.token}) for one in made]
    town = Town(site, admins)
    await town.settle()
    return town


MODE = pytest.mark.parametrize(
    ("town", "mode"), [(mode, {"reads": "public", **mode}) for mode in MODES], indirect=["town"], ids=str
)


@MODE
async def test_each_route_lets_in_whom_it_should(town: Town, mode: dict[str, str]) -> None:
    wrong, cells = [], 0
    for path, methods in all_routes().items():
        for method, caller in itertools.product(sorted(methods), CALLERS):
            rule = rule_of(method, path)
            subject, auth = await town.cell(rule, caller)
            for number, form in enumerate(forms(path, subject)):
                if rule.ends and number:
                    subject, auth = await town.cell(rule, caller)
                found = said(await ask(town, (method, form), rule, subject, auth))
                due = expected(rule, caller, mode)
                cells += 1
                if found != due:
                    wrong.append(f"{method} {form} by {caller}: {found}, not {due}")
                if method == "GET":
                    head = await ask(town, ("HEAD", form), rule, subject, auth)
                    cells += 1
                    if (head.status_code, head.content) != (due[0], b""):
                        wrong.append(f"HEAD {form} by {caller}: {head.status_code}, not {due[0]}")
    assert not wrong, "\n".join(wrong)
    assert cells > 700


@MODE
async def test_what_is_no_route_tells_nobody_more(town: Town, mode: dict[str, str]) -> None:
    """An unknown method or path: a wrong token is told first, but for health checks, which look at none."""
    wrong = []
    for path in [*all_routes(), "/nowhere", f"{API}/nowhere"]:
        for caller in CALLERS:
            rule = RULES.get(("GET", path.removeprefix(API)), Rule(Needs.NO_WRONG_TOKEN))
            needs = Needs.NOTHING if rule.needs is Needs.NOTHING else Needs.NO_WRONG_TOKEN
            refusal = (404, "unknown_path") if path.endswith("/nowhere") else (405, "method_not_allowed")
            due = expected(Rule(needs, refusal), caller, mode)
            _, auth = await town.cell(Rule(needs), caller)
            for form in forms(path, town.ada):
                found = said(await town.site.client.request("PATCH", form, headers=auth))
                if found != due:
                    wrong.append(f"PATCH {form} by {caller}: {found}, not {due}")
    assert not wrong, "\n".join(wrong)
