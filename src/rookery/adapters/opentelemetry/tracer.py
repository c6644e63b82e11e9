"""Spans sent to a collector (OTLP over HTTP) by a thread of OpenTelemetry's own, named as its conventions for HTTP say.

OpenTelemetry's own environment variables hold besides: a sampler, headers, limits.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

from rookery.ports.tracer import Ending

_CARRIED = (b"traceparent", b"tracestate")
_SEND_SECONDS = 2
"""How long sending may take, at the end too."""


class OpenTelemetryTracer:
    """Implements `ports.tracer.Tracer`. `collector` is `host:port`."""

    def __init__(self, collector: str, version: str) -> None:
        resource = Resource.create({SERVICE_NAME: "rookery", SERVICE_VERSION: version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"http://{collector}/v1/traces", timeout=_SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("rookery", version)

    @contextmanager
    def request(self, headers: Mapping[bytes, bytes]) -> Iterator[Ending]:
        carried = {name.decode(): headers[name].decode("latin-1") for name in _CARRIED if name in headers}
        with self._tracer.start_as_current_span("HTTP", context=extract(carried), kind=SpanKind.SERVER) as span:

            def end(method: str, route: str, status: int, request_id: str) -> None:
                span.update_name(f"{method} {route}")
                span.set_attributes(
                    {
                        "http.request.method": method,
                        "http.route": route,
                        "http.response.status_code": status,
                        "rookery.request_id": request_id,
                    }
                )
                if status >= 500:
                    span.set_status(Status(StatusCode.ERROR))

            yield end

    def call(self, part: str, name: str) -> AbstractContextManager[object]:
        return self._tracer.start_as_current_span(f"{part}.{name}", kind=SpanKind.CLIENT)

    def close(self) -> None:
        """Send what waits, if it can be sent."""
        self._provider.shutdown()
