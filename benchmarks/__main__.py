"""Measures what the hook costs, and writes it down: ``make bench``.

Each figure is a ratio of two things that were timed in turns in one run: machines differ, and so
does one machine from minute to minute. The unit of cost is one ``Counter.add`` of the OpenTelemetry
SDK with three attributes, which whoever counts by hand pays for each number.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from otel_personalization import PersonalizationHook
from otel_personalization.conventions import DEFAULT_STAGES
from otel_personalization.replay import replay

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests" / "data" / "traces.ndjson.gz"
RECORDING = (
    Path(os.environ.get("RECORDED_TRACES", ROOT.parent / "shared" / "data"))
    / "decision_traces.ndjson.gz"
)
RESULTS = Path(__file__).parent / "results.md"

ROUNDS = 21


@dataclass
class Figure:
    """One line of the results."""

    what: str
    median: float
    low: float
    high: float
    unit: str = ""
    limit: str = ""

    def __str__(self) -> str:
        span = f"{self.low:.2f} to {self.high:.2f}"
        return f"| {self.what} | {self.median:.2f}{self.unit} | {span} | {self.limit} |"


def figure(what: str, values: list[float], unit: str = "", limit: str = "") -> Figure:
    """The median of the rounds, and the span of their middle half."""
    low, median, high = statistics.quantiles(values, n=4)
    return Figure(what, median, low, high, unit, limit)


def seconds(function: Callable[[Any], object], arguments: list[Any], times: int = 1) -> float:
    """Of one call, averaged over all arguments, `times` over."""
    gc.collect()
    began = time.perf_counter()
    for _ in range(times):
        for argument in arguments:
            function(argument)
    return (time.perf_counter() - began) / (times * len(arguments))


# --- what is timed ----------------------------------------------------------------------------


class Tracer:
    """Returns the trace that it is given, so that only what surrounds the call costs anything."""

    def finalize(self, trace: Any) -> Any:
        """The trace."""
        return trace


def hooked(hook: PersonalizationHook) -> Tracer:
    """A tracer of a class whose finaliser is wrapped."""

    class Hooked(Tracer):
        finalize = hook.finalizer()(Tracer.__dict__["finalize"])

    return Hooked()


def naive(provider: MeterProvider) -> Tracer:
    """What one writes first: read the trace, and add each number to a counter of its own."""
    meter = provider.get_meter("naive")
    names = ("decisions", "empty", "served", "personalized", "reasons", "requested", "cold")
    counters = [meter.create_counter(name) for name in names]
    candidates, empty = meter.create_counter("candidates"), meter.create_counter("source_empty")
    taken_part = meter.create_counter("source_decisions")

    class Naive(Tracer):
        def finalize(self, trace: Any) -> Any:
            extras = trace["extras"]
            items = trace["final_items"] or []
            boosted = set(extras.get("personalized_items", ()))
            asked = extras.get("include_reasons") is not False
            personalized = sum(item["item_id"] in boosted for item in items)
            reasons = sum(bool(item.get("reasons")) for item in items) if asked else 0
            cold = sum("cold_start" in item.get("reasons", ()) for item in items)
            extras["personalized_items_count"] = personalized
            extras["reason_items_count"] = reasons
            labels = {
                "recsys.namespace": trace["namespace"],
                "surface": trace.get("surface") or "default",
            }
            served = len(items)
            numbers = (1, not served, served, personalized, reasons, served * asked, cold)
            for counter, number in zip(counters, numbers, strict=True):
                counter.add(number, labels)
            for source, entry in extras.get("candidate_sources", {}).items():
                if source not in DEFAULT_STAGES:
                    of_source = {**labels, "source": source}
                    taken_part.add(1, of_source)
                    candidates.add(entry["count"], of_source)
                    empty.add(entry["count"] == 0, of_source)
            return trace

    return Naive()


def warm_trace(*, plain: bool) -> dict[str, Any]:
    """20 items; as the median recorded trace of that size has it unless `plain`: four reasons an
    item, four sources and three stages. Either way 57 boosted candidates, ten of them served.
    """
    reasons = ["recent_popularity", "co_visitation", "collaborative", "personalization"]
    sources = dict.fromkeys(("popularity", "content", "session"), 120) | {"collaborative": 0}
    stages = dict.fromkeys(("merged", "post_constraints", "post_exclusion"), 180)
    trace = {
        "decision_id": "6fe36cc8-4324-4f02-8736-6654ec16dff0",
        "namespace": "shop_eu",
        "surface": "home",
        "final_items": [
            {"item_id": f"shop_eu-{n:04}", "score": 0.5} | ({} if plain else {"reasons": reasons})
            for n in range(20)
        ],
        "extras": {
            "include_reasons": not plain,
            "personalized_items": [f"shop_eu-{n:04}" for n in range(0, 114, 2)],
            "candidate_sources": {}
            if plain
            else {
                name: {"count": count, "duration_ms": 1.25}
                for name, count in (sources | stages).items()
            },
        },
    }
    parsed: dict[str, Any] = json.loads(json.dumps(trace))  # strings as JSON gives them
    return parsed


@contextmanager
def sampled_span() -> Iterator[None]:
    """The active span of a request that is traced."""
    with TracerProvider(shutdown_on_exit=False).get_tracer("bench").start_as_current_span("rank"):
        yield


# --- figures ----------------------------------------------------------------------------------


def cost(lines: list[bytes]) -> Iterator[Figure]:
    """Of one wrapped call, less that of a bare one, in adds."""
    recorded = [json.loads(line) for line in lines]
    loads = json.loads
    bare = Tracer()
    cases: list[tuple[str, list[Any], int, str]] = [
        ("recorded traces in sequence", recorded, max(1, 4000 // len(recorded)), "2.0, aim 1.0"),
        (
            "one trace, reasons and sources",
            [warm_trace(plain=False)],
            4000,
            "1.3, aim 1.0",
        ),
        ("one trace, neither", [warm_trace(plain=True)], 4000, "0.8, aim 0.6"),
    ]
    for where, span in (("in a sampled span", sampled_span), ("outside of any span", nullcontext)):
        provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        ours = hooked(PersonalizationHook(meter_provider=provider, log="none"))
        theirs = naive(provider)
        counter = provider.get_meter("bench").create_counter("bench")

        def add(_: Any, counter: Any = counter) -> None:
            counter.add(1, {"recsys.namespace": "shop_eu", "surface": "home", "source": "content"})

        def parse_and(tracer: Tracer) -> Callable[[bytes], Any]:
            return lambda line: tracer.finalize(loads(line))

        def call(tracer: Tracer) -> Callable[[Any], Any]:
            return lambda trace: tracer.finalize(trace)  # noqa: PLW0108  # the lookup is timed, too

        with span():
            for what, traces, times, limit in cases:
                ratios: dict[Tracer, list[float]] = {ours: [], theirs: []}
                for _ in range(ROUNDS):
                    unit = seconds(add, [None], 8000)
                    floor = seconds(call(bare), traces, times)
                    for tracer, values in ratios.items():
                        values.append((seconds(call(tracer), traces, times) - floor) / unit)
                yield figure(f"{what}; {where}", ratios[ours], limit=limit)
                yield figure("the same, a naive hook", ratios[theirs])
            ratios_parsed = []
            for _ in range(ROUNDS):
                unit = seconds(add, [None], 8000)
                floor = seconds(parse_and(bare), lines)
                ratios_parsed.append((seconds(parse_and(ours), lines) - floor) / unit)
            yield figure(f"each recorded trace right after it was parsed; {where}", ratios_parsed)


def throughput(lines: list[bytes]) -> Iterator[Figure]:
    """Of several threads in one process, against that of one."""
    traces = [json.loads(line) for line in lines][:200]
    ours = hooked(PersonalizationHook(meter_provider=NoOpMeterProvider(), log="none"))

    def rate(threads: int) -> float:
        each = 24_000 // threads // len(traces)
        barrier = threading.Barrier(threads + 1)

        def work() -> None:
            barrier.wait()
            for _ in range(each):
                for trace in traces:
                    ours.finalize(trace)

        running = [threading.Thread(target=work) for _ in range(threads)]
        for thread in running:
            thread.start()
        barrier.wait()
        began = time.perf_counter()
        for thread in running:
            thread.join()
        return threads * each * len(traces) / (time.perf_counter() - began)

    for threads in (2, 4, 8):
        ratios = [rate(threads) / rate(1) for _ in range(ROUNDS // 3)]
        yield figure(f"throughput of {threads} threads / of one", ratios, limit="at least 0.8")


def memory() -> Iterator[Figure]:
    """Retained over a million decisions, 64 surfaces and 16 sources among them."""
    hook = PersonalizationHook(meter_provider=NoOpMeterProvider(), log="none")

    def record(decisions: int) -> None:
        for n in range(decisions):
            sources = {f"source_{n % 40}": {"count": n % 3}}
            trace = {"namespace": "shop", "surface": f"surface_{n % 1000}", "final_items": [{}]}
            hook.record({**trace, "extras": {"candidate_sources": sources}})

    def resident() -> int:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    record(100_000)
    before = [resident()]
    for _ in range(10):
        record(100_000)
        before.append(resident())
    growth = [(after - before[0]) / 1024 for after in before[1:]]
    yield figure("resident memory added by 1,000,000 decisions", growth, " KiB", "flat")


def collection() -> Iterator[Figure]:
    """Of 1,900 series: how long it takes, and what it does to a request in another thread."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    hook = PersonalizationHook(meter_provider=provider, log="none")
    for n in range(60):
        sources = {f"source_{k}": {"count": 1} for k in range(8)}
        hook.record({"surface": f"surface_{n}", "extras": {"candidate_sources": sources}})
    points = 0
    for _ in range(2):
        data = reader.get_metrics_data()
        assert data is not None
        points = sum(
            len(metric.data.data_points)
            for of_resource in data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        )
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        reader.get_metrics_data()
        times.append((time.perf_counter() - began) * 1000)
    yield figure(f"collection of {points:,} series", times, " ms")

    trace = warm_trace(plain=False)
    tracer = hooked(hook)
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            reader.get_metrics_data()

    def latencies() -> list[float]:
        taken = []
        for _ in range(30_000):
            began = time.perf_counter()
            tracer.finalize(trace)
            taken.append(time.perf_counter() - began)
        return sorted(taken)

    ratios: dict[str, list[float]] = {"p50": [], "p99.9": []}
    worst = []
    for _ in range(ROUNDS // 3):
        alone = latencies()
        stop.clear()
        collecting = threading.Thread(target=collect)
        collecting.start()
        among = latencies()
        stop.set()
        collecting.join()
        for name, place in (("p50", 0.5), ("p99.9", 0.999)):
            index = int(place * len(alone))
            ratios[name].append(among[index] / alone[index])
        worst.append(among[int(0.999 * len(among))] * 1000)
    for name, values in ratios.items():
        yield figure(f"{name} of a call during a collection / alone", values)
    yield figure("p99.9 of a call during a collection", worst, " ms")


def replaying(path: Path) -> Iterator[Figure]:
    """Of a file, against parsing its lines and nothing else."""

    def parse(file: Path) -> None:
        with gzip.open(file) as lines:
            for line in lines:
                json.loads(line)

    def count(file: Path) -> None:
        replay([file])

    ratios = [seconds(count, [path]) / seconds(parse, [path]) for _ in range(ROUNDS // 2)]
    yield figure(f"replay of {path.name} / json.loads of its lines", ratios, limit="2.0")


def machine() -> str:
    """What ran it."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(": ")[2] if names else model
    packages = ("opentelemetry-sdk", "wrapt")
    return (
        f"{model}, {os.cpu_count()} CPUs, {platform.system()}; "
        f"{platform.python_implementation()} {platform.python_version()}; "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )


def main() -> None:
    """Measure, show, write down."""
    path = RECORDING if RECORDING.exists() else SAMPLE
    with gzip.open(path) as stream:
        lines = list(stream)
    text = f"""\
# What the hook costs

Measured by `make bench` on {time.strftime("%Y-%m-%d")}: {machine()}.
The recorded traces are {len(lines):,} of {path.name}; {ROUNDS} rounds, or fewer of the long ones.

The first figures are the cost of one wrapped call less that of a bare one, in units of one SDK
`Counter.add` with three attributes, which costs more in a sampled span, as in a traced request.
"One trace" is a warm one of 20 items. Middle half: between the quartiles of the rounds.

| what | median | middle half | limit |
| --- | --- | --- | --- |
"""
    out = text.splitlines()
    print("\n".join(out))
    for figures in (cost(lines), throughput(lines), memory(), collection(), replaying(path)):
        for found in figures:
            out.append(str(found))
            print(found, flush=True)
    RESULTS.write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    sys.exit(main())
