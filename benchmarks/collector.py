"""Measures what the gateway costs, with the views and without: ``make bench-collector``.

Two Collectors run at the same time, one as ``gateway.yaml`` has it and one with its raw pipeline
alone, and both are sent the same exports in turns: so their ratio does not hang on what else the
machine does. Only their own CPU time counts, not that of who sends and of who takes what they send
on. What takes it is a sink: their own cost hangs little on who is behind them, and a Prometheus
would take from them the few CPUs that there are.

Exports are those of the package and the SDK. They come ten times as often as they do by default,
and so do the views, or a run would take minutes.
"""

from __future__ import annotations

import gzip
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from benchmarks.__main__ import machine
from benchmarks.hosts import warm_trace
from examples.stack.servers import GATEWAY, TOOLS, Collector
from otel_personalization import PersonalizationHook

RESULTS = Path(__file__).parent / "collector.md"
ROUNDS = 3
EXPORT_SECONDS = 1.0
DEFAULT_EXPORT_SECONDS = 10.0
IDLE_SECONDS = 2.0
WARM_UP, MEASURED = 2, 10
"""Exports of each process: those that are not measured, and those that are."""
VIEWED = 4
"""Counters of a (namespace, surface) that views are made of, so many series of each process."""
DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """What one process counts: a number of surfaces with as many sources each."""

    surfaces: int
    sources: int

    def traces(self) -> list[dict[str, Any]]:
        """One for each surface, of at most eight in a namespace."""
        sources = {f"source_{n}": {"count": 120} for n in range(self.sources)}
        traces = []
        for n in range(self.surfaces):
            trace = warm_trace(plain=False)
            trace |= {"namespace": f"shop_{n // 8}", "surface": f"surface_{n % 8}"}
            trace["extras"]["candidate_sources"] = sources
            traces.append(trace)
        return traces


SMALL, LARGE = Load(2, 4), Load(62, 8)
"""52 and 1,996 series, 12 of which tell how the package itself fares."""
DEAD = ((SMALL, 1_000, 100), (Load(62, 0), 150, 50))
"""What processes count, how many end, and how many have ended when measuring begins."""


class Process:
    """Exports that a service process sends, growing from one to the next.

    They are what the SDK makes of the package's counters, and serve for many processes, which
    differ in their ``service.instance.id``.
    """

    def __init__(self, load: Load) -> None:
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider(
            [self._reader],
            resource=Resource.create({"service.name": "ranking", "service.instance.id": ""}),
            shutdown_on_exit=False,
        )
        self._hook = PersonalizationHook(meter_provider=self._provider, log="none")
        self._traces = load.traces()
        (of_resource,) = self._collect().resource_metrics
        self.series = sum(
            len(metric.sum.data_points)
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        )

    def _collect(self) -> ExportMetricsServiceRequest:
        for trace in self._traces:
            self._hook.record(trace)
        data = self._reader.get_metrics_data()
        assert data is not None
        return encode_metrics(data)

    def exports(self, instances: Sequence[str]) -> Iterator[bytes]:
        """The next export of each, as OTLP sends it."""
        request = self._collect()
        attributes = request.resource_metrics[0].resource.attributes
        (instance,) = (one for one in attributes if one.key == "service.instance.id")
        for name in instances:
            instance.value.string_value = name
            yield request.SerializeToString()


class Sink:
    """Takes what a Collector exports, and counts the requests: those of exports, those of views."""

    def __init__(self) -> None:
        self.exports = self.views = 0
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # keeps the connection

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if b"personalized_impression_rate" in gzip.decompress(body):
                    sink.views += 1
                else:
                    sink.exports += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Sink:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Gateway:
    """A running Collector, who sends to it, and the sink behind it."""

    def __init__(self, collector: Collector, client: httpx.Client, sink: Sink) -> None:
        self.sink = sink
        self.collector = collector
        self._url = f"{collector.endpoint}/v1/metrics"
        self._client = client
        self._sent = 0

    def send(self, export: bytes) -> None:
        """Send it, and wait until it is taken; a refusal is an error."""
        headers = {"Content-Type": "application/x-protobuf"}
        self._client.post(self._url, content=export, headers=headers).raise_for_status()
        self._sent += 1

    def drain(self) -> None:
        """Wait until every export is passed on."""
        until = time.monotonic() + DRAIN_SECONDS
        while self.sink.exports < self._sent:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.sink.exports} of {self._sent} exports came through")
            time.sleep(0.01)


@contextmanager
def gateways(variable: str, value: str) -> Iterator[list[Gateway]]:
    """One with the raw pipeline alone, and one with the views, both new.

    Args:
        variable: of their environment, which is not at its default.
        value: of it.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=30))
        configuration = yaml.safe_load(GATEWAY.read_text())
        del configuration["service"]["pipelines"]["metrics/views"]
        raw = folder / "raw.yaml"
        raw.write_text(yaml.safe_dump(configuration))
        made = []
        for path in (raw, GATEWAY):
            of_this = folder / f"of-{path.stem}"
            of_this.mkdir()
            sink = stack.enter_context(Sink())
            collector = Collector(
                of_this, sink.url, ports=None, configurations=[path], **{variable: value}
            )
            stack.enter_context(collector)
            made.append(Gateway(collector, client, sink))
        yield made


@dataclass
class Rounds:
    """What was found of one kind of Collector, round by round."""

    milliseconds: list[float] = field(default_factory=list)
    """CPU of an export, less what is used without any."""
    idle: list[float] = field(default_factory=list)
    """Per cent of a core, without any export."""
    steady: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)


def run(load: Load, processes: int, of_kind: tuple[Rounds, Rounds]) -> None:
    """One round: both Collectors from their start, first idle, then under exports in turns."""
    process = Process(load)
    instances = [f"ranking-{n}" for n in range(processes)]
    with gateways("RECSYS_VIEW_INTERVAL", f"{EXPORT_SECONDS:.0f}s") as both:
        time.sleep(1)  # they have just started, which is not idling
        before = [gateway.collector.cpu_seconds() for gateway in both]
        time.sleep(IDLE_SECONDS)
        idle = [
            (g.collector.cpu_seconds() - b) / IDLE_SECONDS
            for g, b in zip(both, before, strict=True)
        ]

        resident: list[list[float]] = []
        began = time.monotonic()
        for n in range(WARM_UP + MEASURED):
            if n == WARM_UP:
                before = [gateway.collector.cpu_seconds() for gateway in both]
            for k, export in enumerate(process.exports(instances)):
                # Spread out as they would be, and each Collector is the first as often.
                due = began + (n + k / processes) * EXPORT_SECONDS
                time.sleep(max(0.0, due - time.monotonic()))
                for gateway in both[:: 1 if (n + k) % 2 else -1]:
                    gateway.send(export)
            time.sleep(max(0.0, began + (n + 1) * EXPORT_SECONDS - time.monotonic()))
            if n >= WARM_UP:
                resident.append([gateway.collector.memory_mib() for gateway in both])
        for gateway in both:
            gateway.drain()
        used = [
            gateway.collector.cpu_seconds() - b for gateway, b in zip(both, before, strict=True)
        ]
        seconds = time.monotonic() - began - WARM_UP * EXPORT_SECONDS
        peak = [gateway.collector.memory_mib("VmHWM") for gateway in both]
        made = [gateway.sink.views for gateway in both]

    if made[0] or made[1] < MEASURED:
        raise RuntimeError(f"views were made {made[0]} times raw alone, and {made[1]} times else")
    for k, rounds in enumerate(of_kind):
        exports = MEASURED * processes
        rounds.milliseconds.append(1000 * (used[k] - idle[k] * seconds) / exports)
        rounds.idle.append(100 * idle[k])
        rounds.steady.append(statistics.median(mib[k] for mib in resident))
        rounds.peak.append(peak[k])


def dead(load: Load, processes: int, few: int) -> float:
    """KiB that the views keep of a process that exported twice and ended.

    It is by how much more a Collector with views grew than one without, from a few processes on.
    """
    process = Process(load)
    with gateways("RECSYS_MEMORY_LIMIT_MIB", "8000") as both:
        before = [0.0, 0.0]
        for n in range(few + processes):
            if n == few:
                before = [gateway.collector.memory_mib() for gateway in both]
            for _ in range(2):
                for export in process.exports([f"ranking-{n}"]):
                    for gateway in both:
                        gateway.send(export)
        for gateway in both:
            gateway.drain()
        raw, views = (
            gateway.collector.memory_mib() - b for gateway, b in zip(both, before, strict=True)
        )
    return 1024 * (views - raw) / processes


def span(values: Sequence[float], digits: int = 1) -> str:
    """The median of the rounds, and the least and the most of them."""
    middle, low, high = (f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} ({low} to {high})"


def over(views: Sequence[float], raw: Sequence[float]) -> str:
    """The ratio of what was measured side by side."""
    return span([with_views / alone for with_views, alone in zip(views, raw, strict=True)], 2)


def loads() -> Iterator[str]:
    """Tables of CPU and of memory."""
    found: dict[tuple[int, int], tuple[Rounds, Rounds]] = {}
    for load in (SMALL, LARGE):
        for processes in (1, 20):
            pair = found[processes, Process(load).series] = (Rounds(), Rounds())
            for _ in range(ROUNDS):
                run(load, processes, pair)
    idle = [statistics.median(n for pair in found.values() for n in pair[k].idle) for k in (0, 1)]
    yield f"""
## CPU

An idle gateway used {idle[0]:.2f} % of a core raw alone, and {idle[1]:.2f} % with views. The
milliseconds are an export's, without that; the shares are of one core, with it, where processes
export every {DEFAULT_EXPORT_SECONDS:.0f} s.

| processes | series of each | ms, raw alone | with views | ratio | share, raw | with views |
| --- | --- | --- | --- | --- | --- | --- |"""
    for (processes, series), (raw, views) in found.items():
        shares = [
            idle[k] + processes * statistics.median(of.milliseconds) / DEFAULT_EXPORT_SECONDS / 10
            for k, of in enumerate((raw, views))
        ]
        yield (
            f"| {processes} | {series:,} | {span(raw.milliseconds)} | {span(views.milliseconds)} "
            f"| {over(views.milliseconds, raw.milliseconds)} "
            f"| {shares[0]:.2f} % | {shares[1]:.2f} % |"
        )
    yield """
## Memory

Resident, in MiB: the median while exports came, and the peak since the start.

| processes | series of each | raw alone | with views | ratio | peak, raw alone | with views |
| --- | --- | --- | --- | --- | --- | --- |"""
    for (processes, series), (raw, views) in found.items():
        yield (
            f"| {processes} | {series:,} | {span(raw.steady)} | {span(views.steady)} "
            f"| {over(views.steady, raw.steady)} | {span(raw.peak)} | {span(views.peak)} |"
        )


def ended() -> Iterator[str]:
    """A table of what processes leave behind."""
    yield f"""
## Processes that ended

The views remember a process for an hour after its last export (`max_staleness`). Each of these
exported twice under a name of its own; what a gateway with views grew by more than one without, in
KiB. {VIEWED} series of each surface are remembered.

| processes | surfaces of each | of a process | of a remembered series |
| --- | --- | --- | --- |"""
    for load, processes, few in DEAD:
        kept = [dead(load, processes, few) for _ in range(ROUNDS)]
        of_series = [kib / (VIEWED * load.surfaces) for kib in kept]
        yield f"| {processes:,} | {load.surfaces} | {span(kept)} | {span(of_series, 2)} |"


def main() -> None:
    """Measure, show, write down."""
    version = subprocess.run(
        [TOOLS / "otelcol-recsys", "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    text = f"""\
# What the gateway costs

Measured by `make bench-collector` on {time.strftime("%Y-%m-%d")}: {machine()}; {version}.

Two Collectors at a time, one with `gateway.yaml` and one with its raw pipeline alone, are sent the
same exports in turns, over HTTP, and pass them on to a sink, which does next to nothing. CPU time
is the Collector's own. Time runs ten times as fast: processes export every {EXPORT_SECONDS:.0f} s,
and views are made as often, as with `RECSYS_VIEW_INTERVAL` at 10 s; at its default of 60 s they
cost less. Median of {ROUNDS} rounds (least to most); each starts both Collectors anew and measures
{MEASURED} exports of each process."""
    out = []
    for line in (text, *loads(), *ended()):
        out.append(line)
        print(line, flush=True)
    RESULTS.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
