"""A service in small, that counts, forks, and ends.

    python -m tests.programs.service SETUP ENDPOINT PROTOCOL THREADS DECISIONS GENERATIONS END

SETUP says who made the provider: `pipeline`, `host`, `host-delta`, `host-late`. Each process runs
THREADS threads and as many asyncio tasks with DECISIONS decisions each, half of the threads' calls
raise on top; it forks two children as long as GENERATIONS is above 0. END: `exit`, `shutdown`.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader

from otel_personalization import PersonalizationHook, pipeline

Flush = Callable[[], object]


def set_up(setup: str, endpoint: str, protocol: str) -> tuple[PersonalizationHook, Flush]:
    """A hook, and what ends its provider."""
    if setup == "pipeline":
        provider: Any = pipeline.configure("ranking", endpoint=endpoint, protocol=protocol)
        return PersonalizationHook(surfaces=["shop/home"]), provider.shutdown
    hook = PersonalizationHook() if setup == "host-late" else None
    delta = {ObservableCounter: AggregationTemporality.DELTA} if setup == "host-delta" else None
    exporter: Any = (
        GrpcExporter(endpoint=endpoint, preferred_temporality=delta)
        if protocol == "grpc"
        else OTLPMetricExporter(f"{endpoint}/v1/metrics", preferred_temporality=delta)
    )
    # An interval that no test waits for: what arrives was flushed.
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)])
    metrics.set_meter_provider(provider)
    hook = hook or PersonalizationHook()

    def end() -> None:
        hook.flush()
        provider.shutdown()

    return hook, end


def serve(hook: PersonalizationHook, threads: int, decisions: int) -> None:
    @hook.finalizer()
    def finalize(n: int) -> Any:
        if n < 0:
            raise KeyError(n)
        items = [{"item_id": "a", "personalized": True}, {"item_id": "b"}]
        sources = {"content": {"count": n % 2}}
        surface = ("home", "cart", "pdp")[n % 3]
        return {
            "namespace": "shop",
            "surface": surface,
            "final_items": items[: n % 3],
            "extras": {"candidate_sources": sources},
        }

    @hook.finalizer()
    async def finalize_later(n: int) -> Any:
        await asyncio.sleep(0)
        return finalize.__wrapped__(n)

    def in_thread() -> None:
        for n in range(decisions):
            finalize(n)
            if n % 2:
                try:
                    finalize(-n)
                except KeyError:
                    continue
                raise AssertionError("the exception did not come through")

    async def in_task() -> None:
        for n in range(decisions):
            await finalize_later(n)

    async def in_tasks() -> None:
        await asyncio.gather(*(in_task() for _ in range(threads)))

    running = [threading.Thread(target=in_thread) for _ in range(threads)]
    for thread in running:
        thread.start()
    asyncio.run(in_tasks())
    for thread in running:
        thread.join()


def main() -> None:
    setup, endpoint, protocol, threads, decisions, generations, end = sys.argv[1:]
    hook, shut_down = set_up(setup, endpoint, protocol)
    left = int(generations)
    while True:
        serve(hook, int(threads), int(decisions))
        if not left:
            break
        left -= 1
        children = []
        for _ in range(2):
            child = os.fork()
            if not child:
                break
            children.append(child)
        else:
            serve(hook, int(threads), int(decisions))
            for child in children:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            break
    if end == "shutdown":
        shut_down()


if __name__ == "__main__":
    main()
