"""A server that is told to stop: it says so first, answers until others know, and loses nothing."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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
