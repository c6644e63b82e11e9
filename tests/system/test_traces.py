"""Spans as a collector gets them."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.serving import Server, running_server
from tests.system.commands import rookery
from tools.servers.process import free_port

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
OFTEN = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


class Collector:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource in request.resource_spans:
            self.services |= {
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            }
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def until(self, name: str) -> Span:
        deadline = time.monotonic() + 20
        while True:
            found = [span for span in self.spans if span.name == name]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.02)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@contextmanager
def traced(folder: Path, collector: str, *flags: str) -> Iterator[Server]:
    with running_server(folder, "--traces-server", collector, *flags, env=OFTEN) as server:
        yield server


def attributes(span: Span) -> dict[str, object]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_request_is_a_span_with_its_calls_inside(collector: Collector, tmp_path: Path) -> None:
    with traced(tmp_path, collector.address, "--trusted-proxies", "127.0.0.1") as server:
        answer = httpx.post(f"{server.url}/tweet", json={"user_name": "ada", "body": "hello"}, headers=TRACEPARENT)
        assert answer.status_code == 201
        span = collector.until("POST /tweet")
        assert collector.services == {"rookery"}
        assert span.kind == Span.SPAN_KIND_SERVER
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert attributes(span) == {
            "http.request.method": "POST",
            "http.route": "/tweet",
            "http.response.status_code": 201,
            "rookery.request_id": answer.headers["x-request-id"],
        }
        call = collector.until("store.add_tweet")
        assert (call.trace_id, call.parent_span_id) == (span.trace_id, span.span_id)
        assert call.kind == Span.SPAN_KIND_CLIENT


def test_who_is_not_trusted_gives_no_parent(collector: Collector, tmp_path: Path) -> None:
    with traced(tmp_path, collector.address) as server:
        httpx.get(f"{server.url}/top", headers=TRACEPARENT)
        span = collector.until("GET /top")
    assert span.trace_id.hex() != TRACE
    assert span.parent_span_id == b""


def test_what_waits_is_sent_at_the_end(collector: Collector, tmp_path: Path) -> None:
    with running_server(
        tmp_path, "--traces-server", collector.address, env={"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    ) as server:
        httpx.get(f"{server.url}/top")
        assert collector.spans == []
    assert collector.until("GET /top").name


def test_a_collector_that_is_away_holds_up_nobody(tmp_path: Path) -> None:
    with traced(tmp_path, f"127.0.0.1:{free_port()}") as server:
        for _ in range(50):
            assert httpx.get(f"{server.url}/top").status_code == 200


def test_missing_packages_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "opentelemetry"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        done = rookery(
            "serve", "--port", "0", "--data", str(tmp_path / "data"), "--traces-server", "127.0.0.1:4318", status=2
        )
    assert done.stderr == "rookery: traces.server: its packages are missing: install rookery[traces]\n"
