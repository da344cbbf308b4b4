"""What the hook costs: a call, many threads, a million decisions, a collection."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from benchmarks.figures import ROUNDS, Figure, figure, resident, seconds
from benchmarks.hosts import Tracer, hooked, naive, sampled_span, warm_trace
from otel_personalization import PersonalizationHook


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
            adds = [seconds(add, [None], 8000) * 1e6 for _ in range(ROUNDS)]
            yield figure(f"one add; {where}", adds, " µs")
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
