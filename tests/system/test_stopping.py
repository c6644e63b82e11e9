"""A server that is told to stop: it says so first, answers until others know, and loses nothing."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.serving import Server, running_server

DRAIN_SECONDS = 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(tmp_path, "--drain-seconds", str(DRAIN_SECONDS)) as server:
        yield server


def told_to_stop(server: Server, http: httpx.Client) -> httpx.Response:
    """What it says of itself as soon as it heard."""
    server.process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + 1
    while (answer := http.get("/readyz")).status_code == 200 and time.monotonic() < limit:
        pass
    return answer


def test_it_is_unready_and_answers_until_others_know(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/readyz").status_code == 200
        begun = time.monotonic()
        ready = told_to_stop(server, http)
        assert (ready.status_code, ready.json()["code"]) == (503, "draining")
        posted = http.post("/tweet", json={"user_name": "ada", "body": "while it drains"})
        assert posted.status_code == 201
        assert posted.headers["connection"] == "close", "so that nobody is cut off in the end"
        assert http.get("/status").json()["draining"]
        assert server.process.wait(20) == 0
    assert time.monotonic() - begun >= DRAIN_SECONDS
    server.start()
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/readyz").status_code == 200
        assert [tweet["body"] for tweet in http.get("/tweet/@ada").json()] == ["while it drains"]


def test_told_twice_it_stops_at_once(tmp_path: Path) -> None:
    with running_server(tmp_path, "--drain-seconds", "600") as server, httpx.Client(base_url=server.url) as http:
        assert told_to_stop(server, http).status_code == 503
        assert server.stop() == 0


def test_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    with running_server(tmp_path, "--drain-seconds", "600") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_well_also_when_stopped_as_soon_as_it_listens(number: signal.Signals, tmp_path: Path) -> None:
    program = f"""
import os
from rookery import cli
from rookery.cli import serving
serving._greet = lambda *_: os.kill(os.getpid(), {int(number)})
cli.main()
"""
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--data", str(tmp_path), "--drain-seconds", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def stopped_in_the_middle(patch: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """How one ends whose code is changed so, told to stop while somebody waits for the top list."""
    program = f"""
import asyncio
from contextlib import asynccontextmanager
from rookery import cli
from rookery.cli import server
from rookery.web import door
async def hang(*_):
    await asyncio.sleep(3600)
{patch}
cli.main()
"""
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--data", str(tmp_path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stderr
        said = process.stderr.readline()
        address = said.partition("http://")[2].split()[0]
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as connection:  # who asks, and goes on to wait
            connection.sendall(b"GET /top HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert httpx.get(f"http://{address}/livez").status_code == 200, "what came before it was read"
            process.terminate()
            out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, said + err)


NEVER_ANSWERED = """
server._ANSWER_SECONDS = 1
inner = door.Door._answer
async def hang_at_times(self, visit, *given):
    await (hang() if visit.scope["path"] == "/top" else inner(self, visit, *given))
door.Door._answer = hang_at_times
"""


def test_a_request_that_never_ends_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    done = stopped_in_the_middle(NEVER_ANSWERED, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_close_that_never_ends_is_given_up(tmp_path: Path) -> None:
    patch = """
server.STOP_SECONDS = 2
inner = server.open_server
@asynccontextmanager
async def never_closed(*given):
    async with inner(*given) as opened:
        try:
            yield opened
        finally:
            await hang()
server.open_server = never_closed
"""
    done = stopped_in_the_middle(patch, tmp_path)
    assert (done.returncode, "still not closed after 2 seconds" in done.stderr) == (1, True)


async def test_what_is_under_way_is_answered_and_nobody_else_is_let_in(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = b'{"user_name": "ada", "body": "in two parts"}'
        head = (
            f"POST /tweet HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        writer.write(head.encode() + b"\r\n\r\n" + body[:10])
        await writer.drain()
        async with httpx.AsyncClient() as http:  # by its answer the other was read too
            assert (await http.get(server.url + "/readyz")).status_code == 200
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while True:
                try:
                    _, other = await asyncio.open_connection("127.0.0.1", server.port)
                except ConnectionRefusedError:
                    break
                other.close()
                await asyncio.sleep(0.01)
        assert server.is_running()
        writer.write(body[10:])
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 201 ")
        writer.close()
        assert await asyncio.to_thread(server.process.wait, 20) == 0
