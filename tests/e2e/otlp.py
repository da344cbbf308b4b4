"""Points of a service that no SDK of today would send, but one of yesterday or a broken one may."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

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
    """Totals of a process, of one namespace and surface, by name of the counter. Times in s."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(attributes(resource))
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = "otel_personalization"
    of_scope.scope.version = version
    of_scope.scope.attributes.extend(attributes(scope or {}))
    for name, value in counts.items():
        metric = of_scope.metrics.add(name=name, unit="{item}")
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = CUMULATIVE
        metric.sum.data_points.add(
            attributes=attributes({"recsys.namespace": pair[0], "surface": pair[1]}),
            start_time_unix_nano=int(start * 1e9),
            time_unix_nano=int(at * 1e9),
            as_int=value,
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
