"""An OTLP backend on loopback that decodes the real protobuf, over HTTP and gRPC."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service_grpc
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests.loopback import serving

MEASURE_THEMSELVES = {"fastapi"}
"""Scopes of others, whose histograms and gauges are not looked at."""
LOKI_LOGS = "/otlp/v1/logs"
"""Where Loki takes log records."""
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


@dataclass(frozen=True)
class Series:
    """What tells one series from another at a backend."""

    resource: frozenset[tuple[str, str]]
    scope: tuple[str, str, frozenset[tuple[str, str]]]
    name: str
    unit: str
    attributes: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Point:
    start: int
    time: int
    value: int
    is_delta: bool


@dataclass(frozen=True)
class Record:
    """A log record. Times are ns since the epoch, 0 if not told; ids are hex, empty if not told."""

    resource: dict[str, str]
    attributes: dict[str, str]
    body: str
    time: int
    observed: int
    severity: str
    severity_number: int
    trace_id: str
    span_id: str


@dataclass
class Received:
    """What has arrived."""

    endpoint: str
    series: dict[Series, list[Point]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    exports: int = 0
    """Of metrics."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    delay: threading.Event | None = None
    """If set, exports are answered only once the event is."""
    asked: threading.Event = field(default_factory=threading.Event)
    """Set by the first export, before it is answered."""

    def take(self, request: Any) -> None:
        self.asked.set()
        if self.delay is not None:
            self.delay.wait(30)
        with self.lock:
            self.exports += 1
            for of_resource in request.resource_metrics:
                resource = words(of_resource.resource.attributes)
                for of_scope in of_resource.scope_metrics:
                    scope = of_scope.scope
                    if scope.name in MEASURE_THEMSELVES:
                        continue
                    scope_key = (scope.name, scope.version, words(scope.attributes))
                    for metric in of_scope.metrics:
                        assert metric.WhichOneof("data") == "sum"
                        assert metric.sum.is_monotonic
                        for point in metric.sum.data_points:
                            series = Series(
                                resource,
                                scope_key,
                                metric.name,
                                metric.unit,
                                words(point.attributes),
                            )
                            self.series.setdefault(series, []).append(
                                Point(
                                    point.start_time_unix_nano,
                                    point.time_unix_nano,
                                    point.as_int,
                                    metric.sum.aggregation_temporality == DELTA,
                                )
                            )

    def take_logs(self, request: Any) -> None:
        with self.lock:
            for of_resource in request.resource_logs:
                resource = dict(words(of_resource.resource.attributes))
                for of_scope in of_resource.scope_logs:
                    for record in of_scope.log_records:
                        self.records.append(
                            Record(
                                resource,
                                dict(words(record.attributes)),
                                record.body.string_value,
                                record.time_unix_nano,
                                record.observed_time_unix_nano,
                                record.severity_text,
                                record.severity_number,
                                record.trace_id.hex(),
                                record.span_id.hex(),
                            )
                        )

    def totals(self) -> dict[str, dict[frozenset[tuple[str, str]], int]]:
        """By metric, by attributes: added up over all processes."""
        found: dict[str, Counter[frozenset[tuple[str, str]]]] = {}
        with self.lock:
            for series, points in self.series.items():
                by_name = found.setdefault(series.name, Counter())
                if points[-1].is_delta:
                    by_name[series.attributes] += sum(point.value for point in points)
                else:
                    by_name[series.attributes] += points[-1].value
        return {name: dict(counts) for name, counts in found.items()}

    def total(self, name: str) -> int:
        return sum(self.totals().get(name, {}).values())

    def problems(self) -> list[str]:
        """Points that a backend would misread: a birth above 0, a fall, a negative."""
        found = []
        with self.lock:
            for series, points in self.series.items():
                values = [point.value for point in points]
                if min(values) < 0:
                    found.append(f"negative: {series.name} {values}")
                if points[0].is_delta:
                    continue
                if values[0] != 0:
                    found.append(f"born above 0: {series.name} {values}")
                if values != sorted(values):
                    found.append(f"fell: {series.name} {values}")
        return found


def words(attributes: Any) -> frozenset[tuple[str, str]]:
    return frozenset((pair.key, _word(pair.value)) for pair in attributes)


def _word(value: Any) -> str:
    kind = value.WhichOneof("value")
    return str(getattr(value, kind)) if kind else ""


@contextmanager
def receiving(protocol: str = "http/protobuf", port: int = 0) -> Iterator[Received]:
    """A server on loopback; over HTTP on this port, or on a free one."""
    with _http(port) if protocol == "http/protobuf" else _grpc() as received:
        yield received


@contextmanager
def _http(port: int) -> Iterator[Received]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path in {"/v1/metrics", "/v1/traces", "/v1/logs", LOKI_LOGS}
            if self.path == "/v1/metrics":
                received.take(service.ExportMetricsServiceRequest.FromString(body))
            elif self.path in {"/v1/logs", LOKI_LOGS}:
                received.take_logs(ExportLogsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    received = Received("")
    with serving(Handler, port) as received.endpoint:
        yield received


@contextmanager
def _grpc() -> Iterator[Received]:
    class Servicer(service_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # as gRPC names it
            received.take(request)
            return service.ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(4))
    service_grpc.add_MetricsServiceServicer_to_server(Servicer(), server)
    received = Received(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()
