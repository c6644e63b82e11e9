"""A feed of ten from a resident timeline costs at most 1.5 times the CPU of a bare ASGI responder with the same bytes.

The token is sent and checked and each request logged (to a file); rate limits are off. All sides run on the same
uvicorn settings and are asked in turns by the same client over 32 connections. A bare Litestar route with the same
bytes stands between: what of the cost is the framework's.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench import bare
from bench.inside import Inside, Person, texts
from bench.measuring import Cost, Plan, Table, cost_of, cpu_median, in_turns, micros, spread, wall_median
from bench.outside import Clients, Server, ask_once, get, rookery

FOLLOWEES = 100
ROOKERY, FRAMEWORK, BARE = "Rookery", "bare Litestar route", "bare ASGI"
TARGET = 1.5


def run(plan: Plan) -> list[Table]:
    requests = plan.pick(4_000, 1_000)
    reader = _set_up(plan.scratch)
    with ExitStack() as stack:
        ours = stack.enter_context(rookery(plan.scratch))
        ask = get(f"/api/v1/feed/{reader.text_id}?limit=10", reader.token)
        head, body = ask_once(ours.port, ask)
        assert len(msgspec.json.decode(body)) == 10
        path = plan.scratch / "answer.json"
        path.write_bytes(msgspec.json.encode(_answer(head, body)))
        servers = {
            BARE: stack.enter_context(Server(["-m", "bench.bare", bare.ASGI, str(path)], plan.scratch / "log")),
            ROOKERY: ours,
            FRAMEWORK: stack.enter_context(
                Server(["-m", "bench.bare", bare.LITESTAR, str(path)], plan.scratch / "log")
            ),
        }
        for server in servers.values():  # the very same bytes, but for the request's id and the date
            assert _shape(ask_once(server.port, ask)) == _shape((head, body))
        turns = {
            name: _turn(stack.enter_context(Clients([server.port])), server.pid, ask, requests)
            for name, server in servers.items()
        }
        found = in_turns(plan.pick(15, 5), turns)
        _check_log(plan.scratch / "log", reader)
    base = cpu_median(found[BARE])
    rows = [
        [
            name,
            micros(cpu_median(found[name]) / requests),
            f"{cpu_median(found[name]) / base:.2f}",
            spread([cost.cpu for cost in found[name]]),
            f"{requests / wall_median(found[name]):,.0f}",
        ]
        for name in (BARE, FRAMEWORK, ROOKERY)
    ]
    head_cells = ["server", "CPU per request", "ratio", "quartiles", "requests/s"]
    return [Table(f"Feed of ten, {len(body):,} bytes (target: at most {TARGET})", head_cells, rows)]


def _set_up(data: Path) -> Person:
    with Inside(data) as inside:
        authors = inside.people("author", FOLLOWEES)
        reader = inside.people("reader", 1)[0]
        inside.follow((reader, author) for author in authors)
        inside.tweets(authors * 4, texts(4 * FOLLOWEES))
    return reader


def _turn(clients: Clients, pid: int, ask: bytes, requests: int) -> Callable[[], Cost]:
    return lambda: cost_of(lambda: clients.run(ask for _ in range(requests)), pid)


def _answer(head: bytes, body: bytes) -> bare.Answer:
    lines = head.decode("latin-1").split("\r\n")[1:]
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines) if name != "date"]
    return bare.Answer(headers, body.decode())


def _shape(answer: tuple[bytes, bytes]) -> tuple[int, list[bytes], bytes]:
    head, body = answer
    return len(head), sorted(line.partition(b":")[0] for line in head.split(b"\r\n")), body


def _check_log(log: Path, reader: Person) -> None:
    line = msgspec.json.decode(log.read_bytes().splitlines()[-1])
    assert line["user"] == reader.record.name, "the token was not checked, or the request not logged"
