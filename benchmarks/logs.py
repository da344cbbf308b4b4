"""What log lines cost: the request, the process, the requests beside it; how many are written."""

from __future__ import annotations

import gc
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pythonjsonlogger.json import JsonFormatter

from benchmarks.figures import ROUNDS, Figure, figure, resident
from benchmarks.hosts import Tracer, hooked, naive, sampled_span, warm_trace
from otel_personalization import PersonalizationHook
from otel_personalization.conventions import MAX_QUEUED_LOG_RECORDS

CALLS = 2000
"""Between two flushes: the queue never is full."""


def logging_inline(tracer: Tracer) -> Tracer:
    """What one writes first: count, then format and write the line within the request."""
    logger = logging.getLogger("naive")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.FileHandler(os.devnull)
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s"))
    logger.addHandler(handler)

    class Inline(Tracer):
        def finalize(self, trace: Any) -> Any:
            tracer.finalize(trace)
            extras = trace["extras"]
            served = len(trace["final_items"])
            logger.info(
                "decision",
                extra={
                    "timestamp": time.time(),
                    "event": "personalization.decision",
                    "schema_version": 1,
                    "namespace": trace["namespace"],
                    "surface": trace["surface"],
                    "decision_id": trace["decision_id"],
                    "request_id": trace.get("request_id"),
                    "k": trace.get("k"),
                    "sample_rate": 1.0,
                    "served_items_count": served,
                    "personalized_items_count": extras["personalized_items_count"],
                    "reason_items_count": extras["reason_items_count"],
                    "reason_requested_items_count": served,
                    "cold_start_items_count": 0,
                    "candidate_sources": {
                        source: entry["count"]
                        for source, entry in extras["candidate_sources"].items()
                    },
                    "experiment": extras.get("bandit_experiment"),
                    "variant": extras.get("bandit_variant"),
                },
            )
            return trace

    return Inline()


def cost() -> Iterator[Figure]:
    """Of a call, by the CPU time of its thread, and of a decision, by that of the process."""
    trace = warm_trace(plain=False)
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    counter = provider.get_meter("bench").create_counter("bench")
    hooks = {
        name: PersonalizationHook(meter_provider=provider, **settings)
        for name, settings in {
            "logs off": {"log": "none"},
            "logs on": {"log": os.devnull},
            "logs sampled, 10 %": {"log": os.devnull, "log_sample": 0.1},
        }.items()
    }
    tracers = {name: hooked(hook) for name, hook in hooks.items()}
    tracers["a naive hook that formats inline"] = logging_inline(naive(provider))
    bare = Tracer()

    def add(_: Any) -> None:
        counter.add(1, {"recsys.namespace": "shop_eu", "surface": "home", "source": "content"})

    def cpu(function: Callable[[Any], object], flush: Callable[[], object]) -> tuple[float, float]:
        """Seconds of a call: of its thread, and of the process until the line is written."""
        gc.collect()
        of_process = time.process_time()
        of_thread = time.thread_time()
        for n in range(CALLS):
            trace["decision_id"] = str(n)
            function(trace)
        of_thread = time.thread_time() - of_thread
        flush()
        return of_thread / CALLS, (time.process_time() - of_process) / CALLS

    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in tracers}
    with sampled_span():
        for _ in range(ROUNDS):
            unit, _ = cpu(add, list)
            floor, _ = cpu(lambda trace: bare.finalize(trace), list)  # noqa: PLW0108
            for name, tracer in tracers.items():
                hook = hooks.get(name)
                of_thread, of_process = cpu(
                    lambda trace, tracer=tracer: tracer.finalize(trace),  # type: ignore[misc]
                    list if hook is None else hook.flush,
                )
                ratios[name].append(((of_thread - floor) / unit, (of_process - floor) / unit))
    for name, values in ratios.items():
        yield figure(f"CPU of the request; {name}", [of_thread for of_thread, _ in values])
        yield figure(
            f"CPU of the process, the writer included; {name}",
            [of_process for _, of_process in values],
        )


def slowdown() -> Iterator[Figure]:
    """Of requests in four threads that parse a trace and finalise it, at a fixed rate."""
    line = json.dumps(warm_trace(plain=False))

    def latencies(tracer: Tracer, rate: int) -> list[float]:
        taken: list[float] = []
        began = time.perf_counter() + 0.05

        def serve(first: int) -> None:
            for n in range(first, 2 * rate, 4):  # for two seconds
                due = began + n / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                start = time.perf_counter()
                tracer.finalize(json.loads(line))
                taken.append(time.perf_counter() - start)

        threads = [threading.Thread(target=serve, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(taken)

    provider = NoOpMeterProvider()
    off, on = (
        PersonalizationHook(meter_provider=provider, log=log) for log in ("none", os.devnull)
    )
    for rate in (1000, 5000):
        ratios: dict[str, list[float]] = {"p50": [], "p99": [], "p99.9": []}
        worst = []
        for _ in range(ROUNDS // 3):
            without, among = latencies(hooked(off), rate), latencies(hooked(on), rate)
            for name, place in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
                index = int(place * len(among))
                ratios[name].append(among[index] / without[index])
            worst.append(among[int(0.999 * len(among))] * 1000)
        for name, values in ratios.items():
            yield figure(f"{name} of a request, logs on / off; {rate:,} decisions a second", values)
        yield figure(f"p99.9 of a request, logs on; {rate:,} decisions a second", worst, " ms")


@contextmanager
def log_file() -> Iterator[Path]:
    """A file on a disk."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "decisions.ndjson"


def writer() -> Iterator[Figure]:
    """How many lines a second it writes to a file, the queue being full at first."""
    trace = warm_trace(plain=False)
    rates = []
    with log_file() as path:
        hook = PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path)
        for _ in range(ROUNDS // 3):
            began = time.perf_counter()
            for _ in range(MAX_QUEUED_LOG_RECORDS):
                hook.record(trace)
            hook.flush(60)
            rates.append(MAX_QUEUED_LOG_RECORDS / (time.perf_counter() - began) / 1000)
    yield figure("lines written in a second, in thousands, making decisions included", rates)


def memory() -> Iterator[Figure]:
    """Retained over a million decisions with logs on."""
    trace = warm_trace(plain=True)

    with log_file() as path:
        hook = PersonalizationHook(meter_provider=NoOpMeterProvider(), log=path)

        def record(decisions: int) -> None:
            for n in range(decisions):
                hook.record({**trace, "decision_id": f"decision-{n}"})
                if n % 5000 == 0:
                    hook.flush(60)
            hook.flush(60)
            os.truncate(path, 0)

        record(100_000)
        sizes = [resident()]
        for _ in range(10):
            record(100_000)
            sizes.append(resident())
    growth = [(size - sizes[0]) / 1024 for size in sizes[1:]]
    yield figure(
        "resident memory added by 1,000,000 decisions with logs on", growth, " KiB", "flat"
    )
