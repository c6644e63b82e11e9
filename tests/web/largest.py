"""The largest inputs that the limits of a request admit, with the worst of contents, made from the routes."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import rookery.web
from rookery.web.app import openapi_document
from rookery.web.connections import MAX_HEAD_BYTES, MAX_HEADERS
from rookery.web.decoding import MAX_BODY_BYTES, MAX_QUERY_BYTES
from tests.web.holding import Ask
from tests.web.routes import all_routes, filled
from tests.web.site import API, NOBODY

TEXTS = {
    "commas": b",",
    "commas and blanks": b"a, ",
    "semicolons": b";",
    "weights": b"a/b;q=0.1,",
    "ampersands": b"a=1&",
    "signs of equality": b"=",
    "opening brackets": b"[",
    "objects": b'{"a":',
    "digits": b"9",
    "colons": b":",
    "dots": b".",
    "slashes": b"/",
    "percent": b"%",
    "percent encoding": b"%41",
    "quotes": b'"',
    "backslashes": b"\\",
    "addresses": b"10.0.0.1,",
    "marks": "e\u0301\u0315\u0300".encode(),
    "joined emoji": "👩\u200d".encode(),
    "not UTF-8": b"\xff",
}
"""What a value is filled with, by name."""
STARTS = {
    b"authorization": [b"Bearer ", b"Bearer rk_", b"Basic "],
    b"origin": [b"http://", b"http://[", b"http://a:"],
    b"host": [b"localhost:", b"["],
    b"content-type": [b"application/json;", b"application/json;charset="],
    b"content-length": [b"1"],
    b"connection": [b"close,"],
}
"""What a reader has to see before it looks at more."""
FRAMEWORK = frozenset(
    {
        *(b"connection", b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"http2-settings", b"te"),
        *(b"cookie", b"user-agent", b"accept-encoding", b"range", b"if-none-match", b"x-forwarded-host", b"forwarded"),
        *(b"trailer", b"filler"),
    }
)
"""Headers that the code below ours reads or might begin to read, and one that nobody does."""
PROXIED = frozenset({b"x-forwarded-for", b"x-request-id"})
"""Headers that are read of trusted proxies only."""
EXAMPLES: dict[str, Any] = {
    "name": "guarded",
    "password": "correct horse",
    "new_password": "correct horses",
    "user_name": "ada",
    "user_id": "@ada",
    "followee_id": "@bob",
    "tweet_id": NOBODY,
    "retweet": NOBODY,
    "tweet": "x",
    "body": "x",
    "title": "x",
    "display_name": "x",
    "count_retweet": 0,
    "limit": "100",
}
STRUCTURES = {
    "nested arrays": b"[",
    "nested objects": b'{"a":',
    "many objects": b"{},",
    "many names": b"".join(b'"k%d":1,' % number for number in range(9_000)),
    "blanks": b" ",
    "ampersands": b"&",
    "pairs": b"".join(b"k%d=1&" % number for number in range(9_000)),
    "percent": b"a=%&",
    "not UTF-8": b"\xff",
    "zeros": b"\0",
}
"""Bodies that are no value of one field."""


def headers_read() -> frozenset[bytes]:
    """Every header that our code reads, by the source: `headers.get(…)`, `headers[…]` and `… in headers`."""
    found: set[bytes] = set()
    for path in Path(rookery.web.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name: object = None
            match node:
                case ast.Call(func=ast.Attribute(attr="get", value=owner), args=[ast.Constant(value=name), *_]):
                    pass
                case ast.Subscript(value=owner, slice=ast.Constant(value=name), ctx=ast.Load()):
                    pass
                case ast.Compare(left=ast.Constant(value=name), ops=[ast.In() | ast.NotIn()], comparators=[owner]):
                    pass
                case _:
                    continue
            if ast.unparse(owner).endswith("headers") and isinstance(name, str | bytes):
                found.add((name.encode() if isinstance(name, str) else name).lower())
    documented = {
        parameter["name"].lower().encode()
        for item in openapi_document()["paths"].values()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "header"
    }
    return frozenset(found | documented)


def operations(*, everywhere: bool) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each endpoint; aliases of the API are left out, unless `everywhere`."""
    described = openapi_document()["paths"]
    found = []
    for path, methods in all_routes().items():
        if not everywhere and not path.startswith(API) and API + path in all_routes():
            continue
        described_at = path if path in described else API + path
        for method in sorted(methods):
            found.append((method, path, described.get(described_at, {}).get(method.lower(), {})))
            if method == "GET" and everywhere:
                found.append(("HEAD", path, found[-1][2]))
    return found


def fields_of(operation: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The fields of an operation's body, and those that it needs."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return [], []
    name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = openapi_document()["components"]["schemas"][name]
    return list(schema["properties"]), list(schema.get("required", ()))


def queries_of(operation: dict[str, Any]) -> list[str]:
    return [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]


def with_largest_header(
    method: str, path: str, operation: dict[str, Any], auth: dict[bytes, bytes]
) -> Iterator[tuple[bytes, Ask]]:
    """Requests that are right but for one header, which fills the head; and with so many headers as there may be."""
    target, headers, body = _usual(method, path, operation, auth)
    for name in sorted(headers_read() | FRAMEWORK):
        others = {key: value for key, value in headers.items() if key != name}
        sent_body = b"" if name in (b"content-length", b"transfer-encoding") else body
        fixed = len(target) + sum(len(key) + len(value) + 4 for key, value in others.items())
        fixed += (0 if name == b"host" else len("Host127.0.0.1") + 4) + (len("Content-Length99999") + 4 if body else 0)
        room = MAX_HEAD_BYTES - fixed - len(name) - 4
        for start in (b"", *STARTS.get(name, ())):
            for text, content in TEXTS.items():
                value = _filled_with(content, room, start).strip()
                sent = {**others, (b"Host" if name == b"host" else name): value}
                told = f"{method} {path}, {name.decode()}: {start.decode()}{text}"
                yield name, Ask(told, method, target, sent, body=sent_body)
        each = MAX_HEAD_BYTES // MAX_HEADERS - 60
        several = tuple((name, TEXTS["commas and blanks"] * (each // 3)) for _ in range(MAX_HEADERS - len(others) - 2))
        yield name, Ask(f"{method} {path}, {name.decode()} many times", method, target, others, several, sent_body)
    named = tuple((b"x-%d" % number, b",;" * 100) for number in range(MAX_HEADERS - len(headers) - 2))
    yield b"filler", Ask(f"{method} {path}, {MAX_HEADERS} headers", method, target, headers, named, body)


def with_largest_target(method: str, path: str, operation: dict[str, Any], auth: dict[bytes, bytes]) -> Iterator[Ask]:
    """Requests whose query or path is as long as may be: just within the query's limit, and as the head's admits."""
    _, headers, body = _usual(method, path, operation, auth)
    most = MAX_HEAD_BYTES - 1_000
    for text, content in TEXTS.items():
        safe = b"".join(bytes([byte]) if 0x20 < byte < 0x7F and byte != 0x23 else b"%%%02X" % byte for byte in content)
        for size in (MAX_QUERY_BYTES, most):
            for name in (*queries_of(operation), ""):
                query = _filled_with(safe, size, f"{name}=".encode() if name else b"")
                target = filled(path).encode() + b"?" + query
                told = f"{method} {path}, query {name or 'alone'} of {size}: {text}"
                yield Ask(told, method, target, headers, body=body)
        if "{" in path:
            for start in (b"", b"@"):
                target = path.partition("{")[0].encode() + _filled_with(safe.replace(b"?", b"%3F"), most, start)
                yield Ask(f"{method} {path}, path: {text}", method, target, headers, body=body)


def with_largest_body(method: str, path: str, operation: dict[str, Any], auth: dict[bytes, bytes]) -> Iterator[Ask]:
    """Requests whose body is as large as may be, or is a text just too long or just right for its field.

    Few of them hold a password that would be hashed: that takes long, and is done beside the loop.
    """
    fields, required = fields_of(operation)
    if not fields:
        return
    target = filled(path).encode()
    names = ("json", "x-www-form-urlencoded")
    kinds = {kind: {**auth, b"Content-Type": f"application/{kind}".encode()} for kind in names}
    for text, content in STRUCTURES.items():
        for kind, headers in kinds.items():
            body = _filled_with(content, MAX_BODY_BYTES, b"{" if text == "many names" and kind == "json" else b"")
            yield Ask(f"{method} {path}, {kind} of {text}", method, target, headers, body=body)
    usual = {name: EXAMPLES[name] for name in required}
    texts = TEXTS if not path.endswith("/token") else {text: TEXTS[text] for text in ("marks", "joined emoji")}
    for name in fields:
        for text, content in texts.items():
            for points in (8_000, MAX_BODY_BYTES) if "password" in fields else (280, 2_000, 8_000, MAX_BODY_BYTES):
                value = (content.decode(errors="replace") * points)[:points]
                sent = json.dumps({**usual, name: value}, ensure_ascii=False).encode()
                if len(sent) <= MAX_BODY_BYTES:
                    told = f"{method} {path}, JSON {name} of {points}: {text}"
                    yield Ask(told, method, target, kinds["json"], body=sent)
            start = "".join(f"{key}={value}&" for key, value in usual.items() if key != name) + f"{name}="
            safe = quote_from_bytes(content).encode()
            body = _filled_with(safe, MAX_BODY_BYTES, start.encode())
            yield Ask(
                f"{method} {path}, form {name}: {text}", method, target, kinds["x-www-form-urlencoded"], body=body
            )
        many = b'{"%b":%b}' % (name.encode(), b"9" * (MAX_BODY_BYTES - 100))
        yield Ask(f"{method} {path}, JSON {name}: a number", method, target, kinds["json"], body=many)


def _usual(
    method: str, path: str, operation: dict[str, Any], auth: dict[bytes, bytes]
) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """A request that its handler takes: target, headers and body."""
    required = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query" and one["required"]]
    if method in ("GET", "HEAD") and not required and "user_id" in queries_of(operation):
        required = ["user_id"]
    target = filled(path) + ("?" + "&".join(f"{name}={EXAMPLES[name]}" for name in required) if required else "")
    fields, required_fields = fields_of(operation)
    needed = required_fields or fields[:1]
    if not needed or method == "DELETE" or path.endswith("/token"):  # the last would hash a password each time
        return target.encode(), dict(auth), b""
    body = json.dumps({name: EXAMPLES[name] for name in needed}).encode()
    return target.encode(), {**auth, b"content-type": b"application/json"}, body


def _filled_with(content: bytes, size: int, start: bytes = b"") -> bytes:
    return (start + content * (size // len(content) + 1))[:size]
