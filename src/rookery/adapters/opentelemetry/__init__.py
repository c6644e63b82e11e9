"""Traces by OpenTelemetry, of the extra `traces`."""

from rookery.adapters.opentelemetry.tracer import OpenTelemetryTracer

__all__ = ["OpenTelemetryTracer"]
