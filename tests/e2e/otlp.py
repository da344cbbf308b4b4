"""Points of a service that no SDK of today would send, but one of yesterday or a broken one may."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_personalization import conventions

OPERANDS = dict.fromkeys(counter for both in conventions.RATES.values() for counter in both)
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def attributes(of: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in of.items()]


def totals(
    counts: Mapping[str, int],
    pair: tuple[str, str],
    *,
    start: float,
    at: float,
    resource: Mapping[str, str],
    scope: Mapping[str, str] | None = None,
    version: str = "",
) -> ExportMetricsServiceRequest:
    """Totals of a process, of one namespace and surface: the counters that views are made of.

    Args:
        counts: by the field of the counter; 0 where there is none.
        pair: namespace and surface.
        start: of the series, in s.
        at: time of the points, in s.
        resource: its attributes.
        scope: its attributes.
        version: of the library.
    """
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(attributes(resource))
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = conventions.SCOPE_NAME
    of_scope.scope.version = version
    of_scope.scope.attributes.extend(attributes(scope or {}))
    for counter in OPERANDS:
        metric = of_scope.metrics.add(name=counter.name, unit=counter.unit)
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = CUMULATIVE
        metric.sum.data_points.add(
            attributes=attributes(dict(zip(counter.attributes, pair, strict=True))),
            start_time_unix_nano=int(start * 1e9),
            time_unix_nano=int(at * 1e9),
            as_int=counts.get(counter.field, 0),
        )
    return request


def add_gauge(request: ExportMetricsServiceRequest, name: str, value: int, at: float) -> None:
    """A gauge of the same process, which is none of ours."""
    metric = request.resource_metrics[0].scope_metrics[0].metrics.add(name=name)
    metric.gauge.data_points.add(time_unix_nano=int(at * 1e9), as_int=value)


def send(endpoint: str, request: ExportMetricsServiceRequest) -> int:
    """Send it over HTTP, and return the status of the answer."""
    return httpx.post(
        f"{endpoint}/v1/metrics",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
        trust_env=False,
        timeout=10,
    ).status_code
