"""The OpenAPI document and the page that shows it."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.web.routes import api_routes
from tests.web.site import API, Json, Site, found, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

PUBLISHED = Path(__file__).parents[2] / "docs" / "openapi.json"
FORM = "application/x-www-form-urlencoded"
WITHOUT_TOKEN = {"registerUser", "signIn"}
"""The writes that nobody needs a token for: they are how one comes by it."""


@pytest.fixture
async def document(shared: Site) -> Json:
    return found(await shared.get("/openapi.json"))


def operations(document: Json) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def resolved(document: Json, schema: Json) -> Json:
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
    return schema


async def test_the_document_is_valid_openapi_3_1(document: Json) -> None:
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_in_the_document_and_nothing_else(document: Json) -> None:
    described = {path: {method.upper() for method in item} for path, item in document["paths"].items()}
    assert described == api_routes()


async def test_operations_are_told_apart(document: Json) -> None:
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(ids) == len(set(ids))
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["tags"], name


async def test_bodies_may_be_json_or_forms(document: Json) -> None:
    found_bodies = 0
    for name, operation in operations(document).items():
        body = operation.get("requestBody")
        if body is None:
            continue
        found_bodies += 1
        assert body["content"].keys() == {"application/json", FORM}, name
        assert body["content"]["application/json"]["schema"] == body["content"][FORM]["schema"], name
    assert found_bodies == 10


async def test_bodies_take_no_unknown_fields(document: Json) -> None:
    for name, operation in operations(document).items():
        if "requestBody" in operation:
            for part in _objects(document, operation["requestBody"]["content"]["application/json"]["schema"]):
                assert part["additionalProperties"] is False, name


def _objects(document: Json, schema: Json) -> list[Json]:
    schema = resolved(document, schema)
    parts = [*schema.get("oneOf", []), *schema.get("anyOf", [])]
    if schema.get("type") == "object":
        return [schema]
    return [found for part in parts if part.get("type") != "null" for found in _objects(document, part)]


async def test_a_body_may_be_missing_only_where_the_query_can_say_it(document: Json) -> None:
    required = {
        operation["operationId"]: operation["requestBody"].get("required", False)
        for operation in operations(document).values()
        if "requestBody" in operation
    }
    assert {name for name, needed in required.items() if not needed} == {
        "follow",
        "unfollow",
        "deleteTweet",
        "deleteUser",
    }


async def test_every_error_is_documented_as_a_problem(document: Json) -> None:
    problem = document["components"]["schemas"]["Problem"]
    assert set(problem["required"]) == {"type", "title", "status", "detail", "code"}
    for name, operation in operations(document).items():
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "401", "403", "429", "503"} <= errors.keys(), name
        if "requestBody" in operation:
            assert {"408", "413", "415", "422"} <= errors.keys(), name
        for answer in errors.values():
            assert answer["content"].keys() == {"application/problem+json"}, name
            schema = answer["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, name
            assert answer["description"], name


async def test_each_operation_has_one_answer_to_what_it_takes(document: Json) -> None:
    for name, operation in operations(document).items():
        good = [status for status in operation["responses"] if status < "400"]
        method = name.partition(" ")[0]
        made = {"GET": ["200"], "POST": ["201"], "DELETE": ["204"]}[method]
        other = {"follow": ["204"], "changePassword": ["204"], "retweet": ["200", "201"]}
        assert good == other.get(operation["operationId"], made), name
        if good != ["204"]:
            assert operation["responses"][good[0]]["content"].keys() == {"application/json"}, name
        else:
            assert not operation["responses"]["204"].get("content"), name


async def test_headers_of_answers_are_documented(document: Json) -> None:
    for name, operation in operations(document).items():
        for status, answer in operation["responses"].items():
            headers = answer["headers"].keys()
            assert ("X-Request-Id" in headers) == (status != "408"), f"{name}: what is cut at the connection has no id"
            assert ("Retry-After" in headers) == (status in ("429", "503")), name
            assert ("WWW-Authenticate" in headers) == (status == "401"), name
        paged = any(parameter["name"] == "cursor" for parameter in operation.get("parameters", []))
        if paged:
            assert "Link" in operation["responses"]["200"]["headers"], name


async def test_every_write_but_those_that_give_a_token_takes_one(document: Json) -> None:
    scheme = document["components"]["securitySchemes"]
    assert {name: (each["type"], each["scheme"]) for name, each in scheme.items()} == {"bearer": ("http", "bearer")}
    for name, operation in operations(document).items():
        if name.startswith("GET") or operation["operationId"] in WITHOUT_TOKEN:
            assert {"bearer": []} not in operation.get("security", []) or {} in operation["security"], name
        else:
            assert operation["security"] == [{"bearer": []}], name


async def test_every_post_takes_an_idempotency_key(document: Json) -> None:
    for name, operation in operations(document).items():
        keys = [each for each in operation.get("parameters", []) if each["name"] == "Idempotency-Key"]
        assert [each["in"] for each in keys] == (["header"] if name.startswith("POST") else []), name
        assert not any(each.get("required") for each in keys), name


async def test_lists_are_bare_arrays_with_limit_and_cursor(document: Json) -> None:
    for name in ("follow/{follower_id}", "followers/{user_id}", "tweet/{user_id}", "feed/{user_id}", "chain"):
        operation = document["paths"][f"{API}/{name}"]["get"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert resolved(document, schema)["type"] == "array", name
        parameters = {each["name"]: each for each in operation["parameters"]}
        assert {"limit", "cursor"} <= parameters.keys(), name
        limit = parameters["limit"]["schema"]
        assert (limit["minimum"], limit["maximum"], limit.get("default")) == (1, 100, 10), name


async def test_the_document_says_nothing_of_the_inside(document: Json) -> None:
    text = json.dumps(document)
    assert not re.search(rf"litestar|msgspec|Struct\b|{re.escape(str(Path.cwd()))}|\.py\b", text)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="docs/openapi.json is not written yet: make openapi")
async def test_the_published_document_is_the_one_that_is_served(shared: Site) -> None:
    served = await shared.get("/openapi.json")
    assert PUBLISHED.read_text() == served.text + ("" if served.text.endswith("\n") else "\n")


# --- Swagger UI ------------------------------------------------------------------------------------------------------


async def test_the_page_loads_everything_from_here(shared: Site) -> None:
    for path in (f"{API}/", API):
        page = await shared.client.get(path)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
        assert {url.rpartition(".")[2] for url in loaded} >= {"js", "css", "png"}
        for url in loaded:
            assert url.startswith(f"{API}/assets/"), url
        assert "//" not in page.text


@pytest.mark.parametrize(
    ("name", "media_type", "begins"),
    [
        ("swagger-ui.css", "text/css", b""),
        ("swagger-ui-bundle.js", "text/javascript", b""),
        ("favicon-32x32.png", "image/png", b"\x89PNG"),
        ("start.js", "text/javascript", b""),
    ],
)
async def test_its_assets_are_served_with_their_types(shared: Site, name: str, media_type: str, begins: bytes) -> None:
    response = await shared.get(f"/assets/{name}")
    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert "max-age" in response.headers["cache-control"]
    assert response.content.startswith(begins)
    assert response.content


async def test_its_assets_ask_no_foreign_host(shared: Site) -> None:
    style = (await shared.get("/assets/swagger-ui.css")).text
    assert not re.search(r"url\(\s*['\"]?(?!['\"]?data:)|@import", style)
    start = (await shared.get("/assets/start.js")).text
    assert f'"{API}/openapi.json"' in start
    assert "//" not in start
    assert re.search(r"validatorUrl:\s*(null|\"none\")", start), "the stock page shows the document to a foreign host"


async def test_its_browser_is_told_to_ask_no_foreign_host(shared: Site) -> None:
    policy = (await shared.get("/")).headers["content-security-policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for name, sources in rules.items():
        if name.endswith("-src"):
            assert set(sources.split()) <= {"'none'", "'self'", "data:", "'unsafe-inline'"}, name
    assert rules["script-src"] == "'self'"


async def test_no_other_page_comes_with_the_framework(shared: Site) -> None:
    for path in ("/schema", "/schema/swagger", "/schema/redoc", "/schema/elements", "/schema/openapi.yaml", "/docs"):
        response: httpx.Response = await shared.client.get(path)
        refused(response, 404, "unknown_path")


async def test_swagger_ui_can_draw_openapi_3_1(shared: Site) -> None:
    bundle: Any = (await shared.get("/assets/swagger-ui-bundle.js")).text
    assert len(bundle) > 500_000
    assert "openapi 3.1" in bundle.lower() or "isOAS31" in bundle
