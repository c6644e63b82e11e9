"""Parts of the machine that stand still: a disk that does not sync, and a reader of the log that does not read."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.servers import do_without
from tests.serving import Server
from tools.servers.installing import Missing, require

_SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void hang(void) { while (access(getenv("TEST_HANG"), F_OK) == 0) usleep(10000); }
int fsync(int file) { hang(); return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(file); }
int fdatasync(int file) { hang(); return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(file); }
"""
WRITERS = 2_200
READ_SECONDS = 3.0
REFUSED_MILLIS = 8_000.0
"""The five seconds that a write has, and what a busy machine adds."""
AT_ONCE_MILLIS = 1_000.0
LISTENS_SECONDS = 60.0


def _waited(server: Server) -> list[float]:
    """Milliseconds of each refused write, in the order of their answers."""
    lines = [json.loads(line) for line in server.out().splitlines()]
    return [line["ms"] for line in lines if line.get("method") == "POST" and line.get("status") == 503]


async def test_behind_a_stuck_sync_writes_are_refused_in_time_and_reads_go_on(tmp_path: Path) -> None:
    try:
        compiler = require("gcc", "gcc")
    except Missing as missing:
        do_without(missing)
    (tmp_path / "shim.c").write_text(_SHIM)
    shim, stuck = tmp_path / "shim.so", tmp_path / "stuck"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    server = Server(tmp_path / "data", env={"LD_PRELOAD": str(shim), "TEST_HANG": str(stuck)}, measured=False)
    server.start()
    limits = httpx.Limits(max_connections=WRITERS + 100, max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as http:
            assert (await http.post("/tweet", json={"user_name": "ada", "body": "first"})).status_code == 201
            stuck.touch()

            async def post(number: int) -> int:
                sent = {"user_name": "ada", "body": f"stuck {number}"}
                return (await http.post("/tweet", json=sent)).status_code

            begun = time.monotonic()
            posting = [asyncio.create_task(post(number)) for number in range(WRITERS)]
            reads = []
            while time.monotonic() - begun < READ_SECONDS:
                reads.append((await http.get("/tweet/@ada")).status_code)
            answers = await asyncio.gather(*posting)
            assert set(answers) == {503}
            assert set(reads) == {200}
            waited = _waited(server)
            assert len(waited) == WRITERS
            assert max(waited) < REFUSED_MILLIS, "by the server's own measure: a busy client is slow itself"
            assert {await post(number) for number in range(5)} == {503}
            assert max(_waited(server)[WRITERS:]) < AT_ONCE_MILLIS
            assert (await http.get("/readyz")).status_code == 503
            stuck.unlink()
            async with asyncio.timeout(30):
                while (await http.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.05)
            assert (await http.post("/tweet", json={"user_name": "ada", "body": "last"})).status_code == 201
            async with asyncio.timeout(30):
                while (await http.get("/tweet/@ada")).json()[0]["body"] != "last":
                    await asyncio.sleep(0.05)
    finally:
        stuck.unlink(missing_ok=True)
        server.kill()


def test_a_reader_of_stdout_that_stops_holds_up_nobody(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rookery", "serve", "--port", "0", "--data", str(tmp_path / "data")]
    command += ["--auth", "open", "--rate-limit", "off", "--log-format", "json"]
    said = tmp_path / "err"
    with (
        said.open("wb") as err,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, env=os.environ | {"ROOKERY_CONFIG": os.devnull}
        ) as process,
    ):
        try:
            limit = time.monotonic() + LISTENS_SECONDS
            while "listens on " not in said.read_text():
                assert time.monotonic() < limit
                time.sleep(0.01)
            url = said.read_text().partition("listens on ")[2].split()[0]
            with httpx.Client(base_url=url, timeout=10) as http:
                assert {http.get("/livez").status_code for _ in range(1_000)} == {200}
            process.terminate()
            assert process.stdout
            lines = process.stdout.read().splitlines()  # all of them, in order, now that somebody reads
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert sum(b'"route"' in line for line in lines) == 1_000
