"""An OTLP backend of the demo's own, on a free port of loopback, in place of a Collector."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

Pair = tuple[str, str]


class Backend:
    """What has arrived. Cumulative sums: the last point of a series is its total."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._totals: dict[tuple[bytes, str, bytes], tuple[Pair, int]] = {}

    def take(self, request: ExportMetricsServiceRequest) -> None:
        """Take in an export."""
        for of_resource in request.resource_metrics:
            resource = of_resource.resource.SerializeToString(deterministic=True)
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    for point in metric.sum.data_points:
                        labels = {pair.key: pair.value.string_value for pair in point.attributes}
                        pair = (labels.get("recsys.namespace", ""), labels.get("surface", ""))
                        series = (resource, metric.name, repr(sorted(labels.items())).encode())
                        self._totals[series] = (pair, point.as_int)

    def totals(self, name: str) -> Counter[Pair]:
        """Of a metric, by namespace and surface, over all processes."""
        totals: Counter[Pair] = Counter()
        for (_, metric, _), (pair, total) in self._totals.items():
            if metric == name:
                totals[pair] += total
        return totals


@contextmanager
def receiving() -> Iterator[Backend]:
    """A backend that takes OTLP over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            backend.take(ExportMetricsServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: the demo's output is for other things."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        backend = Backend(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield backend
        finally:
            server.shutdown()
            thread.join()
