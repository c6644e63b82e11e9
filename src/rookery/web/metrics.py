"""The numbers of all parts, as Prometheus reads them: on a listener of its own, in a thread of its own.

Who may read tweets need not know how the server is, so it is not a route of the application.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rookery.domain.errors import Unavailable
from rookery.domain.tallies import Metered, Reading, Spread
from rookery.domain.threads import start
from rookery.web.listener import BoundedServer

PREFIX = "rookery_"
_COUNTED = "_total"


class _Parts(Collector):
    """Asks all parts for their numbers."""

    def __init__(self, parts: Sequence[Metered]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for part in self._parts:
            for reading in part.readings():
                _add(families, reading)
        return families.values()


def _add(families: dict[str, Metric], reading: Reading) -> None:
    name = PREFIX + reading.name
    labels = dict(reading.labels)
    family = families.get(name)
    value = reading.value
    if isinstance(value, Spread):
        family = family or HistogramMetricFamily(name, reading.help)
        buckets = [(_bound(bound), many) for bound, many in value.cumulative()]
        for bound, many in buckets:
            family.add_sample(f"{name}_bucket", labels | {"le": bound}, many)
        family.add_sample(f"{name}_count", labels, buckets[-1][1])
        family.add_sample(f"{name}_sum", labels, value.total)
    elif name.endswith(_COUNTED):
        family = family or CounterMetricFamily(name, reading.help)
        family.add_sample(name, labels, value)
    else:
        family = family or GaugeMetricFamily(name, reading.help)
        family.add_sample(name, labels, value)
    families[name] = family


def _bound(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def registry_of(parts: Sequence[Metered]) -> CollectorRegistry:
    """Everything there is to show: of the parts, and of the process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Parts(parts))
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry


@contextmanager
def shown_at(host: str, port: int, parts: Sequence[Metered]) -> Iterator[int]:
    """Show them at `http://host:port/metrics` for as long as this lasts; the port, which 0 leaves to the system.

    Raises:
        Unavailable: `address_unavailable`.
    """
    try:
        server = BoundedServer(host, port, make_wsgi_app(registry_of(parts)))
    except (OSError, OverflowError) as error:  # the port after the last is none
        reason = (getattr(error, "strerror", None) or "it can't be used").lower()
        raise Unavailable("address_unavailable", f"Can't show metrics on {host}:{port}: {reason}.") from error
    thread = threading.Thread(target=server.serve, name="metrics", daemon=True)
    start(thread)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
